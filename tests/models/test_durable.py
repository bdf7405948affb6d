"""Files and directories appear whole or not at all, and stay."""

import re
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from models.durable import make_directory, new_directory, rename_directory, write_file

WRITERS = 8


@contextmanager
def disk_full_at_1000_bytes() -> Iterator[None]:
    """No file of this process grows beyond 1000 bytes: a write fails in its middle, for real.

    Around the write alone: pytest's own output may go to a longer file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_write_file_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")
    write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_write_file_on_a_full_disk_keeps_the_old_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")
    with pytest.raises(OSError, match="too large"), disk_full_at_1000_bytes():
        write_file(path, bytes(5000))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_file_onto_a_directory_leaves_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "name").mkdir()
    with pytest.raises(IsADirectoryError):
        write_file(tmp_path / "name", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


def test_concurrent_writers_of_a_file_never_mix(tmp_path: Path) -> None:
    contents = [bytes([65 + i]) * 20_000 for i in range(WRITERS)]
    seen = set()
    write_file(tmp_path / "file", contents[0])
    with ThreadPoolExecutor(WRITERS) as pool:
        writes = [pool.submit(write_file, tmp_path / "file", data) for data in contents * 3]
        while not all(write.done() for write in writes):
            seen.add((tmp_path / "file").read_bytes())
    assert seen | {(tmp_path / "file").read_bytes()} <= set(contents)
    assert all(write.exception() is None for write in writes)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_new_directory_appears_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "new"
    with new_directory(path) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").write_bytes(b"data")
        assert not path.exists()
    assert (path / "inner" / "file").read_bytes() == b"data"
    assert path.stat().st_mode & 0o777 == 0o755
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_directory_leaves_nothing(
    tmp_path: Path, interruption: type[BaseException]
) -> None:
    with pytest.raises(interruption), new_directory(tmp_path / "new") as temporary:
        write_file(temporary / "file", b"data")
        raise interruption
    assert list(tmp_path.iterdir()) == []


def test_a_directory_on_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match="too large"),
        disk_full_at_1000_bytes(),
        new_directory(tmp_path / "new") as temporary,
    ):
        write_file(temporary / "large", bytes(5000))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["directory", "file", "link"])
def test_new_directory_never_replaces(tmp_path: Path, kind: str) -> None:
    taken, elsewhere = tmp_path / "taken", tmp_path / "elsewhere"
    elsewhere.mkdir()
    if kind == "directory":
        taken.mkdir()
        (taken / "file").write_bytes(b"old")
    elif kind == "file":
        taken.write_bytes(b"old")
    else:
        taken.symlink_to(elsewhere)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileExistsError), new_directory(taken) as temporary:
        (temporary / "file").write_bytes(b"new")
    assert sorted(tmp_path.rglob("*")) == before
    assert kind == "link" or (taken / "file" if taken.is_dir() else taken).read_bytes() == b"old"


def test_a_rename_that_fails_for_another_reason_says_so(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with pytest.raises(FileNotFoundError):
        rename_directory(tmp_path / "source", tmp_path / "missing" / "target")


def test_of_concurrent_writers_of_a_directory_exactly_one_wins(tmp_path: Path) -> None:
    barrier = threading.Barrier(WRITERS)

    def write(writer: int) -> bool:
        try:
            with new_directory(tmp_path / "new") as temporary:
                for name in "abc":
                    write_file(temporary / name, str(writer).encode())
                barrier.wait(timeout=60)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(WRITERS) as pool:
        won = list(pool.map(write, range(WRITERS)))
    assert won.count(True) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    winner = str(won.index(True)).encode()
    assert [(tmp_path / "new" / name).read_bytes() for name in "abc"] == [winner] * 3


def test_make_directory_accepts_what_exists(tmp_path: Path) -> None:
    make_directory(tmp_path / "a" / "b")
    make_directory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


SCRIPT = """
import sys
from pathlib import Path
from models.durable import new_directory, write_file
with new_directory(Path(sys.argv[1]) / "recipe" / "1") as temporary:
    write_file(temporary / "file", b"data")
"""


def can_trace() -> bool:
    """Whether strace is here and the container lets it trace."""
    probe = ["strace", "-o", "/dev/null", "true"]
    return shutil.which("strace") is not None and subprocess.run(probe).returncode == 0


@pytest.mark.skipif(not can_trace(), reason="strace cannot run here")
def test_every_name_is_synced_after_it_is_made_and_every_file_before(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    store = tmp_path / "store"
    store.mkdir()
    command = ["strace", "-y", "-o", trace, "-e", "trace=fsync,rename,mkdir"]
    subprocess.run([*command, sys.executable, "-c", SCRIPT, store], check=True)
    calls = re.sub(r"\.writing-[\w-]+", "NEW", trace.read_text().replace(str(store), "STORE"))
    steps = [
        'mkdir("STORE/recipe"',
        "<STORE>)",  # the recipe's name is durable
        "<STORE/recipe/NEW/NEW>)",  # the file's content, before it gets its name
        'rename("STORE/recipe/NEW/NEW", "STORE/recipe/NEW/file")',
        "<STORE/recipe/NEW>)",  # the file's name, before the directory gets its own
        'rename("STORE/recipe/NEW", "STORE/recipe/1")',
        "<STORE/recipe>)",  # the version's name
    ]
    at = -1
    for step in steps:
        at = calls.find(step, at + 1)
        assert at >= 0, f"{step} is missing or too early in:\n{calls}"
