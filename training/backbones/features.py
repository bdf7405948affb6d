"""Images to backbone features, through ONNX Runtime, each computed once and kept on disk."""

import hashlib
import itertools
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.errors import ImageError
from models.image import (
    InputSize,
    Mask,
    PixelContract,
    Pixels,
    content_box,
    decode,
    resize,
)
from models.session import Device, open_session, provider_of
from training.data.folders import LabelledFile
from training.errors import DatasetError
from training.networks.layout import FeatureLayout
from training.networks.warp import TRANSFORM, Extent, to_aligned, to_image

Features = NDArray[np.float32]
Progress = Callable[[int, int], None]
Warp = Callable[[Tensor, Tensor, Extent], Tensor]

BATCH = 8
QUOTA = 20 * 2**30  # bytes of all cached features
# How values are kept: one after the other, and nothing else.
_KEPT, _SUFFIX = np.dtype(np.float16), ".half"

T = TypeVar("T")


@dataclass(frozen=True)
class FeatureSource:
    """How an image becomes features: the graph, what precedes it, and how they are laid out."""

    graph: bytes
    size: InputSize
    pixels: PixelContract
    layout: FeatureLayout

    @property
    def digest(self) -> str:
        """Changes with anything that would change a feature."""
        settings = self.size.model_dump_json(exclude_none=True) + self.pixels.model_dump_json()
        return hashlib.sha256(self.graph + settings.encode()).hexdigest()

    def read(self, path: Path) -> Pixels:
        """One image file as uint8 (H, W, 3) at the network's size. Raises ImageError."""
        return resize(decode(path.read_bytes(), self.pixels), self.size)

    def scale(self, path: Path) -> float:
        """How many of an image file's pixels make one of the network's, along its longer side."""
        height, width = decode(path.read_bytes(), self.pixels).shape[:2]
        box = content_box(self.size, width=width, height=height)
        scale: float = max(height / box.height, width / box.width)
        return scale

    def on_image(self, mask: Mask, image: Pixels) -> Mask:
        """What of a mask (h, w) of the network's input lies on an image (H, W, 3), at the mask's
        own resolution."""
        box = content_box(self.size, width=image.shape[1], height=image.shape[0])
        down, across = mask.shape[0] / self.size.height, mask.shape[1] / self.size.width
        rows = slice(int(box.top * down), math.ceil((box.top + box.height) * down))
        columns = slice(int(box.left * across), math.ceil((box.left + box.width) * across))
        return mask[rows, columns]


