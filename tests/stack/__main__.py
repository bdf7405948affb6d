"""What the stack promises, tried on its own images: see deploy/stack-test.sh."""

import json
import os
import ssl
import sys
import tempfile
import urllib.request
from functools import partial
from pathlib import Path

from service import calls
from service.client import Kizu, Refused
from service.schemas import FeedbackRequest, FeedbackSummary, TrainingRequest
from tests.stack.passing_on import PassingOn, passing_on
from tests.stack.stack import (
    BARE,
    HTTPS,
    PATIENCE_S,
    PLAIN,
    SERVICES,
    Stack,
    answers,
    hold,
    name,
    podman,
    say,
    wait_for,
)

READY_S = 60
IMAGE_MB = 500
TRAINING_S = 600


def main() -> None:
    size = int(podman("inspect", "--format", "{{.Size}}", "kizu:local-cpu")) / 1e6
    hold(size <= IMAGE_MB, f"the service's image has {size:.0f} MB of {IMAGE_MB}")
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder))
        try:
            story(stack, Path(folder))
        except BaseException:
            for service in SERVICES:
                say(f"the last words of {service}:\n{stack.log(service)}")
            raise
        finally:
            stack.down(volumes=True)


def story(stack: Stack, folder: Path) -> None:
    stack.up(*BARE)
    seconds = wait_for(lambda: answers("/health/live"), "A bare stack did not answer")
    say(f"a bare stack answers after {seconds:.1f} s")
    keys = first_steps(stack, folder)
    say("fitting a demo product in the worker's image")
    stack.execute("worker", "kizu-train", "demo-data", "/cache/demo")
    stack.execute("worker", "kizu-train", "fit", "/cache/demo", "--recipe", "cap")
    wait_for(lambda: answers("/health/ready"), "The first bundle was not taken up")

    stack.down()
    stack.up(*BARE)
    seconds = wait_for(lambda: answers("/health/ready"), "The stack was not ready", READY_S)
    hold(True, f"from `up` to ready in {seconds:.1f} s of {READY_S}")

    with (
        Kizu(HTTPS, key=keys["camera"], patience_s=PATIENCE_S) as camera,
        Kizu(PLAIN, key=keys["camera"]) as plain,
        Kizu(HTTPS, key=keys["engineer"], patience_s=PATIENCE_S) as engineer,
        passing_on(stack) as passing,
    ):
        begins_to_pass_on(stack, passing, camera)
        confined(stack)
        label_and_retrain(stack, camera, plain, engineer)
        passes_on(stack, passing, camera, engineer)
        survives(stack, passing, camera, engineer)


def first_steps(stack: Stack, folder: Path) -> dict[str, str]:
    """As the README of `deploy` says; afterwards this process trusts the proxy's authority."""
    authority = folder / "kizu-ca.crt"
    podman("cp", f"{name('proxy')}:/state/caddy/pki/authorities/local/root.crt", str(authority))
    os.environ["SSL_CERT_FILE"] = str(authority)
    trusted = ssl.create_default_context(cafile=str(authority))
    with urllib.request.urlopen(HTTPS, timeout=5, context=trusted) as page:
        hold(b"<title>Kizu" in page.read(), "the console comes by TLS of the proxy's own authority")
    password = "of-a-stack-that-lives-for-minutes\n"
    stack.execute("service", "kizu", "user", "add", "eva", "--role", "admin", given=password)
    return {
        role: stack.execute("service", "kizu", "key", "add", role, "--role", role).strip()
        for role in ("camera", "engineer")
    }


def confined(stack: Stack) -> None:
    for service in SERVICES:
        status = dict(
            line.split(":\t", 1)
            for line in stack.execute(service, "cat", "/proc/1/status").splitlines()
            if ":\t" in line
        )
        hold(
            "0" not in status["Uid"].split()
            and int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
            and status["NoNewPrivs"] == "1",
            f"{service} is no root, has no capability and gets none",
        )
        refused = stack.execute(service, "sh", "-c", "touch /usr/x 2>&1 || true")
        hold("Read-only file system" in refused, f"{service} cannot write to its file system")
        if service not in ("proxy", "connect"):
            routes = stack.execute(service, "cat", "/proc/net/route").splitlines()[1:]
            hold(
                all(route.split()[1] != "00000000" for route in routes), f"{service} has no way out"
            )


def label_and_retrain(stack: Stack, camera: Kizu, plain: Kizu, engineer: Kizu) -> None:
    def image(kind: str, index: int) -> bytes:
        return stack.read("worker", f"/cache/demo/test/{kind}/{index:03}.jpg")

    good = camera.send(calls.inspect(image("good", 0), recipe="cap", part_id="p1"))
    hold(good.verdict == "ok", f"a good part is ok by TLS, {good.score:.2f}")
    spoilt = [
        plain.send(calls.inspect(image(kind, index), recipe="cap"))
        for kind in ("dent", "missing_print", "scratch")
        for index in range(4)
    ]
    found = sum(one.verdict != "ok" for one in spoilt)
    # What was learned in a minute misses the faint ones.
    hold(found >= 11, f"of 12 spoilt ones {found} do not pass, asked without TLS")
    word = FeedbackRequest(inspection_id=good.id, verdict="ok", operator="eva")
    try:
        plain.send(calls.label(word))
    except Refused as refused:
        hold(refused.problem.status == 403, "no label passes without TLS")
    else:
        sys.exit("A label passed without TLS.")

    for kind, verdict, count in (("good", "ok", 16), ("dent", "ng", 8), ("scratch", "ng", 8)):
        for index in range(count):
            seen = camera.send(calls.inspect(image(kind, index), recipe="cap"))
            word = FeedbackRequest(inspection_id=seen.id, verdict=verdict, operator="eva")
            engineer.send(calls.label(word))
    stored = stack.execute(
        "postgres", "psql", "-U", "kizu", "-d", "kizu", "-Atc",
        "SELECT verdict, count(*) FROM feedback GROUP BY verdict ORDER BY verdict",
    )  # fmt: skip
    hold(stored.split() == ["ng|16", "ok|16"], "the labels are PostgreSQL's")

    asked = engineer.send(calls.ask_training("cap", TrainingRequest(by="eva", reason="stack")))
    wait_for(
        lambda: engineer.send(calls.get_training(asked.id)).state not in ("queued", "running"),
        "The training did not end",
        TRAINING_S,
    )
    ended = engineer.send(calls.get_training(asked.id))
    hold(ended.state == "succeeded", f"the worker retrained: {ended.state} {ended.message}")
    wait_for(
        lambda: len(engineer.send(calls.list_bundles("cap"))) == 2, "The candidate was not taken up"
    )
    wait_for(
        lambda: scraped(stack, 'sum(kizu_inspections_total{recipe="cap"})') >= 10,
        "Prometheus did not scrape the service",
    )
    hold(True, "Prometheus scrapes the service")


