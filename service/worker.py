"""`kizu worker`: carries out the trainings that people ask for, one at a time.

Training is a program of its own, `kizu-train`, which this process starts, watches and ends; the
serving process knows nothing of it. Of everything that matters the database has a row: whoever is
started after an end takes up what was lost.
"""

import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import numpy as np
import structlog
from sqlalchemy import Engine as Database
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from models.errors import KizuError
from models.image import encode_png
from models.sample import Snapshot, open_snapshot
from service.recipes import read_revision
from service.schemas import LabelChoice
from service.settings import Settings
from service.store import records, trainings
from service.store.blobs import Blobs
from service.store.mirror import Mirror
from service.store.snapshot import take_snapshot
from service.store.tables import Training
from service.trainings import wanted

log = structlog.get_logger()

_LOOK_S = 1.0
_LOG_LINES = 200
_AREAS_PX = 1024  # of each side of a mask, whatever the image's proportions
_TO_END_S = 10.0
# Behind the line: what serves on the same computer goes first.
_NICENESS = 15


class WorkerError(KizuError):
    """A worker that cannot work."""


def find_program() -> Path:
    """`kizu-train`, beside this program or on the PATH. Raises WorkerError."""
    beside = Path(sys.executable).parent / "kizu-train"
    found = str(beside) if beside.exists() else shutil.which("kizu-train")
    if found is None:
        raise WorkerError(
            "kizu-train is not installed here, and a worker needs it.",
            remedy="pip install 'kizu[cpu,train]', or run the worker where it is.",
        )
    if shutil.which("setpriv") is None:
        raise WorkerError(
            "setpriv is not installed here: a training could outlive its worker.",
            remedy="apt-get install util-linux",
        )
    return Path(found)


@dataclass
class _Progress:
    """What the program has said so far."""

    step: str = ""
    done: int = 0
    total: int = 0
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LOG_LINES))
    message: str = ""
    error: str = ""

    def hear(self, line: str) -> None:
        try:
            told = json.loads(line)
        except ValueError:
            told = None
        if isinstance(told, dict) and "bar" in told:
            self.step, self.done, self.total = told["bar"], told["done"], told["total"]
            return
        text = told["say"] if isinstance(told, dict) and "say" in told else line
        self.lines.append(text)
        if text.startswith("error: "):
            self.error = text.removeprefix("error: ")
        else:
            self.message = text