class FeatureCache:
    """Features by image hash, a file each, so that memory stays bounded whatever the set's size.

    `cache[sha256]` is float32 (D): the maps of `layout`, flattened. They are kept in half
    precision, which is a thousandth of a value at most; a new one replaces those that were not
    used for longest once all take more than `quota` bytes.
    """

    def __init__(
        self,
        directory: Path,
        source: FeatureSource,
        *,
        device: Device = "auto",
        quota: int = QUOTA,
    ) -> None:
        self.source = source
        self.layout = source.layout
        self._root = directory
        self._quota = quota
        self._session = open_session(source.graph, device=device)
        # Two devices' features differ in their last digits: each keeps its own.
        name = f"{source.digest[:24]}-{provider_of(self._session)}"
        self._directory = directory / name
        self._directory.mkdir(parents=True, exist_ok=True)

    def __getitem__(self, sha256: str) -> Features:
        return self.batch([sha256])[0].numpy()

    def batch(self, names: Sequence[str]) -> Tensor:
        """The features (B, D) of images with these hashes."""
        return self._read(names, slice(None))

    def maps(self, names: Sequence[str], number: int) -> Tensor:
        """The map (B, C, H, W) with this number of images with these hashes."""
        shape = self.layout.shapes[number]
        start = sum(math.prod(shape) for shape in self.layout.shapes[:number])
        flat = self._read(names, slice(start, start + math.prod(shape)))
        maps: Tensor = flat.unflatten(1, shape)
        return maps

    def transforms(self, names: Sequence[str]) -> Tensor:
        """Where aligned images with these hashes lay (B, 4); (B, 0) where none is aligned."""
        if not self.layout.extent:
            return torch.zeros(len(names), 0)
        return self._read(names, slice(-TRANSFORM, None))

    def to_aligned(self, name: str, mask: Mask) -> Mask:
        """A mask (H, W) of the image with this hash in the frame that features are of."""
        extent = self.layout.extent
        return mask if extent is None else self._warped(to_aligned, name, mask, extent)

    def to_image(self, name: str, mask: Mask) -> Mask:
        """A mask (H, W) of the frame that features are of, in the image with this hash."""
        extent = self.layout.extent
        return mask if extent is None else self._warped(to_image, name, mask, extent)

    def _warped(self, warp: Warp, name: str, mask: Mask, extent: Extent) -> Mask:
        found = warp(torch.from_numpy(mask).float()[None, None], self.transforms([name]), extent)
        warped: Mask = (found[0, 0] > 0).numpy()
        return warped

    def _read(self, names: Sequence[str], part: slice) -> Tensor:
        start, stop, _ = part.indices(self.layout.size)
        # A header for each file, or mapping it, would take several times as long as reading it.
        read = [
            np.fromfile(self._path(name), _KEPT, stop - start, offset=start * _KEPT.itemsize)
            for name in names
        ]
        # By torch, which converts from half precision ten times as fast as numpy.
        return torch.from_numpy(np.stack(read)).float()

    def __contains__(self, sha256: str) -> bool:
        # A power cut can leave a name without its content.
        try:
            return self._path(sha256).stat().st_size == self.layout.size * _KEPT.itemsize
        except FileNotFoundError:
            return False

    def compute(self, images: Pixels) -> Tensor:
        """The features (B, D) of images (B, H, W, 3) that are not worth keeping."""
        features: Features = self._session.run(None, {"image": images})[0]
        return torch.from_numpy(features)

    def put(self, images: Mapping[str, Pixels]) -> None:
        """Compute and keep the features of images (H, W, 3) by name, which no file holds."""
        if not images:
            return
        computed = self.compute(np.stack(list(images.values())))
        for name, values in zip(images, computed.numpy(), strict=True):
            self._write(name, values)

    def add(self, files: Sequence[LabelledFile], progress: Progress | None = None) -> None:
        """Compute what is not there yet. Raises DatasetError naming every unreadable file.

        It goes through all files before it raises, so that one broken file among thousands
        costs one message and no recomputation.
        """
        missing = {file.sha256: file for file in files if file.sha256 not in self}
        broken: list[tuple[Path, ImageError]] = []
        done = len(files) - len(missing)
        for batch in _batches(self._decode(missing.values(), broken), BATCH):
            features = self._session.run(None, {"image": np.stack([image for _, image in batch])})
            for (file, _), values in zip(batch, features[0], strict=True):
                self._write(file.sha256, values)
            done += len(batch)
            if progress:
                progress(done, len(files))
        self._trim([self._path(file.sha256) for file in files if file.sha256 in self])
        if broken:
            path, error = broken[0]
            raise DatasetError(
                f"{len(broken)} of {len(files)} images cannot be used, the first is {path}: "
                f"{error.message}",
                remedy="Remove or replace: " + ", ".join(str(path) for path, _ in broken[:20]),
            )

    def _decode(
        self, files: Iterable[LabelledFile], broken: list[tuple[Path, ImageError]]
    ) -> Iterator[tuple[LabelledFile, Pixels]]:
        def read(file: LabelledFile) -> Pixels | ImageError:
            try:
                return self.source.read(file.image)
            except ImageError as error:
                return error
            except OSError as error:
                return ImageError(f"It cannot be read: {error.strerror}.")

        with ThreadPoolExecutor(2) as pool:
            for chunk in _batches(iter(files), 4 * BATCH):  # bounds what is decoded ahead
                for file, image in zip(chunk, pool.map(read, chunk), strict=True):
                    if isinstance(image, ImageError):
                        broken.append((file.image, image))
                    else:
                        yield file, image

    def _path(self, sha256: str) -> Path:
        return self._directory / f"{sha256}{_SUFFIX}"

    def _write(self, sha256: str, values: Features) -> None:
        # Atomic, so that an interrupted run leaves no half file; not durable: it is a cache.
        # The name is one's own, since several trainings may share the cache.
        half = values.astype(_KEPT)
        if not np.isfinite(half).all():
            raise DatasetError(
                "The backbone's features are beyond half precision (65,504), or no numbers.",
                remedy="Choose another --backbone, or scale its outputs.",
            )
        with tempfile.NamedTemporaryFile(dir=self._directory, suffix=".part", delete=False) as file:
            try:
                file.write(half.tobytes())
            except OSError:  # a full disk
                Path(file.name).unlink()
                raise
        Path(file.name).rename(self._path(sha256))

    def _trim(self, needed: Sequence[Path]) -> None:
        """Remove what was needed longest ago until the cache fits its quota; never what is needed
        now. Access times would not do: most disks do not keep them."""
        for path in needed:
            path.touch()
        kept = [(path, path.stat()) for path in self._root.glob(f"*/*{_SUFFIX}")]
        total, now_needed = sum(stat.st_size for _, stat in kept), set(needed)
        for path, stat in sorted(kept, key=lambda entry: entry[1].st_mtime):
            if total <= self._quota:
                return
            if path not in now_needed:
                path.unlink(missing_ok=True)
                total -= stat.st_size


def _batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while batch := list(itertools.islice(items, size)):
        yield batch
