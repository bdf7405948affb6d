"""What decides goes on deciding, whatever becomes of the store; only what is trusted decides."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient

from models.bundle import MODEL, open_bundle
from models.errors import KeyFileError
from models.signature import Signer, Trust
from service.app import create_app
from service.engine import FakeEngine
from service.settings import Settings
from service.vault import Vault
from tests.grey_parts import PNG, image, write_version
from tests.keys import write_keys


@pytest.fixture
def store(tmp_path):
    write_version(tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def serve(tmp_path, store):
    def made(**fields):
        settings = Settings(store=store, data=tmp_path / "data", **fields)
        return TestClient(create_app(settings, open_engine=lambda bundle: FakeEngine()))

    return made


@pytest.fixture
def keys(tmp_path):
    return write_keys(tmp_path / "signing.pem", tmp_path / "trusted.pem")


def shoot(client, recipe="cap"):
    """The version that answers, or why there is none."""
    told = client.post(f"/v1/inspect?recipe={recipe}", content=image(50), headers=PNG).json()
    return told.get("bundle_version") or told["type"].rpartition(":")[2]


def sign(bundle, key):
    (bundle / "manifest.sig").write_bytes(Signer(key).sign(open_bundle(bundle).digest))


def test_a_service_starts_without_its_store(serve, store):
    with serve() as client:
        assert shoot(client) == 1
    store.rename(store.with_name("elsewhere"))
    with serve() as client:
        assert shoot(client) == 1
        assert client.get("/health/ready").status_code == 200


def test_a_version_that_is_missing_from_its_recipe_decides_from_its_copy(serve, store):
    with serve() as client:
        assert shoot(client) == 1
    write_version(store, 2)
    shutil.rmtree(store / "cap" / "1")
    with serve() as client:
        assert shoot(client) == 1
        asked = {"version": 2, "by": "eva", "reason": "1 is lost"}
        assert client.post("/v1/recipes/cap/promotions", json=asked).status_code == 201
        assert shoot(client) == 2


def test_a_candidate_comes_to_decide_while_the_store_is_away(serve, store):
    with serve() as client:
        write_version(store, 2)
        client.app_state["kizu"].candidates.nominate("cap", 2, by="eva", reason="try")
        store.rename(store.with_name("elsewhere"))
        asked = {"version": 2, "by": "eva", "reason": "better"}
        assert client.post("/v1/recipes/cap/promotions", json=asked).status_code == 201
        assert shoot(client) == 2
    with serve() as client:
        assert shoot(client) == 2


def test_a_recipe_that_was_taken_out_of_the_store_is_gone_after_a_restart(serve, store):
    write_version(store, recipe="lid")
    with serve() as client:
        assert shoot(client, "lid") == 1
    shutil.rmtree(store / "lid")
    with serve() as client:
        assert shoot(client, "lid") == "not-found"
        assert shoot(client, "cap") == 1


def copies(tmp_path):
    return sorted(path.name for path in (tmp_path / "data" / "bundles").glob("*/cap/*"))


def test_copies_of_what_decides_no_more_go_at_the_next_start(serve, store, tmp_path):
    with serve(promotion="newest") as client:
        assert shoot(client) == 1
    write_version(store, 2)
    with serve(promotion="newest") as client:
        assert shoot(client) == 2
        assert copies(tmp_path) == ["1", "2"]
    with serve(promotion="newest") as client:
        assert shoot(client) == 2
        assert copies(tmp_path) == ["2"]


def test_a_candidate_that_was_passed_over_has_its_copy_when_it_decides_after_all(
    serve, store, tmp_path
):
    with serve() as client:
        for version in (2, 3):
            write_version(store, version)
        client.app_state["kizu"].candidates.nominate("cap", 2, by="eva", reason="try")
        for version in (3, 2):
            asked = {"version": version, "by": "eva", "reason": "better"}
            assert client.post("/v1/recipes/cap/promotions", json=asked).status_code == 201
        assert shoot(client) == 2
    shutil.rmtree(store)
    with serve() as client:
        assert shoot(client) == 2
        assert copies(tmp_path) == ["2"]


def test_a_copy_that_was_spoilt_is_made_anew_or_not_used(serve, store, tmp_path):
    with serve() as client:
        assert shoot(client) == 1
    [copy] = (tmp_path / "data" / "bundles").glob("*/cap/1")
    (copy / MODEL).write_bytes(b"broken")
    with serve() as client:
        assert shoot(client) == 1
    assert open_bundle(copy).manifest.version == 1
    (copy / MODEL).write_bytes(b"broken")
    shutil.rmtree(store)
    with serve() as client:
        assert shoot(client) == "not-ready"


def test_many_who_ask_for_a_copy_at_once_get_the_same(store, tmp_path):
    # A person promotes what a scan has just found; or `kizu bundle promote` does, elsewhere.
    bundle = open_bundle(store / "cap" / "1")
    together = threading.Barrier(8)

    def admit(_):
        vault = Vault(tmp_path / "copies", Trust())
        together.wait()
        return vault.admit(bundle)

    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(admit, range(8)))
    assert {(one.path, one.digest) for one in made} == {(made[0].path, bundle.digest)}
    assert made[0].path.is_relative_to(tmp_path / "copies")


def test_only_what_somebody_trusted_signed_is_served(serve, store, keys, tmp_path):
    signing, trusted = keys
    other, _ = write_keys(tmp_path / "other.pem", tmp_path / "others.pem")
    with serve(trusted_keys=trusted) as client:
        assert shoot(client) == "not-ready"
        assert "is not signed" in str(client.get("/health/ready").json()["problems"])
    sign(store / "cap" / "1", other)
    with serve(trusted_keys=trusted) as client:
        assert shoot(client) == "not-ready"
        assert "anybody who is trusted" in str(client.get("/health/ready").json()["problems"])
    sign(store / "cap" / "1", signing)
    with serve(trusted_keys=trusted) as client:
        assert shoot(client) == 1


def test_the_old_one_goes_on_while_a_new_one_is_not_signed(serve, store, keys):
    signing, trusted = keys
    sign(store / "cap" / "1", signing)
    with serve(trusted_keys=trusted) as client:
        write_version(store, 2)
        asked = {"version": 2, "by": "eva", "reason": "new"}
        answer = client.post("/v1/recipes/cap/promotions", json=asked)
        assert answer.json()["type"] == "urn:kizu:problem:bundle-refused"
        assert shoot(client) == 1
        sign(store / "cap" / "2", signing)
        assert client.post("/v1/recipes/cap/promotions", json=asked).status_code == 201
        assert shoot(client) == 2


def test_a_signature_of_another_bundle_is_none(serve, store, keys):
    signing, trusted = keys
    write_version(store, 2)
    sign(store / "cap" / "2", signing)
    shutil.copy(store / "cap" / "2" / "manifest.sig", store / "cap" / "1")
    with serve(trusted_keys=trusted, promotion="newest") as client:
        assert shoot(client) == 2
        asked = {"version": 1, "by": "eva", "reason": "back"}
        assert client.post("/v1/recipes/cap/promotions", json=asked).status_code == 422


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n"])
def test_a_file_without_a_key_trusts_nobody_rather_than_everybody(serve, tmp_path, content):
    (tmp_path / "keys.pem").write_bytes(content)
    with pytest.raises(KeyFileError, match="public key"), serve(trusted_keys=tmp_path / "keys.pem"):
        pass