class TrainingWorker:
    """Takes trainings from the queue, until it is stopped."""

    def __init__(
        self, database: Database, blobs: Blobs, settings: Settings, program: Path,
        mirror: Mirror | None = None,
    ) -> None:  # fmt: skip
        self._database = database
        self._blobs = blobs
        self._settings = settings
        self._program = program
        self._mirror = mirror
        self._name = f"{socket.gethostname()}-{os.getpid()}"
        self._beats = trainings.Beats()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`. A training that runs then waits again, for whoever comes next."""
        while not stop.is_set():
            try:
                worked = self.work(stop)
            except (OperationalError, InterfaceError) as error:
                log.warning("the database does not answer", error=str(error.orig))
                worked = False
            if not worked:
                stop.wait(_LOOK_S)

    def work(self, stop: threading.Event) -> bool:
        """Carry out the training that waits longest; whether there was one."""
        with Session(self._database, expire_on_commit=False) as session:
            trainings.alive(session, self._name)
            lost = self._beats.lost(session)
            training = trainings.take(session, self._name, lost)
            session.commit()
        if training is None:
            return False
        log.info("training begins", id=training.id, recipe=training.recipe)
        assert training.started_at is not None
        began = time.monotonic()
        try:
            ended = self._carry_out(training, stop)
        except KizuError as error:
            ended = {"state": "failed", "message": str(error)}
        except OSError as error:
            ended = {"state": "failed", "message": f"{error}. Check the disk and its permissions."}
        if ended["state"] != "queued":
            # What it took is right, whatever the clock was set to meanwhile.
            took = timedelta(seconds=time.monotonic() - began)
            ended["finished_at"] = training.started_at + took
        if ended["state"] == "succeeded" and self._mirror:
            self._mirror.exchange(sends=True)  # who hears of the version finds it
        self._tell_at_last(training.id, ended)
        log.info("training ended", id=training.id, state=ended["state"])
        return True

    def _carry_out(self, training: Training, stop: threading.Event) -> dict[str, Any]:
        snapshot, note, resume = self._snapshot(training)
        with tempfile.TemporaryFile("w+") as results, tempfile.TemporaryDirectory() as folder:
            areas = self._areas(training.recipe, Path(folder) / "areas.png")
            program = self._start(training, snapshot, results, areas, resume=resume)
            progress, peak_mb, why = self._watch(training, program, stop)
            results.seek(0)
            written = results.read().strip()
        facts = {"log": "\n".join(filter(None, (note, *progress.lines))), "peak_mb": peak_mb}
        if why == "stopped":
            return facts | {"state": "queued", "worker": None, "attempts": training.attempts - 1}
        if why == "cancelled":
            return facts | {"state": "cancelled", "message": "It was cancelled."}
        outcome = self._outcome(training, program.returncode, written, progress)
        outcome["message"] = " ".join(filter(None, (outcome["message"], note)))
        return facts | outcome

    def _snapshot(self, training: Training) -> tuple[Snapshot, str, bool]:
        """The labels of a training, what was left out of them, and whether it has begun to learn
        them before: a training that was interrupted goes on with the labels that it had, if they
        are on this computer."""
        snapshots = self._settings.data / "snapshots"
        begun = training.snapshot and snapshots / training.snapshot
        if begun and begun.is_dir():
            return open_snapshot(begun), training.message, True
        choice = LabelChoice.model_validate(training.labels)
        self._tell(training.id, step="Collecting labels")
        taken = take_snapshot(
            self._database, self._blobs, snapshots,
            wanted(training.recipe, choice), without=set(choice.without),
        )  # fmt: skip
        # The message is the note until the end: whoever goes on with the training needs it, too.
        self._tell(training.id, snapshot=taken.snapshot.digest, message=taken.note)
        return taken.snapshot, taken.note, False

    def _areas(self, recipe: str, path: Path) -> Path | None:
        """A mask of where the recipe counts defects now, written to `path`; None is everywhere."""
        with Session(self._database) as session:
            number = records.newest_recipe_revision(session, recipe)
            area = read_revision(session, number).settings.area(_AREAS_PX, _AREAS_PX)
        if area is None:
            return None
        path.write_bytes(encode_png(area.astype(np.uint8) * 255))
        return path

    def _start(
        self,
        training: Training,
        snapshot: Snapshot,
        results: IO[str],
        areas: Path | None,
        *,
        resume: bool,
    ) -> subprocess.Popen[str]:
        store, recipe = self._settings.store, training.recipe
        cache = self._settings.cache or self._settings.data / "features"
        arguments: list[str | Path] = [
            self._program, "retrain",
            "--snapshot", snapshot.path,
            "--champion", store / recipe / str(training.champion_version),
            "--store", store,
            "--cache", cache,
        ]  # fmt: skip
        good = self._settings.good_parts and self._settings.good_parts / recipe
        if good and good.is_dir():
            arguments += ["--data", good]
        if areas:
            arguments += ["--areas", areas]
        if resume:
            arguments.append("--resume")
        # Ended by the kernel with this process, however that ends: two of them would write at once.
        leash = ["setpriv", "--pdeathsig", "KILL"]
        program = subprocess.Popen(  # noqa: S603 - names come from a checked recipe and the settings
            [*leash, *arguments],
            stdin=subprocess.DEVNULL, stdout=results, stderr=subprocess.PIPE, text=True,
            errors="replace", env=os.environ | {"KIZU_PROGRESS": "json"}, start_new_session=True,
        )  # fmt: skip
        os.setpriority(os.PRIO_PROCESS, program.pid, _NICENESS)
        return program

    def _watch(
        self, training: Training, program: subprocess.Popen[str], stop: threading.Event
    ) -> tuple[_Progress, float, str | None]:
        """Until the program has ended; what it said, its peak memory, and why it was ended."""
        progress, said = _Progress(), queue.SimpleQueue[str | None]()
        assert program.stderr is not None
        listener = threading.Thread(target=_listen, args=(program.stderr, said), daemon=True)
        listener.start()
        peak_mb, why, step, step_began, due = 0.0, None, None, 0.0, 0.0
        ended = False
        while not ended:
            try:
                line = said.get(timeout=_LOOK_S / 4)
                ended = line is None
                if line:
                    progress.hear(line)
            except queue.Empty:
                pass
            if why is None and stop.is_set():
                why = "stopped"
                _end(program)
            if time.monotonic() < due:
                continue
            due = time.monotonic() + _LOOK_S
            peak_mb = max(peak_mb, _peak_mb(program.pid))
            if progress.step != step:
                step, step_began = progress.step, time.monotonic()
            now, lasts = records.now(), timedelta(seconds=time.monotonic() - step_began)
            facts: dict[str, Any] = {
                "seen_at": now, "peak_mb": peak_mb, "step": step, "step_began_at": now - lasts,
                "done": progress.done, "total": progress.total,
            }  # fmt: skip
            try:
                cancelled = self._tell(training.id, **facts)
            except (OperationalError, InterfaceError) as error:
                log.warning("the database does not answer", error=str(error.orig))
                continue
            if cancelled and why is None:
                why = "cancelled"
                _end(program)
        program.wait()
        return progress, peak_mb, why

    def _outcome(
        self, training: Training, status: int, written: str, progress: _Progress
    ) -> dict[str, Any]:
        message = progress.message.split(" Report: ")[0]
        if status == 0 and written:
            path = Path(written.splitlines()[-1])
            report = self._blobs.put((path / "report.html").read_bytes())
            return {
                "state": "succeeded",
                "bundle_version": int(path.name),
                "report_sha256": report,
                "message": message,
            }
        if status == 1:
            refused = self._settings.store / training.recipe / ".training" / "refused.html"
            report = self._blobs.put(refused.read_bytes())
            return {"state": "refused", "report_sha256": report, "message": message}
        if progress.error:
            return {"state": "failed", "message": progress.error}
        if status == -signal.SIGKILL:
            return {
                "state": "failed",
                "message": "The system ended the training, as it does when memory runs out. Try "
                "again with nothing else running, or with fewer labels.",
            }
        return {
            "state": "failed",
            "message": f"The training ended without a word (exit status {status}). Its log may say "
            "more.",
        }

    def _tell_at_last(self, id: str, facts: dict[str, Any]) -> None:
        """However long the database does not answer: or a training would be done twice."""
        while True:
            try:
                self._tell(id, **facts)
            except (OperationalError, InterfaceError) as error:
                log.warning("the database does not answer", error=str(error.orig))
                time.sleep(_LOOK_S)
            else:
                return

    def _tell(self, id: str, **facts: Any) -> bool:
        """Write what is known of a training; whether somebody wants it to end."""
        with Session(self._database) as session, session.begin():
            trainings.alive(session, self._name)
            training = trainings.find(session, id)
            assert training is not None
            for name, value in facts.items():
                setattr(training, name, value)
            return training.cancelled_by is not None


def _listen(stream: IO[str], said: "queue.SimpleQueue[str | None]") -> None:
    for line in stream:
        said.put(line.rstrip("\n"))
    said.put(None)


def _peak_mb(pid: int) -> float:
    """The most memory that a process has held, 0 once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return round(int(found[0]) / 1024, 1) if found else 0.0


def _end(program: subprocess.Popen[str]) -> None:
    program.terminate()
    try:
        program.wait(_TO_END_S)
    except subprocess.TimeoutExpired:
        program.kill()
