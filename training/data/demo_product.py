"""The demo product's images: good caps, defective ones, and their exact masks."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from training.data.demo_cap import (
    CAP_RADIUS,
    ByteImage,
    FloatMap,
    Part,
    Surface,
    draw_part,
    expose,
    good_surface,
    shade,
)
from training.errors import TrainingError

DEFECTS = ("scratch", "dent", "missing_print")
VISIBLE = 6.0  # grey levels of 255: less than this, a person does not see the change


def draw_good(rng: np.random.Generator, size: int = 512, *, loose: bool = False) -> ByteImage:
    """A good part: RGB, size x size x 3."""
    part = draw_part(rng, size, loose=loose)
    return expose(part, shade(part, good_surface(part)))


def draw_defective(
    rng: np.random.Generator, defect: str, size: int = 512, *, loose: bool = False
) -> tuple[ByteImage, ByteImage]:
    """A part with one defect, and its mask (size x size, 0 or 255).

    The same rng gives the same part that `draw_good` would draw, so the mask is exact: it holds
    what differs between the two before the sensor's noise.
    """
    if defect not in DEFECTS:
        raise TrainingError(
            f"the demo product has no defect named '{defect}'",
            remedy=f"Choose one of: {', '.join(DEFECTS)}.",
        )
    part = draw_part(rng, size, loose=loose)
    surface = good_surface(part)
    good = shade(part, surface)
    harm = {"scratch": scratch, "dent": dent, "missing_print": lose_print}[defect]
    bad = shade(part, harm(rng, part, surface))
    return expose(part, bad), changed(good, bad)


def changed(good: FloatMap, bad: FloatMap) -> ByteImage:
    """The visible difference of two renderings of one part, closed into blobs."""
    red, green, blue = cv2.split(cv2.absdiff(good, bad))
    mask = (cv2.max(cv2.max(red, green), blue) > VISIBLE).astype(np.uint8) * 255
    width = max(3, round(len(mask) * 9 / 512)) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel), np.uint8)


def spot(rng: np.random.Generator, part: Part, reach: float) -> npt.NDArray[np.float64]:
    """A point x, y in pixels, anywhere within `reach` cap radii of the centre."""
    angle, distance = rng.uniform(0, 2 * np.pi), reach * np.sqrt(rng.uniform())
    ray = np.array([np.cos(angle), np.sin(angle)])
    return np.asarray(part.centre + ray * distance * CAP_RADIUS * part.size)


def scratch(rng: np.random.Generator, part: Part, surface: Surface) -> Surface:
    """One to three strokes of a sharp edge: bare metal whose grooves run along the stroke."""
    px = part.size / 512
    depth, grooves = np.zeros((part.size, part.size), np.uint8), surface.grooves.copy()
    middle, heading, bend = spot(rng, part, 0.6), rng.uniform(0, 2 * np.pi), rng.normal(0, 0.12)
    length, t = rng.uniform(80, 200) * px, np.linspace(0, 1, 49)
    for stroke in range(int(rng.integers(1, 4))):
        # The later strokes are lighter, shorter, and beside the first: one edge slid twice.
        angle = heading + stroke * rng.normal(0, 0.07)
        ahead = np.array([np.cos(angle), np.sin(angle)])
        aside = np.array([-ahead[1], ahead[0]])
        reach = length * (rng.uniform(0.4, 0.8) if stroke else 1)
        begin = middle + stroke * (aside * rng.normal(0, 7) + ahead * rng.normal(0, 15)) * px
        curve = np.outer((t - 0.5) * reach, ahead) + np.outer(4 * bend * reach * t * (1 - t), aside)
        force = np.sin(np.pi * t) ** 0.4 * np.interp(t, t[::8], rng.uniform(0.55, 1, 7))
        force *= 0.75 if stroke else 1
        wide = max(1, round(px * rng.uniform(1.6, 3.4)))
        points = (begin + curve) * 16  # cv2 takes sixteenths of a pixel
        steps = np.diff(points, axis=0) / np.linalg.norm(np.diff(points, axis=0), axis=1)[:, None]
        for i, step in enumerate(steps):
            a, b = points[i].astype(int).tolist(), points[i + 1].astype(int).tolist()
            cv2.line(depth, a, b, 255 * float(force[i]), wide, cv2.LINE_AA, 4)
            for plane, direction in zip(grooves, step, strict=True):
                cv2.line(plane, a, b, float(direction), wide + 5, cv2.LINE_8, 4)
    soft = np.asarray(cv2.GaussianBlur(depth, (0, 0), 0.5), np.float32) / np.float32(255)
    cut = soft * (part.radius < 0.99)
    fall = np.stack([cv2.Sobel(cut, cv2.CV_32F, 1, 0), cv2.Sobel(cut, cv2.CV_32F, 0, 1)])
    return Surface(
        slope=surface.slope - 0.16 * fall,
        grooves=np.where(cut > 0.02, grooves, surface.grooves),
        ink=surface.ink * (1 - 0.9 * cut),
        cut=cut,
    )


def dent(rng: np.random.Generator, part: Part, surface: Surface) -> Surface:
    """A knock, 25 to 70 px of 512 across: a smooth hollow that bends the reflections."""
    middle, half = spot(rng, part, 0.66), rng.uniform(14, 35) * part.size / 512
    turn, steepness = rng.uniform(0, np.pi), rng.uniform(0.30, 0.48)
    slope = surface.slope.copy()
    # A smaller hollow inside the first keeps it from looking like a lens.
    for share, reach, aside in ((0.65, 1.0, 0.0), (0.5, 0.55, 0.3)):
        centre = middle + aside * half * np.array([np.cos(turn), np.sin(turn)])
        axes = half * reach * np.array([1, rng.uniform(0.65, 0.95)])
        depth = share * steepness * axes.min() / 1.54  # 1.54: the steepest of (1 - q^2)^2
        inside, towards = hollow(part.size, centre, turn, axes)
        slope += np.float32(4 * depth) * np.maximum(inside, 0) * towards
    return replace(surface, slope=slope)


def hollow(
    size: int, centre: npt.NDArray[np.float64], turn: float, axes: npt.NDArray[np.float64]
) -> tuple[FloatMap, FloatMap]:
    """Of an ellipse: 1 - q^2 (HxW; 1 in its centre, 0 on its line), half q^2's slope (2xHxW)."""
    cos, sin = np.cos(turn), np.sin(turn)
    across = np.array([[cos, sin], [-sin, cos]]) / axes[:, None]
    form = (across.T @ across).astype(np.float32)
    xs, ys = np.meshgrid(*[np.arange(size, dtype=np.float32)] * 2)
    x, y = xs - np.float32(centre[0]), ys - np.float32(centre[1])
    towards = np.stack([form[0, 0] * x + form[0, 1] * y, form[1, 0] * x + form[1, 1] * y])
    return 1 - x * towards[0] - y * towards[1], towards


