"""Anomalies and spots drawn on good parts: images and masks to look at, and their features."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.image import Mask, Pixels, encode_png
from training.backbones.features import BATCH, FeatureCache
from training.data.drawn_defects import DRAWINGS, EDITION, changed, drawn_on
from training.data.folders import LabelledFile
from training.errors import DatasetError
from training.evaluation.sensitivity import PARTS, Spots, draw_spots
from training.methods.train_context import TrainContext, evenly
from training.progress import Reporter

# A patch can land on its like, and change nothing, or outside of a small region of interest.
_TRIES = 100


def draw_anomalies(
    files: Sequence[LabelledFile],
    cache: FeatureCache,
    kinds: Sequence[str],
    count: int,
    directory: Path,
    *,
    seed: int = 0,
    roi: Mask | None = None,
    reporter: Reporter | None = None,
) -> tuple[LabelledFile, ...]:
    """Draw `count` anomalies on good parts, with their masks, and put their features into `cache`.

    Which part, which kind and where are drawn independently; `drawn_on` says on which part. Images
    and masks lie in `directory` to be looked at; what is there already is not drawn again. Each
    reaches into the region of interest `roi` (H, W), in pixels of the network's input, aligned.
    Raises DatasetError for a kind that there is not.
    """
    unknown = set(kinds) - set(DRAWINGS)
    if unknown:
        raise DatasetError(
            f"There are no anomalies of kind {', '.join(sorted(unknown))}.",
            remedy=f"Choose among {', '.join(DRAWINGS)}.",
        )
    directory.mkdir(parents=True, exist_ok=True)
    drawn: list[LabelledFile] = []
    missing: dict[str, Pixels] = {}
    with (reporter or Reporter()).bar("Drawing anomalies", count) as advance:
        for number, part in enumerate(drawn_on(len(files), count, seed)):
            kind = kinds[number % len(kinds)]
            anomaly, image = _anomaly(files[part], cache, kind, directory, [seed, number], roi)
            drawn.append(anomaly)
            if image is not None:
                missing[anomaly.sha256] = image
            if len(missing) == BATCH or number == count - 1:
                cache.put(missing)
                missing = {}
            advance(number + 1, kind)
    return tuple(drawn)


def spots_by_fold(
    files: Sequence[LabelledFile], folds: NDArray[np.int64], context: TrainContext
) -> tuple[Spots, NDArray[np.int64]]:
    """Spots drawn on some good parts, and the fold of each one's part."""
    chosen = evenly(range(len(files)), PARTS)
    roi = None if context.roi is None else context.roi.numpy() > 0
    spots = draw_spots([files[i] for i in chosen], context.cache, context.reporter, roi)
    return spots, np.repeat(folds[list(chosen)], len(spots.sides))


def _anomaly(
    file: LabelledFile,
    cache: FeatureCache,
    kind: str,
    directory: Path,
    seed: list[int],
    roi: Mask | None,
) -> tuple[LabelledFile, Pixels | None]:
    """The anomaly, and its image where its features are not in the cache."""
    roi = None if roi is None else cache.to_image(file.sha256, roi)
    inside = "" if roi is None else hashlib.sha256(np.packbits(roi).tobytes()).hexdigest()
    facts = f"{EDITION} {kind} {seed} {file.sha256} {cache.source.size} {inside}"
    name = hashlib.sha256(facts.encode()).hexdigest()
    mask_file = directory / f"{name}_mask.png"
    drawn = LabelledFile(directory / f"{name}.png", name, "ng", kind, mask_file)
    # Features are kept last; yet a power cut can leave a name without its content.
    if name in cache and mask_file.exists() and mask_file.stat().st_size:
        return drawn, None
    image = cache.source.read(file.image)
    rng = np.random.default_rng(seed)
    for _ in range(_TRIES):
        after = DRAWINGS[kind](image, rng)
        mask = changed(image, after)
        if (mask if roi is None else mask & roi).any():
            break
    else:
        raise DatasetError(
            f"No {kind} could be seen on {file.image}.", remedy="Leave that kind out."
        )
    drawn.image.write_bytes(encode_png(after))
    mask_file.write_bytes(encode_png(mask.astype(np.uint8) * 255))
    return drawn, after
