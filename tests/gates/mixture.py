"""All that cameras, operators, engineers and their programs ask, in a mixture."""

import base64
import http.client
import io
import json
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from PIL import Image

from models.image import encode_png
from service.app import WEB
from tests.gates.gate import Findings
from tests.grey_parts import HEIGHT, PNG, WIDTH

PASSWORD = "correct horse battery"
USER = "eva"
_INSPECT = "/v1/inspect"
_RAW = f"{_INSPECT}?width={WIDTH}&height={HEIGHT}&pixel_format=Mono8"
_BOUNDARY = "kizu-gate"
_FORM = {"content-type": f"multipart/form-data; boundary={_BOUNDARY}"}
_JSON = {"content-type": "application/json"}
_BYTES = {"content-type": "application/octet-stream"}
_CONSOLE = [
    "/", "/docs", "/openapi.json",
    *(f"/{path.relative_to(WEB)}" for path in sorted(WEB.rglob("*")) if path.is_file()),
]  # fmt: skip
# Pages and lists, each as a screen asks for it.
_LISTS = (
    "/v1/inspections?limit=50", "/v1/inspections?verdict=ng&limit=20", "/v1/review?limit=20",
    "/v1/inspections?label=any&limit=20", "/v1/shift", "/v1/cameras", "/v1/drift", "/v1/recipes",
    "/v1/recipes/cap", "/v1/recipes/cap/revisions", "/v1/recipes/cap/promotions",
    "/v1/recipes/cap/bundles", "/v1/recipes/cap/bundles/2/report", "/v1/recipes/cap/candidates",
    "/v1/recipes/cap/thresholds", "/v1/trainings", "/v1/audit?limit=50", "/v1/session", "/metrics",
    "/health/live", "/health/ready", "/v2", "/v2/models/cap", "/v2/health/ready",
)  # fmt: skip
# Of all parts there are: they cost what there is.
_CHARTS = ("/v1/recipes/cap/scores", "/v1/recipes/cap/thresholds/consequences?review=90&ng=140")
# How often, of a thousand.
_WEIGHTS = {
    "png": 200, "jpeg": 120, "raw": 120, "form": 60, "overlay": 20, "again": 30, "batch": 30,
    "infer": 15, "broken": 60, "good": 40, "marked": 30, "withdrawn": 5, "draft": 15, "claim": 20,
    "listed": 90, "part": 75, "console": 45, "watched": 6, "exported": 5, "chart": 3, "log_in": 3,
    "lines": 3, "revised": 2, "promoted": 2, "nominated": 1,
}  # fmt: skip


