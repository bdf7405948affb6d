"""Power cuts: of what was written only what was synced is left, and that is all that was
acknowledged."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.gates.forgetful import STRACE, Call, ForgetfulDisk, Sync, calls
from tests.gates.gate import CannotRun, Findings
from tests.gates.kills import Round, look, work
from tests.gates.nursery import Nursery
from tests.grey_parts import write_version

_TOLD = re.compile(rb'\{"id":"([^"]+)",')
_SENT = ("write", "writev", "sendto", "sendmsg")
_SYNCS = ("fsync", "fdatasync")


def run(full: bool, progress: Callable[[float], None]) -> Findings:
    """Some runs of a service, each cut at so many moments."""
    found = Findings(seed=3)
    _check_strace()
    rng = np.random.default_rng(found.seed)
    runs, cuts, seconds = (10, 20, 4.0) if full else (1, 3, 0.5)
    for number in range(runs):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            done = _traced(folder / "traced", folder / "trace", number, seconds)
            _cut(folder, calls(folder / "trace"), done, cuts, rng, found)
        progress((number + 1) / runs)
    return found


def _check_strace() -> None:
    if shutil.which("strace") is None:
        raise CannotRun("It needs strace.")
    probe = subprocess.run([*STRACE, "--output=/dev/null", "true"], capture_output=True, text=True)
    if probe.returncode:
        raise CannotRun(f"strace may not trace here: {probe.stderr.strip()}")


def _traced(folder: Path, trace: Path, number: int, seconds: float) -> Round:
    """A service from its first start on, while cameras and operators work."""
    write_version(folder / "store")
    (folder / "data").mkdir()
    nursery = Nursery(folder, before=[*STRACE, f"--output={trace}"])
    try:
        nursery.start()
        return work(nursery, number, seconds)
    finally:
        nursery.close()


def _cut(
    folder: Path,
    traced: list[Call],
    done: Round,
    cuts: int,
    rng: np.random.Generator,
    found: Findings,
) -> None:
    disk, told = ForgetfulDisk(folder / "traced" / "data"), set[str]()
    steps = [step for call in traced for step in _steps(call, disk, told)]
    steps.sort(key=lambda step: step[0])
    # Before the first image there is little to lose.
    moments = set(rng.choice(np.arange(len(steps) // 4, len(steps)), cuts, replace=False))
    again = folder / "again"
    shutil.copytree(folder / "traced" / "store", again / "store")
    nursery = Nursery(again)
    try:
        for number, (_, step) in enumerate(steps):
            step()
            if number in moments:
                shutil.rmtree(again / "data", ignore_errors=True)
                disk.after_a_cut(again / "data", rng if rng.random() < 0.5 else None)
                nursery.start()
                look(nursery.address, _known(done, told), found)
                nursery.kill()
                found.count("power cuts")
    finally:
        nursery.close()


def _steps(
    call: Call, disk: ForgetfulDisk, told: set[str]
) -> list[tuple[int, Callable[[], object]]]:
    """What a call does, and when: a sync makes last what was written before it began, and whoever
    is sent an answer may have it from the first moment on."""
    if call.name in _SYNCS:
        syncing: list[Sync | None] = []
        return [
            (call.begins, lambda: syncing.append(disk.syncing(call))),
            (call.ends, lambda: [one.done() for one in syncing if one]),
        ]
    if call.name in _SENT and not disk.holds(call.file):
        answer = _TOLD.search(b"".join(call.strings))
        return [(call.begins, lambda: told.add(answer[1].decode()))] if answer else []
    return [(call.ends, lambda: disk.happens(call))]


def _known(done: Round, told: set[str]) -> Round:
    """What had been acknowledged by then; all else may be there or not, and may be sent again."""
    inspected = {key: id for key, id in done.inspected.items() if id in told}
    return Round(
        inspected,
        {id: label for id, label in done.labelled.items() if label in told},
        [key for key in (*done.inspected, *done.open) if key not in inspected],
    )
