"""The Open Inference Protocol, by Triton's own client and by hand."""

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from models.bundle import GOLDEN
from models.golden import Golden
from service.app import create_app
from service.settings import Settings
from tests.listening import listening


@pytest.fixture(scope="module")
def golden(bundle):
    return Golden.from_bytes(bundle.read(GOLDEN))


@pytest.fixture(scope="module")
def address(fitted, tmp_path_factory):
    """Where a service listens."""
    data = tmp_path_factory.mktemp("data")
    app = create_app(Settings(store=fitted.path.parent.parent, data=data, max_batch_images=5))
    with listening(app) as (host, port):
        yield f"{host}:{port}"


@pytest.fixture
def client(address):
    client = triton.InferenceServerClient(address)
    yield client
    client.close()


def image_input(images, *, binary):
    given = triton.InferInput("image", list(images.shape), "UINT8")
    given.set_data_from_numpy(images, binary_data=binary)
    return given


def test_what_is_there_is_told(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("cap")
    assert client.is_model_ready("cap", "1")
    assert not client.is_model_ready("lid")
    assert not client.is_model_ready("cap", "2")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    model = client.get_model_metadata("cap")
    assert model["versions"] == ["1"]
    assert model["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 64, 64, 3]}]
    assert [output["name"] for output in model["outputs"]] == ["score", "heatmap"]


@pytest.mark.parametrize("sent", [True, False], ids=["binary in", "JSON in"])
@pytest.mark.parametrize("got", [True, False], ids=["binary out", "JSON out"])
def test_scores_and_heatmaps_are_those_of_training(client, golden, sent, got):
    outputs = [triton.InferRequestedOutput(name, binary_data=got) for name in ("heatmap", "score")]
    result = client.infer(
        "cap", [image_input(golden.images[:3], binary=sent)], outputs=outputs, request_id="7"
    )
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("7", "cap", "1")
    assert result.as_numpy("score") == pytest.approx(golden.scores[:3], abs=1e-3)
    assert result.as_numpy("heatmap") == pytest.approx(golden.heatmaps[:3], abs=1e-2)


def test_without_a_word_on_outputs_all_are_given(client, golden):
    result = client.infer("cap", [image_input(golden.images[:1], binary=True)], model_version="1")
    assert result.as_numpy("score").shape == (1,)
    assert result.as_numpy("heatmap").shape == (1, 64, 64)


def test_what_cannot_be_inferred_is_told(client, golden):
    images = golden.images
    bad = {
        "too many": [image_input(np.repeat(images[:1], 6, 0), binary=True)],
        r"\[n, 64, 64, 3\]": [image_input(images[:1, :32], binary=True)],
        "The inputs are": [triton.InferInput("pixels", [1], "UINT8")],
    }
    bad["The inputs are"][0].set_data_from_numpy(np.zeros(1, np.uint8))
    for says, inputs in bad.items():
        with pytest.raises(InferenceServerException, match=says) as refused:
            client.infer("cap", inputs)
        assert refused.value.status() == "422"
    given = [image_input(images[:1], binary=True)]
    with pytest.raises(InferenceServerException, match="no output depth"):
        client.infer("cap", given, outputs=[triton.InferRequestedOutput("depth")])
    with pytest.raises(InferenceServerException, match="no recipe 'lid'"):
        client.infer("lid", given)
    with pytest.raises(InferenceServerException, match="1 decides"):
        client.infer("cap", given, model_version="2")


def post(address, body, headers=None):
    import httpx2

    answer = httpx2.post(f"http://{address}/v2/models/cap/infer", content=body, headers=headers)
    assert answer.json()["verdict"] == "error"
    assert answer.json()["error"] == answer.json()["detail"]
    return answer.status_code, answer.json()["detail"]


ONE = b'{"inputs": [{"name": "image", "shape": [1, 64, 64, 3], "datatype": "UINT8", %s}]}'


@pytest.mark.parametrize(
    ("body", "length", "says"),
    [
        (b"", None, "no inference request"),
        (b"{}", None, "inputs"),
        (b"{}", "3", "of a body of 2 bytes"),
        (b"{}", "-1", "of a body of 2 bytes"),
        (ONE % b'"data": [1, 2]', None, "holds 2 values"),
        (ONE % b'"data": [[1], [2, 3]]', None, "ragged"),
        (ONE % (b'"data": [%s]' % b",".join([b"256"] * 12288)), None, "leaves 0 to 255"),
        (ONE % (b'"data": [%s]' % b",".join([b"0.5"] * 12288)), None, "whole numbers"),
        (ONE % b'"parameters": {"binary_data_size": 12288}', None, "0 bytes follow"),
        (ONE % b'"parameters": {"binary_data_size": -1}', None, "binary_data_size"),
    ],
)
def test_a_malformed_request_is_a_problem_with_an_error(address, body, length, says):
    headers = {"Inference-Header-Content-Length": length} if length else None
    status, detail = post(address, body, headers)
    assert status == 422
    assert says in detail


def test_a_compressed_body_is_refused(address):
    status, detail = post(address, b"x", {"content-encoding": "gzip"})
    assert status == 415
    assert "Compressed" in detail
