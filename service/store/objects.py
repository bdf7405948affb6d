"""An object store, by an address of fsspec's: small whole objects, each call within a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from fsspec.asyn import AsyncFileSystem, sync
from fsspec.core import url_to_fs
from fsspec.exceptions import FSTimeoutError
from fsspec.utils import get_protocol

from service.errors import StorageUnavailable
from service.settings import SettingsError

T = TypeVar("T")

_PATIENCE_S = 10.0
# Who is cut off must know it soon; by themselves they would try for minutes.
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 2, "retries": {"total_max_attempts": 2}}}
}
_NOT_DURABLE = {"file", "local", "memory"}
# Where each kind of store says when an object was written.
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")


@dataclass(frozen=True)
class Object:
    """One that is there, by its name below the address. `written_at` is in seconds since 1970."""

    name: str
    size: int
    written_at: float


class ObjectStore:
    """All below one address. What is done is durable, as such stores are.

    Whatever a store or its package says is raised as StorageUnavailable, with its words: there is
    no one tree of errors below fsspec.
    """

    def __init__(self, address: str) -> None:
        """Raises SettingsError; whether it answers is not asked."""
        protocol = get_protocol(address)
        try:
            self._system, self._root = url_to_fs(
                address, use_listings_cache=False, skip_instance_cache=True,
                **_OPTIONS.get(protocol, {}),
            )  # fmt: skip
        except (ImportError, OSError, TypeError, ValueError) as error:
            raise SettingsError(
                f"{address} cannot be used: {error}.",
                remedy="Name an object store, such as s3://bucket/kizu, and install its package: "
                "pip install 'kizu[s3]'.",
            ) from error
        if protocol in _NOT_DURABLE or not self._root.strip("/"):
            raise SettingsError(
                f"{address} is no place in an object store.",
                remedy="Name one, such as s3://bucket/kizu; a directory is for KIZU_DATA.",
            )
        self._said = address

    def address(self, name: str) -> str:
        """Where an object is, for others."""
        return str(self._system.unstrip_protocol(self._path(name)))

    def put(self, name: str, data: bytes, *, patience_s: float = _PATIENCE_S) -> None:
        """Write it, whole or not at all."""
        self._call("pipe_file", self._path(name), data, patience_s=patience_s)

    def get(self, name: str, *, patience_s: float = _PATIENCE_S) -> bytes | None:
        """What it holds, if it is there."""
        path = self._path(name)
        return self._found(lambda: bytes(self._call("cat_file", path, patience_s=patience_s)))

    def size(self, name: str) -> int | None:
        """In bytes, if it is there."""
        return self._found(lambda: int(self._call("info", self._path(name))["size"]))

    def copy(self, name: str, to: str) -> bool:
        """Within the store; whether it was there."""
        source, target = self._path(name), self._path(to)
        return bool(self._found(lambda: self._call("cp_file", source, target) or True))

    def remove(self, name: str) -> None:
        """It, if it is there."""
        self._found(lambda: self._call("rm_file", self._path(name)))

    def all(self, below: str) -> Iterator[Object]:
        """Every one whose name begins with `below` and a slash; with nothing, every one."""
        found = self._found(lambda: self._call("find", self._path(below), detail=True))
        start = len(self._path("")) + 1
        for path, facts in (found or {}).items():
            yield Object(path[start:], int(facts["size"]), self._written_at(path, facts))

    def _written_at(self, path: str, facts: dict[str, Any]) -> float:
        said = next((facts[key] for key in _TIMES if facts.get(key)), None)
        time = said if said is not None else self._call("modified", path)
        if isinstance(time, str):
            time = datetime.fromisoformat(time)
        return time.timestamp() if isinstance(time, datetime) else float(time)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}".rstrip("/")

    def _call(self, what: str, *given: Any, patience_s: float = _PATIENCE_S, **more: Any) -> Any:
        """Raises FileNotFoundError, but to write; StorageUnavailable."""
        try:
            if isinstance(self._system, AsyncFileSystem):
                action = getattr(self._system, f"_{what}")
                return sync(self._system.loop, action, *given, timeout=patience_s, **more)
            return getattr(self._system, what)(*given, **more)
        except FileNotFoundError as error:
            if what == "pipe_file":  # of a bucket that is not there
                raise self._away(error) from error
            raise
        except FSTimeoutError as error:
            raise self._away(f"no answer in {patience_s:g} s") from error
        except Exception as error:
            raise self._away(error) from error

    def _away(self, why: Exception | str) -> StorageUnavailable:
        said = str(why).splitlines() or [type(why).__name__]
        return StorageUnavailable(
            f"{self._said} does not do what it should: {said[0].rstrip('.')}.",
            remedy="Look after the object store and its keys.",
        )

    @staticmethod
    def _found(action: Callable[[], T]) -> T | None:
        try:
            return action()
        except FileNotFoundError:
            return None