class Client:
    """One of them, on a connection that is closed after each piece of work; no two of its images
    are the same."""

    def __init__(self, port: int, key: str, found: Findings, number: int) -> None:
        self._port = port
        self._headers = {"authorization": f"Bearer {key}"}
        self._found = found
        self._name = f"client-{number}"
        self._rng = np.random.default_rng((found.seed, number))
        self._parts: deque[str] = deque(maxlen=50)
        self._version = 1

    def work(self, requests: int) -> None:
        """At least so many requests."""
        self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        names = list(_WEIGHTS)
        shares = np.array(list(_WEIGHTS.values())) / sum(_WEIGHTS.values())
        self._left = requests
        while self._left > 0:
            name = str(self._rng.choice(names, p=shares)) if self._parts else "png"
            getattr(self, f"_{name}")()
        self._connection.close()

    def _ask(
        self, what: str, method: str, path: str, body: bytes | None = None,
        headers: dict[str, str] | None = None, *, expected: tuple[int, ...] = (200,),
    ) -> bytes:  # fmt: skip
        self._left -= 1
        self._found.count("requests")
        self._connection.request(method, path, body, self._headers | (headers or {}))
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status not in expected:
            self._found.fail(f"{what}: {method} {path}: {answer.status} {content[:200]!r}")
        return content

    def _tell(self, what: str, path: str, said: dict[str, Any], *expected: int) -> Any:
        body = json.dumps(said).encode()
        return json.loads(self._ask(what, "POST", path, body, _JSON, expected=expected or (201,)))

    def _inspect(self, path: str, body: bytes, headers: dict[str, str]) -> None:
        more = f"camera={self._name}&lot={self._lot}&part_id=p{self._rng.integers(10**9)}"
        path += f"{'&' if '?' in path else '?'}{more}"
        self._parts.append(json.loads(self._ask("inspect", "POST", path, body, headers))["id"])

    @property
    def _lot(self) -> str:
        return f"lot-{self._rng.integers(1000)}"

    @property
    def _pixels(self) -> Any:
        grey = int(self._rng.choice([60, 80, 105, 160]))
        return (grey + self._rng.integers(-4, 5, (HEIGHT, WIDTH))).astype(np.uint8)

    @property
    def _some(self) -> str:
        return self._parts[int(self._rng.integers(len(self._parts)))]

    def _encoded(self, format: str) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(self._pixels).save(buffer, format)
        return buffer.getvalue()

    def _png(self) -> None:
        self._inspect(_INSPECT, self._encoded("PNG"), PNG)

    def _jpeg(self) -> None:
        self._inspect(_INSPECT, self._encoded("JPEG"), {"content-type": "image/jpeg"})

    def _raw(self) -> None:
        self._inspect(_RAW, self._pixels.tobytes(), _BYTES)

    def _form(self) -> None:
        self._inspect(_INSPECT, _parts("image", [self._encoded("PNG")]), _FORM)

    def _overlay(self) -> None:
        self._inspect(f"{_INSPECT}?heatmap=overlay", self._encoded("PNG"), PNG)

    def _again(self) -> None:
        key = {"idempotency-key": f"{self._name}-{self._rng.integers(10**12)}"}
        image = self._encoded("PNG")
        first, second = (
            json.loads(self._ask("again", "POST", _INSPECT, image, PNG | key))["id"]
            for _ in range(2)
        )
        if first != second:
            self._found.fail("one key has two results")

    def _batch(self) -> None:
        images = [self._encoded("PNG") for _ in range(3)]
        images[1] = images[1][:40] if self._rng.random() < 0.3 else images[1]
        self._ask("batch", "POST", "/v1/inspect/batch", _parts("images", images), _FORM)

    def _infer(self) -> None:
        head = json.dumps({
            "inputs": [{"name": "image", "shape": [2, 32, 32, 3], "datatype": "UINT8",
                        "parameters": {"binary_data_size": 6144}}],
        }).encode()  # fmt: skip
        length = {"Inference-Header-Content-Length": str(len(head))}
        self._ask(
            "infer", "POST", "/v2/models/cap/infer", head + self._rng.bytes(6144), _BYTES | length
        )

    def _broken(self) -> None:
        png = self._encoded("PNG")
        kinds: list[tuple[str, bytes, dict[str, str], int]] = [
            (_INSPECT, png[: len(png) // 2], PNG, 422),
            (_INSPECT, self._rng.bytes(300), PNG, 422),
            (_INSPECT, png, {"content-type": "text/plain"}, 415),
            (_INSPECT, b"", {"content-type": "image/jpeg"}, 422),
            (_RAW, self._rng.bytes(100), _BYTES, 422),
            (f"{_INSPECT}?recipe=none", png, PNG, 404),
            (_INSPECT, _parts("other", [png]), _FORM, 422),
            ("/v1/feedback", b'{"inspection_id": 1}', _JSON, 422),
            ("/v1/nothing", b"", {}, 404),
        ]
        path, body, headers, status = kinds[self._rng.integers(len(kinds))]
        self._ask("broken", "POST", path, body, headers, expected=(status, 405))

    def _label(self, verdict: str, **more: Any) -> tuple[str, str]:
        part = self._some
        label = {"inspection_id": part, "verdict": verdict, "operator": self._name} | more
        return part, self._tell("label", "/v1/feedback", label)["id"]

    def _good(self) -> None:
        self._label("ok")

    def _marked(self) -> None:
        drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
        top, left = self._rng.integers(0, HEIGHT - 8), self._rng.integers(0, WIDTH - 8)
        drawn[top : top + 8, left : left + 8] = 255
        mask = base64.b64encode(encode_png(drawn)).decode()
        _, id = self._label("ng", defect_class="scratch", mask=mask)
        self._ask("mask", "GET", f"/v1/feedback/{id}/mask")

    def _withdrawn(self) -> None:
        part, id = self._label("ok")
        label = {"inspection_id": part, "operator": self._name, "supersedes": id}
        self._tell("withdraw", "/v1/feedback", label | {"verdict": "withdrawn"})

    def _draft(self) -> None:
        path = f"/v1/inspections/{self._some}/draft?operator={self._name}"
        drawn = encode_png(np.full((HEIGHT, WIDTH), 255, np.uint8))
        self._ask("draft", "PUT", path, drawn, PNG, expected=(204,))
        self._ask("draft", "GET", path)
        self._ask("draft", "DELETE", path, expected=(204,))

    def _claim(self) -> None:
        screen = {"session": f"screen-{self._name}"}
        self._tell("claim", "/v1/review/claims", screen | {"count": 5}, 200)
        self._tell("release", "/v1/review/releases", screen, 200)

    def _listed(self) -> None:
        self._ask("list", "GET", str(self._rng.choice(_LISTS)))

    def _part(self) -> None:
        part = f"/v1/inspections/{self._some}"
        views = (
            "", "/image", "/heatmap", "/heatmap?format=png16", "/heatmap?format=npy",
            "/heatmap?format=overlay", "/trail", "/feedback",
        )  # fmt: skip
        self._ask("part", "GET", part + str(self._rng.choice(views)))
        if self._rng.random() < 0.1:
            self._ask("page", "GET", f"/v1/inspections?limit=20&before={self._some}")

    def _console(self) -> None:
        self._ask("console", "GET", str(self._rng.choice(_CONSOLE)))

    def _watched(self) -> None:
        """Come, see one thing or none, and go without a word."""
        watcher = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        after = {"last-event-id": self._some}
        watcher.request("GET", "/v1/events", headers=self._headers | after)
        self._left -= 1
        self._found.count("requests")
        answer = watcher.getresponse()
        if self._rng.random() < 0.5:
            self._png()
            answer.readline()
        watcher.close()
        answer.close()
        self._connection.close()  # it may have waited longer than the service does

    def _exported(self) -> None:
        format = self._rng.choice(["csv", "mvtec", "coco", "masks"])
        self._ask("export", "GET", f"/v1/export?format={format}&lot={self._lot}")

    def _chart(self) -> None:
        self._ask("chart", "GET", str(self._rng.choice(_CHARTS)))
        since = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
        self._tell("estimate", "/v1/recipes/cap/estimate", {"since": since}, 200)

    def _log_in(self) -> None:
        self._connection.close()  # one waits longer for a password than the service for a request
        said = {"name": USER, "password": PASSWORD}
        wrong = {"name": f"{USER}-{self._rng.integers(3)}", "password": "not this one"}
        if self._rng.random() < 0.3:
            self._tell("log in", "/v1/session", wrong, 401, 429)
            return
        body = json.dumps(said).encode()
        self._left -= 3
        self._found.count("requests", 3)
        browser = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        browser.request("POST", "/v1/session", body, _JSON)
        answer = browser.getresponse()
        status, content = answer.status, json.loads(answer.read())
        cookie = {"cookie": (answer.getheader("set-cookie") or "").partition(";")[0]}
        if status == 201:
            page = cookie | {"x-kizu-csrf": content["csrf"]}
            for method, path in (("GET", "/v1/recipes"), ("DELETE", "/v1/session")):
                browser.request(method, path, headers=page)
                answer = browser.getresponse()
                answer.read()
                if answer.status not in (200, 204):
                    self._found.fail(f"logged in: {method} {path}: {answer.status}")
        elif status != 429:  # wrong passwords came from the same address
            self._found.fail(f"log in: {status}")
        browser.close()

    def _lines(self) -> None:
        decides = json.loads(self._ask("recipe", "GET", "/v1/recipes/cap"))["bundle_version"]
        lines = {"bundle_version": decides, "review": 99.5 + self._rng.random(), "ng": 150.0}
        who = {"by": self._name, "reason": "the soak"}
        self._tell("lines", "/v1/recipes/cap/thresholds", lines | who, 201, 409)

    def _revised(self) -> None:
        settings = {"sampled": float(self._rng.uniform(0.01, 0.1)), "product": "cap"}
        who = {"by": self._name, "reason": "the soak"}
        self._tell("revise", "/v1/recipes/cap/revisions", {"settings": settings} | who)

    def _promoted(self) -> None:
        self._version = 3 - self._version
        who = {"by": self._name, "reason": "the soak"}
        self._tell("promote", "/v1/recipes/cap/promotions", {"version": self._version} | who)

    def _nominated(self) -> None:
        """The other one, that it runs in the shadow; or it decides meanwhile."""
        decides = json.loads(self._ask("recipe", "GET", "/v1/recipes/cap"))["bundle_version"]
        who = {"by": self._name, "reason": "the soak"}
        asked = {"version": 3 - decides} | who
        self._tell("nominate", "/v1/recipes/cap/candidates", asked, 201, 422)


def _parts(name: str, files: list[bytes]) -> bytes:
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="part.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    ).encode()
    return b"".join(head + file + b"\r\n" for file in files) + f"--{_BOUNDARY}--\r\n".encode()
