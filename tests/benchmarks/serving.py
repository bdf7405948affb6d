"""How near the service comes to its device, and to what users would build instead.

    python -m tests.benchmarks.serving --json FILE

Everything runs on this machine, the client too. Ratios within one run count, since machines differ.
"""

import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer
import uvloop
from PIL import Image
from rich.console import Console
from rich.table import Table

from models.bundle import FILES, open_bundle, write_bundle
from models.session import ON_CORES, Device, resolved
from tests.benchmarks.load import Question, Target, closed_loop, open_loop, summarise
from tests.benchmarks.loop import Loop
from tests.benchmarks.material import ARCHITECTURES, bundle_of, camera_images, quantisers
from tests.benchmarks.subject import PEERS, Subject, kizu, peer
from training.engine.export import git_commit

BATCHES = (1, 2, 4, 8)
LARGE_BATCHES = (1, 4, 8, 16, 32)
SWAPS = 200
OVERLOAD_S = 60
PARTS = ("ceiling", "saturated", "latency", "peers", "overload", "swap", "idle", "memory")


class Bench:
    """One bundle's measurements, written down one by one."""

    def __init__(
        self,
        name: str,
        store: Path,
        images: list[bytes],
        work: Path,
        data: Path,
        seconds: float,
        repeats: int,
        requests: int,
        *,
        device: Device = "cpu",
        connections: int = 16,
    ) -> None:
        self.name = name
        self.store = store
        self.images = images
        self.work = work
        self.data = data
        self.seconds = seconds
        self.repeats = repeats
        self.requests = requests
        self.device = resolved(device)
        self.on_cores = self.device in ON_CORES
        self.connections = connections
        self.figures: dict[str, Any] = {}

    @property
    def bundle(self) -> Path:
        """The served bundle."""
        return self.store / "cap" / "1"

    def ceiling(self) -> None:
        """What the device does at its best batch, without a service.

        On a CPU: decode, resize and run in a tight loop, and in as many loops beside each other as
        there are cores, of one thread each. On a GPU: the run alone, and fed by all cores.
        """
        whole = Loop(self.bundle, self.images, device=self.device)
        if self.on_cores:
            best = self._best(whole.run, BATCHES)
            most = self._beside_each_other()
        else:
            best = self._best(whole.alone, LARGE_BATCHES)
            most = max(self._best(whole.fed, LARGE_BATCHES).values())
        self.figures["ceiling"] = {"per_second": best, "best": max(best.values()), "most": most}

    def _best(
        self, loop: Callable[[int, float], list[float]], sizes: tuple[int, ...]
    ) -> dict[int, float]:
        """Images a second by size of batch."""
        found: dict[int, list[float]] = {size: [] for size in sizes}
        for _ in range(self.repeats):
            for size in sizes:
                took = loop(size, self.seconds / len(sizes))
                found[size].append(size * len(took) / sum(took))
        return {size: statistics.median(values) for size, values in found.items()}

    def _beside_each_other(self) -> float:
        cores = os.cpu_count() or 1
        parts = [Loop(self.bundle, self.images, threads=1) for _ in range(cores)]
        rates = []
        for _ in range(self.repeats):
            with ThreadPoolExecutor(cores) as pool:
                counts = [pool.submit(part.run, 1, self.seconds / len(BATCHES)) for part in parts]
                rates.append(sum(len(c.result()) / sum(c.result()) for c in counts))
        return statistics.median(rates)

    def saturated(self) -> None:
        """As many requests as it answers, by all connections of a light client."""
        with self._kizu() as subject:
            runs = [self._wrk(subject, self.connections) for _ in range(self.repeats)]
        ceiling = self.figures["ceiling"]
        rate = statistics.median(run["per_second"] for run in runs)
        self.figures["saturated"] = {
            "runs": runs,
            "per_second": rate,
            "p99": statistics.median(run["p99"] for run in runs),
            "of_ceiling": rate / ceiling["best"],
            "of_most": rate / ceiling["most"],
        }

    def latency(self) -> None:
        """One request at a time, each time after a tight loop of the same; then at 70 % of what it
        answers at most."""
        peak = self.figures["saturated"]["per_second"]
        loop = Loop(self.bundle, self.images, device=self.device)
        bare, alone = [], []
        with self._kizu() as subject:
            for _ in range(self.repeats):
                bare.append(1000 * statistics.median(loop.run(1, self.seconds)))
                alone.append(self._closed(subject, 1))
            loaded = [self._open(subject, 0.7 * peak) for _ in range(self.repeats)]
        above = [run["p50"] - p50 for run, p50 in zip(alone, bare, strict=True)]
        self.figures["latency"] = {
            "bare_p50_ms": bare,
            "alone": alone,
            "above_bare_ms": statistics.median(above),
            "at_70_percent": loaded,
            "p99_of_p50": statistics.median(run["p99"] / run["p50"] for run in loaded),
        }

    def peers(self) -> None:
        """The same bundle and images behind other libraries: with the same duties, and as they
        are mostly written, with the score alone and nothing kept."""
        found: dict[str, dict[str, dict[str, float]]] = {"kept": {}, "score_alone": {}}
        for duties, entries in found.items():
            for name in PEERS:
                data = Path(tempfile.mkdtemp(dir=self.data)) if duties == "kept" else None
                with peer(name, self.bundle, data) as subject:
                    self._closed(subject, 2, seconds=2)  # warm
                    runs = [self._wrk(subject, self.connections) for _ in range(self.repeats)]
                entries[name] = {
                    "per_second": statistics.median(run["per_second"] for run in runs),
                    "p99": statistics.median(run["p99"] for run in runs),
                }
        own = self.figures["saturated"]
        self.figures["peers"] = {
            **found,
            **{
                f"of_best_{duties}": own["per_second"]
                / max(entry["per_second"] for entry in entries.values())
                for duties, entries in found.items()
            },
        }

    def overload(self) -> None:
        """Twice and ten times of what it can, for a minute; then whether it is itself again.

        Each image says by when its verdict is needed, which decides who is refused: within twice
        of what one in a hundred takes at 80 %, less a tenth for the way to the client.
        """
        peak = self.figures["saturated"]["per_second"]
        with self._kizu() as subject:
            usual = [self._open(subject, 0.8 * peak) for _ in range(self.repeats)]
            p99 = statistics.median(run["p99"] for run in usual)
            deadline_ms = int(1.8 * p99)
            hurried = replace(subject, path=f"{subject.path}?deadline_ms={deadline_ms}")
            found: dict[str, Any] = {"at_80_percent": usual, "deadline_ms": deadline_ms}
            for times in (2, 10):
                during, after = [], []
                for _ in range(self.repeats):
                    during.append(self._open(hurried, times * peak, seconds=OVERLOAD_S))
                    after.append(self._open(subject, 0.8 * peak, seconds=10))
                found[f"{times}x"] = {
                    "during": during,
                    "after": after,
                    "goodput_of_peak": _median(during, "per_second") / peak,
                    "p99_of_usual": _median(during, "p99") / p99,
                    "refused_p99_ms": _median(during, "refused_p99_ms"),
                    "after_p99_of_usual": _median(after, "p99") / p99,
                }
        self.figures["overload"] = found

    def idle(self) -> None:
        """Share of a core with nothing to do."""
        with self._kizu() as subject:
            self._closed(subject, 2)
            before, start = subject.cpu_s, time.monotonic()
            time.sleep(30)
            share = (subject.cpu_s - before) / (time.monotonic() - start)
        self.figures["idle"] = {"of_a_core": share}

    def swap(self) -> None:
        """Another version decides, 200 times, at half of what it can answer."""
        store = self.work / "swapped"
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(self.store, store)
        bundle = open_bundle(self.bundle)
        files = {name: bundle.read(name) for name in FILES}
        write_bundle(store, bundle.manifest.model_copy(update={"version": 2}), files)
        peak = self.figures["saturated"]["per_second"]
        with self._kizu(store) as subject:
            address = f"http://127.0.0.1:{subject.port}/v1/recipes/cap/promotions"

            def promote() -> list[float]:
                took = []
                for number in range(SWAPS):
                    asked = {"version": 1 + number % 2, "by": "benchmark", "reason": "swap"}
                    started = time.perf_counter()
                    request = urllib.request.Request(
                        address, json.dumps(asked).encode(), {"Content-Type": "application/json"}
                    )
                    with urllib.request.urlopen(request, timeout=60):
                        took.append(time.perf_counter() - started)
                return took

            with ThreadPoolExecutor(1) as pool:
                swaps = pool.submit(promote)
                answers = []
                while not swaps.done():
                    answers += uvloop.run(open_loop(self._target(subject), 0.5 * peak, 10))
                took = swaps.result()
        summary = summarise(answers)
        self.figures["swap"] = {
            "swaps": len(took),
            "median_s": statistics.median(took),
            "requests": summary.sent,
            "failed": summary.sent - summary.good,
            "p50": summary.p50,
            "p99": summary.p99,
        }

    def memory(self) -> None:
        """How much more it holds after mixed requests than after a tenth of them."""
        small = [self._smaller(image) for image in self.images]
        grey = np.random.default_rng(0).integers(0, 256, (512, 640), np.uint8).tobytes()
        path, raw = "/v1/inspect", "/v1/inspect?width=640&height=512&pixel_format=Mono8"
        questions = [
            _photograph(path, self.images[0]),
            *(_photograph(path, image) for image in small),
            *(_photograph(f"{path}?heatmap=overlay", image) for image in small[:4]),
            *[Question(raw, grey, "application/octet-stream")] * 4,
            Question(raw, grey[:-1], "application/octet-stream"),
            Question(path, self.images[0][:50_000], "image/jpeg"),
            Question(path, small[0], "text/plain"),
            Question(f"{path}?recipe=none", small[0], "image/jpeg"),
            Question(f"{path}?deadline_ms=1", small[0], "image/jpeg"),
        ]
        with self._kizu() as subject:
            held = []
            answers: dict[int, int] = {}
            for _ in range(10):
                target = Target(subject.port, questions)
                loop = closed_loop(target, self.connections, most=self.requests // 10)
                for answer in uvloop.run(loop):
                    answers[answer.status] = answers.get(answer.status, 0) + 1
                held.append(subject.memory)
        self.figures["memory"] = {
            "requests": sum(answers.values()),
            "answers": answers,
            "megabytes": [round(one / 1e6, 1) for one in held],
            "growth": held[-1] / held[0] - 1,
        }

    @staticmethod
    def _smaller(image: bytes) -> bytes:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(image)).resize((320, 256)).save(buffer, "JPEG", quality=90)
        return buffer.getvalue()

    @contextmanager
    def _kizu(self, store: Path | None = None) -> Iterator[Subject]:
        # Not removed before the end: where a file system has just let many files go, as ext4, it
        # takes a millisecond to make another one.
        data = Path(tempfile.mkdtemp(dir=self.data))
        with kizu(store or self.store, data, device=self.device) as subject:
            self._closed(subject, 2, seconds=2)  # warm
            yield subject

    def _target(self, subject: Subject) -> Target:
        return Target(subject.port, self._questions(subject))

    def _questions(self, subject: Subject) -> list[Question]:
        if not subject.form:
            return [_photograph(subject.path, image) for image in self.images]
        head = (
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="i.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n"
        )
        end = f"\r\n--{_BOUNDARY}--\r\n".encode()
        media = f"multipart/form-data; boundary={_BOUNDARY}"
        return [
            Question(subject.path, head.encode() + one + end, media, len(head) + quantisers(one))
            for one in self.images
        ]

    def _closed(
        self, subject: Subject, connections: int, *, seconds: float | None = None
    ) -> dict[str, Any]:
        loop = closed_loop(self._target(subject), connections, seconds or self.seconds)
        return asdict(summarise(uvloop.run(loop)))

    def _open(
        self, subject: Subject, rate: float, *, seconds: float | None = None
    ) -> dict[str, Any]:
        loop = open_loop(self._target(subject), rate, seconds or self.seconds)
        answers = uvloop.run(loop)
        refused = [1000 * a.seconds for a in answers if a.status == 503]
        summary: dict[str, Any] = asdict(summarise(answers))
        if refused:
            summary["refused_p99_ms"] = float(np.percentile(refused, 99))
        return summary

    def _wrk(self, subject: Subject, connections: int) -> dict[str, Any]:
        """By wrk, whose threads cost next to nothing."""
        folder = self.work / "bodies"
        folder.mkdir(exist_ok=True)
        questions = self._questions(subject)
        for number, question in enumerate(questions):
            for part, content in enumerate(question.encode()):
                (folder / f"{number}.{part}").write_bytes(content)
        script = folder / "post.lua"
        script.write_text(_LUA)
        done = subprocess.run(
            ["wrk", "-t", "1", "-c", str(connections), "-d", f"{self.seconds:.0f}s", "--latency",
             "--timeout", "30s", "-s", str(script),
             f"http://127.0.0.1:{subject.port}", str(folder), str(len(questions)),
             str(time.time_ns() // 10**6 % 2**12)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        report: dict[str, Any] = json.loads(done.stdout.rpartition("kizu:")[2])
        if report["errors"]:
            raise RuntimeError(f"{subject.name}: {report['errors']} requests failed.")
        return report


def _median(runs: list[dict[str, Any]], figure: str) -> float:
    return float(statistics.median(run[figure] for run in runs))


def _photograph(path: str, jpeg: bytes) -> Question:
    return Question(path, jpeg, "image/jpeg", quantisers(jpeg))


_BOUNDARY = "kizu-benchmark"
_LUA = """
local parts, number, first = {}, 0, 0
local function content(file)
  local open = io.open(file, "rb")
  local text = open:read("*a")
  open:close()
  return text
end
function init(args)
  first = tonumber(args[3])
  for i = 0, tonumber(args[2]) - 1 do
    local name = args[1] .. "/" .. i .. "."
    parts[i] = {content(name .. 0), content(name .. 1), content(name .. 2)}
  end
end
function request()
  local part = parts[number % (#parts + 1)]
  local varied, rest = {}, first + number
  for i = 1, #part[2] do
    varied[i] = string.char(part[2]:byte(i) + rest % 8)
    rest = math.floor(rest / 8)
  end
  number = number + 1
  return part[1] .. table.concat(varied) .. part[3]
end
function done(summary, latency, all)
  local e = summary.errors
  io.write(string.format(
    'kizu:{"per_second": %f, "p50": %f, "p99": %f, "errors": %d}',
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def _machine(device: Device) -> dict[str, Any]:
    processor = next(
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    return {
        "cores": os.cpu_count(), "processor": processor, "python": platform.python_version(),
        "commit": git_commit(), "device": device,
    }  # fmt: skip


def main(
    *,
    json_file: Annotated[Path, typer.Option("--json", help="All figures.")],
    work: Annotated[Path, typer.Option(help="Bundles and images are kept here.")] = Path(
        ".kizu/serving"
    ),
    bundles: Annotated[str, typer.Option(help="Sizes, comma-separated.")] = ",".join(ARCHITECTURES),
    only: Annotated[str, typer.Option(help="Parts, comma-separated.")] = ",".join(PARTS),
    seconds: Annotated[float, typer.Option(help="Of each measurement.")] = 10.0,
    repeats: Annotated[int, typer.Option(help="Whose median counts.")] = 3,
    requests: Annotated[int, typer.Option(help="Of the part that watches memory.")] = 100_000,
    connections: Annotated[int, typer.Option(help="Of the client that saturates.")] = 16,
    device: Annotated[str, typer.Option(help="What runs the model; peers are on the CPU.")] = "cpu",
) -> None:
    """Measure the service on this machine."""
    if not shutil.which("wrk"):
        raise typer.BadParameter("wrk is missing: apt-get install wrk")
    work.mkdir(parents=True, exist_ok=True)
    work = work.resolve()
    images = camera_images(work)
    chosen = cast(Device, device)
    results: dict[str, Any] = {"machine": _machine(resolved(chosen)), "bundles": {}}
    console = Console()
    with tempfile.TemporaryDirectory(dir=work) as data:
        for name in bundles.split(","):
            store = bundle_of(name, work)
            bench = Bench(
                name, store, images, work, Path(data), seconds, repeats, requests,
                device=chosen, connections=connections)  # fmt: skip
            for part in only.split(","):
                console.print(f"{name}: {part}")
                measure: Callable[[], None] = getattr(bench, part)
                measure()
                results["bundles"][name] = bench.figures
                json_file.write_text(json.dumps(results, indent=2))
    console.print(_table(results["bundles"]))


def _of_overload(figures: dict[str, Any], *, times: int, figure: str, form: str) -> str:
    return format(figures["overload"][f"{times}x"][figure], form)


def _table(bundles: dict[str, dict[str, Any]]) -> Table:
    table = Table("", *bundles)
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "ceiling, images/s": lambda f: f"{f['ceiling']['best']:.1f}",
        "saturated, images/s": lambda f: f"{f['saturated']['per_second']:.1f}",
        "of the ceiling": lambda f: f"{f['saturated']['of_ceiling']:.2f}",
        "of what all cores can do": lambda f: f"{f['saturated']['of_most']:.2f}",
        "alone, p50 above bare, ms": lambda f: f"{f['latency']['above_bare_ms']:.1f}",
        "at 70 %, p99 / p50": lambda f: f"{f['latency']['p99_of_p50']:.2f}",
        "of the best peer with its duties": lambda f: f"{f['peers']['of_best_kept']:.2f}",
        "of the best that keeps nothing": lambda f: f"{f['peers']['of_best_score_alone']:.2f}",
        **{
            f"{times}x, {title}": partial(_of_overload, times=times, figure=figure, form=form)
            for times in (2, 10)
            for title, figure, form in (
                ("goodput of peak", "goodput_of_peak", ".2f"),
                ("p99 of that at 80 %", "p99_of_usual", ".2f"),
                ("refused within, p99, ms", "refused_p99_ms", ".0f"),
                ("p99 within 10 s after", "after_p99_of_usual", ".2f"),
            )
        },
        "failed of requests beside swaps": lambda f: f"{f['swap']['failed']}",
        "memory, growth": lambda f: f"{f['memory']['growth']:.1%}",
        "swap, s": lambda f: f"{f['swap']['median_s']:.2f}",
        "idle, of a core": lambda f: f"{f['idle']['of_a_core']:.4f}",
    }
    for title, shown in rows.items():
        cells = []
        for figures in bundles.values():
            try:
                cells.append(shown(figures))
            except KeyError:  # not measured this time
                cells.append("–")
        table.add_row(title, *cells)
    return table


if __name__ == "__main__":
    typer.run(main)