def scraped(stack: Stack, query: str) -> float:
    """What Prometheus says, 0 where it knows nothing."""
    found = stack.execute(
        "prometheus", "promtool", "query", "instant", "-o", "json", "http://127.0.0.1:9090", query
    )
    values = json.loads(found)
    return float(values[0]["value"][1]) if values else 0.0


def begins_to_pass_on(stack: Stack, passing: PassingOn, camera: Kizu) -> None:
    """It takes up what is inspected after its first look, of which nobody is told: until then one
    is inspected after the other."""
    stack.up("connect")
    wait_for(lambda: answers("/health/ready"), "With connect: not ready")
    part = stack.read("worker", "/cache/demo/test/good/000.jpg")

    def one_arrives() -> bool:
        camera.send(calls.inspect(part, recipe="cap"))
        return passing.waits(lambda: bool(passing.ids))

    seconds = wait_for(one_arrives, "No result was passed on")
    hold(True, f"a result comes to the webhook, signed, within {seconds:.1f} s")


def passes_on(stack: Stack, passing: PassingOn, camera: Kizu, engineer: Kizu) -> None:
    wait_for(lambda: passing.has_all(inspections(engineer)), "Not all results were passed on")
    hold(True, f"{len(passing.ids)} results came to the webhook in their order")

    part = stack.read("worker", "/cache/demo/test/scratch/000.jpg")
    new = camera.send(calls.inspect(part, recipe="cap", camera="top"))
    hold(passing.opcua_shows(new), "an OPC UA client logs in, encrypted, and reads the result")
    verdict = passing.drop("scratch.jpg", part)
    hold(verdict == new.verdict, f"an image that a station drops is inspected, too: {verdict}")

    wait_for(
        lambda: scraped(stack, 'sum(kizu_connect_received_total{job="kizu-connect"})') >= 10,
        "Prometheus did not scrape connect",
    )
    hold(scraped(stack, 'up{job="kizu-connect"}') == 1, "Prometheus scrapes connect")

    stack.stop("connect")
    missed = [camera.send(calls.inspect(part, recipe="cap", camera="top")) for _ in range(3)]
    hold(not {one.id for one in missed} & set(passing.ids), "stopped, it passes nothing on")
    stack.start("connect")
    wait_for(lambda: passing.has_all(inspections(engineer)), "What it missed did not arrive")
    hold(passing.opcua_shows(missed[-1]), "started again, it passes on what it missed")


def survives(stack: Stack, passing: PassingOn, camera: Kizu, engineer: Kizu) -> None:
    def all_passed_on() -> bool:
        return passing.has_all(inspections(engineer))

    part = stack.read("worker", "/cache/demo/test/scratch/000.jpg")
    score = camera.send(calls.inspect(part, recipe="cap")).score
    for service in SERVICES:
        for what, do in (("restarted", stack.restart), ("killed", stack.kill)):
            kept = inspections(engineer)
            do(service)
            ready = wait_for(lambda: answers("/health/ready"), f"With {service} {what}: not ready")
            new = camera.send(calls.inspect(part, recipe="cap"))
            hold(new.score == score, f"{service} {what}: it inspects, ready after {ready:.1f} s")
            kept[new.id] = None
            # What came while the database was away is brought to it.
            stored = wait_for(partial(same, engineer, kept), f"{service} {what}: something is lost")
            gone = wait_for(all_passed_on, f"{service} {what}: something is not passed on")
            say(f"stored within {stored:.1f} s, passed on within {gone:.1f} s more")
    stack.down()
    stack.up(*SERVICES)
    wait_for(lambda: answers("/health/ready"), "The stack was not ready again", PATIENCE_S)
    hold(same(engineer, kept), "down and up again: all that was stored is there")
    new = camera.send(calls.inspect(part, recipe="cap", camera="top"))
    wait_for(all_passed_on, "Nothing is passed on again")
    hold(passing.opcua_shows(new), f"and it is passed on: {len(passing.ids)} results, in order")


def same(engineer: Kizu, kept: dict[str, FeedbackSummary | None]) -> bool:
    return inspections(engineer) == kept


def inspections(engineer: Kizu) -> dict[str, FeedbackSummary | None]:
    """The newest ones with what was said of them."""
    page = engineer.send(calls.list_inspections(limit=100))
    return {one.id: one.feedback for one in page.items}


if __name__ == "__main__":
    main()
