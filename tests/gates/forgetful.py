"""A disk as it is after a power cut: what a process wrote, as strace saw it, less what it did not
sync.

Stricter than the disks there are: a file's content is there once it was synced, its name once its
directory was, and nothing else that was written need be.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

# What changes files, what makes that last, and what tells somebody.
TRACED = (
    "openat,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,"
    "rename,renameat,renameat2,unlink,unlinkat,rmdir,link,linkat,mkdir,mkdirat,fsync,fdatasync,"
    "sync_file_range,copy_file_range,sendfile,sendto,sendmsg"
)
STRACE = (
    "strace", "--follow-forks", "--decode-fds=path", "--strings-in-hex=all",
    "--string-limit=1000000", "--seccomp-bpf", "--quiet=all", f"--trace={TRACED}",
)  # fmt: skip

_BLOCK = 4096  # what a disk writes at once
_LINE = re.compile(r"^(\d+) +(?:<\.\.\. \w+ resumed>(.*)|(\w+)\((.*))$", re.DOTALL)
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_FILE = re.compile(r"^(-?\d+)<((?:\\x[0-9a-f]{2})*)>")


@dataclass(frozen=True)
class Call:
    """A system call, from its first line in the trace to its last."""

    name: str
    arguments: str
    result: int
    begins: int
    ends: int

    @property
    def strings(self) -> list[bytes]:
        return [_bytes(one) for one in _STRING.findall(self.arguments)]

    @property
    def file(self) -> str:
        """The path behind its first argument, where that is an open file."""
        found = _FILE.match(self.arguments)
        return _bytes(found[2]).decode() if found else ""

    @property
    def numbers(self) -> list[int]:
        """Its last arguments."""
        return [int(one) for one in re.findall(r", (-?\d+)(?=[,)])", self.arguments)]


@dataclass
class _File:
    content: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    since: list[tuple[int, bytes]] = field(default_factory=list)  # writes that may not last


@dataclass
class _Folder:
    names: dict[str, "_File | _Folder"] = field(default_factory=dict)
    synced: dict[str, "_File | _Folder"] = field(default_factory=dict)


def calls(trace: Path) -> list[Call]:
    """In the order in which they ended."""
    begun: dict[str, tuple[str, str, int]] = {}
    found = []
    for number, line in enumerate(trace.read_text("ascii").splitlines()):
        matched = _LINE.match(line)
        if matched is None or "+++" in line or "---" in line:
            continue
        thread, rest, name, arguments = matched.groups()
        begins = number
        if name is None:
            name, arguments, begins = begun.pop(thread)
            arguments += rest
        elif arguments.endswith(" <unfinished ...>"):
            begun[thread] = name, arguments.removesuffix(" <unfinished ...>"), begins
            continue
        arguments, _, result = arguments.rpartition(" = ")
        said = re.match(r"-?\d+", result)
        found.append(Call(name, arguments.rstrip(), int(said[0]) if said else -1, begins, number))
    return found


class ForgetfulDisk:
    """A directory and what happened in it."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._top = _Folder()

    def happens(self, call: Call) -> None:
        """A call that ended; syncs are to come in two parts, see `syncing`."""
        if call.result < 0:
            return
        if call.name in ("openat", "creat"):
            self._open(call)
        elif call.name in ("mkdir", "mkdirat"):
            self._enter(call.strings[-1].decode(), _Folder())
        elif call.name in ("rename", "renameat", "renameat2"):
            self._rename(*(one.decode() for one in call.strings[-2:]))
        elif call.name in ("unlink", "unlinkat", "rmdir"):
            self._leave(call.strings[-1].decode())
        elif self.holds(call.file):
            self._write(call)

    def syncing(self, call: Call) -> "Sync | None":
        """What a sync that begins now makes last once it has ended."""
        thing = self._at(call.file) if self.holds(call.file) else None
        if isinstance(thing, _Folder):
            return Sync(thing, dict(thing.names), 0)
        return Sync(thing, bytes(thing.content), len(thing.since)) if thing else None

    def after_a_cut(self, folder: Path, rng: np.random.Generator | None) -> None:
        """Write what is left: what was synced, and with `rng` any part of what was not."""
        _restore(self._top, folder, rng)

    def holds(self, path: str) -> bool:
        """Whether a path lies on it."""
        if path.endswith("-shm"):  # SQLite makes it anew from the log
            return False
        return path == self._root or path.startswith(self._root + "/")

    def _at(self, path: str) -> "_File | _Folder | None":
        thing: _File | _Folder | None = self._top
        for name in path[len(self._root) :].split("/"):
            if name:
                thing = thing.names.get(name) if isinstance(thing, _Folder) else None
        return thing

    def _folder(self, path: str) -> tuple[_Folder, str]:
        parent, _, name = path.rpartition("/")
        folder = self._at(parent)
        assert isinstance(folder, _Folder), path
        return folder, name

    def _enter(self, path: str, thing: "_File | _Folder") -> None:
        if self.holds(path) and path != self._root:
            folder, name = self._folder(path)
            folder.names[name] = thing

    def _leave(self, path: str) -> None:
        if self.holds(path):
            folder, name = self._folder(path)
            del folder.names[name]

    def _rename(self, source: str, target: str) -> None:
        if self.holds(source):
            folder, name = self._folder(source)
            self._enter(target, folder.names.pop(name))

    def _open(self, call: Call) -> None:
        path = call.strings[-1].decode()
        if not self.holds(path):
            return
        thing = self._at(path)
        if thing is None:
            self._enter(path, _File())  # it was opened, so it is made
        elif "O_TRUNC" in call.arguments and isinstance(thing, _File):
            raise ValueError(f"{path} is overwritten in place: that is not simulated.")

    def _write(self, call: Call) -> None:
        thing = self._at(call.file)
        if not isinstance(thing, _File):
            return  # it was removed meanwhile
        if call.name == "pwrite64":
            offset = call.numbers[-1]
            self._put(thing, offset, call.strings[0][: call.result])
        elif call.name == "write":  # always at the end here: nobody seeks
            self._put(thing, len(thing.content), call.strings[0][: call.result])
        elif call.name == "ftruncate":
            size = call.numbers[-1]
            if size < len(thing.content):
                raise ValueError(f"{call.file} is cut off in place: that is not simulated.")
            self._put(thing, len(thing.content), bytes(size - len(thing.content)))
        elif call.name == "fallocate":
            size = sum(call.numbers[-2:])
            self._put(thing, len(thing.content), bytes(max(size - len(thing.content), 0)))
        else:
            raise ValueError(f"{call.name} of {call.file} is not simulated.")

    @staticmethod
    def _put(file: _File, offset: int, data: bytes) -> None:
        _overwrite(file.content, offset, data)
        file.since += [(offset + at, data[at : at + _BLOCK]) for at in range(0, len(data), _BLOCK)]