def lose_print(rng: np.random.Generator, part: Part, surface: Surface) -> Surface:
    """Ink that never reached the metal, or that was dragged while wet."""
    px = part.size / 512
    covered = cv2.boxFilter(surface.ink.sum(axis=0), -1, (reach := round(40 * px), reach))
    rows, columns = np.nonzero((surface.ink.max(axis=0) > 0.5) & (covered > 0.15))
    chosen = int(rng.integers(len(rows)))
    centre = np.array([columns[chosen], rows[chosen]], np.float64)
    turn, axes = rng.uniform(0, np.pi), rng.uniform(17, 34) * px * np.array([1, 0.8])
    inside, _ = hollow(part.size, centre, turn, axes)
    coarse = rng.normal(0, 0.25, (64, 64)).astype(np.float32)
    ragged = cv2.resize(coarse, (part.size, part.size), interpolation=cv2.INTER_CUBIC)
    if rng.uniform() < 0.6:
        lost = np.clip(4 * inside + 4 * ragged * (inside > -0.5), 0, 1)
        return replace(surface, ink=surface.ink * (1 - lost))
    length = round(rng.uniform(10, 20) * px)
    drag = np.zeros((2 * length + 1, 2 * length + 1), np.float32)
    tip = length + length * np.array([np.cos(turn), np.sin(turn)])
    cv2.line(drag, (length, length), np.rint(tip).astype(int).tolist(), 1.0, 1)
    wet = np.stack([cv2.filter2D(plane, -1, drag / drag.sum()) for plane in surface.ink])
    smeared = 0.45 * surface.ink + 1.1 * wet * (1 + 0.5 * ragged)
    smeared /= np.maximum(1, smeared.sum(axis=0))
    share = np.clip(2.5 * inside, 0, 1)
    return replace(surface, ink=surface.ink * (1 - share) + smeared * share)


def write_demo(
    out: Path,
    *,
    seed: int = 0,
    good: int = 260,
    test_good: int = 20,
    per_defect: int = 8,
    size: int = 512,
    loose: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes the demo product in the MVTec layout; `progress` hears (written, total).

    Every image has its own stream of randomness: another count leaves the other images alone.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(
            f"{out} exists and is not empty",
            remedy="Name a new folder, or remove that one first.",
        )
    groups = [("train", "good", good), ("test", "good", test_good)]
    groups += [("test", defect, per_defect) for defect in DEFECTS]
    total, written = sum(count for _, _, count in groups), 0
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside `out`, so that the last step is one rename: an interrupted run leaves nothing.
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as beside:
        unfinished = Path(beside) / out.name
        unfinished.mkdir()
        for code, (split, kind, count) in enumerate(groups):
            for index in range(count):
                rng = np.random.default_rng([seed, code, index])
                write_part(unfinished, split, kind, index, rng, size, loose=loose)
                written += 1
                if progress:
                    progress(written, total)
        if out.exists():
            out.rmdir()  # empty: seen above
        unfinished.rename(out)


def write_part(
    root: Path,
    split: str,
    kind: str,
    index: int,
    rng: np.random.Generator,
    size: int,
    *,
    loose: bool,
) -> None:
    """One photograph and, of a defective part, its mask."""
    image, mask = (
        (draw_good(rng, size, loose=loose), None)
        if kind == "good"
        else draw_defective(rng, kind, size, loose=loose)
    )
    path = root / split / kind / f"{index:03d}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=95)
    if mask is not None:
        path = root / "ground_truth" / kind / f"{index:03d}_mask.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
