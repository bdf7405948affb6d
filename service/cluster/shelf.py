"""Bundles on their way from the front, which has the store, to engines on other computers."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import ray

from models.bundle import FILES, MANIFEST, Bundle, open_bundle, read_plain
from models.errors import BundleError

NAME, NAMESPACE = "kizu-bundles", "kizu"


class Shelf:
    """The files of bundles by their digest; an actor."""

    def __init__(self) -> None:
        self._files: dict[str, dict[str, bytes]] = {}

    def put(self, digest: str, files: dict[str, bytes]) -> None:
        """Keep a bundle's files."""
        self._files[digest] = files

    def get(self, digest: str) -> dict[str, bytes] | None:
        """They, where they are kept."""
        return self._files.get(digest)

    def drop(self, digest: str) -> None:
        """Nobody needs it any more."""
        self._files.pop(digest, None)


def find_shelf() -> "ray.actor.ActorHandle[Shelf]":
    """The cluster's only one; it lives as long as the cluster."""
    made: Any = ray.remote(Shelf).options(
        name=NAME, namespace=NAMESPACE, lifetime="detached", get_if_exists=True, num_cpus=0,
        max_restarts=-1,
    )  # fmt: skip
    return cast("ray.actor.ActorHandle[Shelf]", made.remote())


def packed(bundle: Bundle) -> dict[str, bytes]:
    """What a bundle is, to be sent. Raises BundleError."""
    files = {name: bundle.read(name) for name in FILES}
    return files | {MANIFEST: read_plain(bundle.path / MANIFEST)}


@contextmanager
def unpacked(files: dict[str, bytes], recipe: str, version: int, digest: str) -> Iterator[Bundle]:
    """A bundle that arrived, every file of it verified, and that it is the one that was asked for;
    gone afterwards. Raises BundleError."""
    with tempfile.TemporaryDirectory(prefix="kizu-bundle-") as folder:
        path = Path(folder) / recipe / str(version)
        path.mkdir(parents=True)
        for name, data in files.items():
            (path / name).write_bytes(data)
        bundle = open_bundle(path)
        if bundle.digest != digest:
            raise BundleError(f"What arrived is not version {version} of {recipe!r}.")
        yield bundle