@dataclass(frozen=True)
class Sync:
    """What is to last once it is done."""

    thing: _File | _Folder
    content: "bytes | dict[str, _File | _Folder]"
    writes: int

    def done(self) -> None:
        if isinstance(self.thing, _Folder):
            assert isinstance(self.content, dict)
            self.thing.synced = self.content
        else:
            assert isinstance(self.content, bytes)
            self.thing.synced = self.content
            self.thing.since = self.thing.since[self.writes :]


def _restore(folder: _Folder, to: Path, rng: np.random.Generator | None) -> None:
    to.mkdir(exist_ok=True)
    for name in sorted({*folder.synced, *folder.names}):
        before, now = folder.synced.get(name), folder.names.get(name)
        thing = now if rng and rng.random() < 0.5 else before
        if isinstance(thing, _Folder):
            _restore(thing, to / name, rng)
        elif thing:
            content = bytearray(thing.synced)
            for offset, data in thing.since:
                if rng and rng.random() < 0.5:
                    _overwrite(content, offset, data)
            (to / name).write_bytes(content)


def _overwrite(content: bytearray, offset: int, data: bytes) -> None:
    content.extend(bytes(max(0, offset + len(data) - len(content))))
    content[offset : offset + len(data)] = data


def _bytes(hexadecimal: str) -> bytes:
    return bytes.fromhex(hexadecimal.replace("\\x", ""))
