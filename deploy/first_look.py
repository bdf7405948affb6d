"""Waits for a service, has it inspect a good and a defective demo part, and prints what it says."""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

PATIENCE_S = 60
# A plant's proxy has no way to a service on this machine.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def main() -> None:
    url, demo, process, log = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    wait_until_ready(url, process, log)
    print()
    for name in ("good", "scratch"):
        image = demo / "test" / name / "000.jpg"
        result = post(f"{url}/v1/inspect?recipe=cap", image.read_bytes())
        print(f"{name:>8}  verdict {result['verdict']:<7} score {result['score']:.2f}")
        print(f"          heatmap {url}{result['heatmap']}?format=overlay")
    print(f"\nThe page: {url}/      The API: {url}/docs")


def wait_until_ready(url: str, process: int, log: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            with DIRECT.open(f"{url}/health/ready", timeout=5) as answer:
                if json.load(answer)["status"] == "ready":
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            sys.exit(f"The service has stopped; its last words are in {log}.")
        time.sleep(0.1)
    sys.exit(f"The service was not ready within {PATIENCE_S} s; see {log}.")


def post(address: str, image: bytes) -> dict:
    request = urllib.request.Request(address, image, {"Content-Type": "image/jpeg"})
    try:
        with DIRECT.open(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        sys.exit(f"The service refused the image ({error.code}): {error.read().decode()}")


main()
