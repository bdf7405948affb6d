"""Bundles: one trained, immutable version of a recipe's model, as files that vouch for each other.

`<store>/<recipe>/<version>/` holds `model.onnx` (uint8 (B, H, W, 3) RGB in; `score` (B) and
`heatmap` (B, h, w), float32, raw, out), `manifest.json`, `checkpoint.safetensors`,
`golden.npz`, `trained_on.txt` and `report.html`, and where it is signed `manifest.sig`. Versions
are whole numbers from 1, the layout that Triton and KServe load too.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, ValidationError, model_validator

from models.appearance import Appearances
from models.contract import Contract
from models.durable import new_directory, write_file
from models.errors import BundleError
from models.image import InputSize, PixelContract

FORMAT_VERSION: Final = 1
MODEL = "model.onnx"
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
CHECKPOINT = "checkpoint.safetensors"
GOLDEN = "golden.npz"
TRAINED_ON = "trained_on.txt"
REPORT = "report.html"
FILES = (MODEL, CHECKPOINT, GOLDEN, TRAINED_ON, REPORT)

RECIPE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")

Verdict = Literal["ok", "review", "ng", "error"]

# A reject threshold that no score reaches: every suspicious part goes to review.
NO_REJECT: Final = 1e9


class Thresholds(Contract):
    """Raw scores from which a part goes to `review`, and from which it is `ng`."""

    review: float
    ng: float

    @model_validator(mode="after")
    def _review_comes_first(self) -> "Thresholds":
        if self.review > self.ng:
            raise ValueError("the review threshold must not be above the ng threshold")
        return self

    @property
    def rejects(self) -> bool:
        """Whether any score is rejected without a person's look."""
        return self.ng < NO_REJECT

    @property
    def highest(self) -> float:
        """The reject threshold; where nothing is rejected, the review threshold."""
        return self.ng if self.rejects else self.review

    def verdict(self, score: float) -> Verdict:
        """The verdict for a raw score; what is no number is an error, never ok."""
        if score >= self.ng:
            return "ng"
        if score >= self.review:
            return "review"
        return "ok" if score < self.review else "error"

    def nearness(self, score: float) -> float:
        """1 on a line, 0 as far from both as they are from each other: a label says most where
        the score is nearest to a line."""
        between = self.highest - self.review or 0.1 * abs(self.highest) or 1.0
        distance = min(abs(score - self.review), abs(score - self.ng))
        return max(0.0, 1 - distance / between)


class Suspect(Contract):
    """A good part that looks unlike the others: its score, by a model that did not learn it, lies
    so many robust `deviations` above the median."""

    file: str
    sha256: str
    score: float
    deviations: float


class Calibration(Contract):
    """What good parts scored by models that did not learn them: the quantiles 0 %, 1 %, … 100 % of
    their raw scores.

    `count` parts make `groups` independent groups. The intervals say within which the share of good
    parts lies that is sent to review at least, and that is rejected; `counted` is whether the
    latter was counted among parts rather than estimated from the tail of their scores. Without
    `automatic_reject` the parts are too few to reject any without a person's look.
    `resolvable_false_reject` is the smallest rate that so many parts can resolve. Where labelled
    defects moved the reject threshold, `f1` is what it reaches on them and these parts.
    """

    count: int
    groups: int
    quantiles: tuple[float, ...]
    false_review_rate: float
    false_reject_rate: float
    review_interval: tuple[float, float]
    reject_interval: tuple[float, float]
    counted: bool
    automatic_reject: bool
    resolvable_false_reject: float
    suspects: tuple[Suspect, ...] = ()
    f1: float | None = None


class BackboneReference(Contract):
    """Which backbone stands inside `model.onnx`."""

    name: str
    sha256: str
    licence: str


class Effort(Contract):
    """What training took where the bundle was made; `retrain_seconds` is what learning labels
    takes once features are there, measured or foreseen: None where nobody knows, 0 where the model
    learns nothing from labels."""

    seconds_per_image: float
    retrain_seconds: float | None
    peak_mb: float


# How a part looks in a mirror to its side, in one above it, and turned by half.
Mirror = Literal["left-right", "top-bottom", "half-turn"]
# How parts are brought to one place: not at all, shifted, or shifted and turned.
Align = Literal["none", "shift", "rotate"]


class Manifest(Contract):
    """All that is known of a bundle, and the sha256 of each of its other files."""

    format_version: Literal[1] = FORMAT_VERSION
    recipe: str
    version: int = Field(ge=1)
    created_at: datetime
    origin: Literal["fit", "retrain"]
    parent_version: int | None = None
    method: str
    branches: tuple[str, ...] = ()  # of the method, those that were kept
    input: InputSize
    pixels: PixelContract
    inspected: float = Field(1.0, gt=0, le=1)  # the share of the image: its region of interest
    align: Align = "none"  # how parts are brought to one place
    mirrors: tuple[Mirror, ...] = ()  # in which the parts look the same; few are learned so, too
    calibration: Calibration
    thresholds: Thresholds
    backbone: BackboneReference
    snapshot: str | None = None
    git_commit: str | None = None
    metrics: dict[str, float]
    appearance: Appearances | None = None  # of the good parts
    effort: Effort | None = None
    sha256: dict[str, str]


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. `digest` is the sha256 of its manifest, and so stands for every file."""

    path: Path
    manifest: Manifest
    digest: str

    def read(self, name: str) -> bytes:
        """The bytes of one file, checked against the manifest. Raises BundleError."""
        path = self.path / name
        try:
            data = read_plain(path)
        except OSError as error:
            raise BundleError(
                f"{path} cannot be read: {error.strerror}.", remedy="Copy the bundle again."
            ) from error
        if hashlib.sha256(data).hexdigest() != self.manifest.sha256[name]:
            raise BundleError(
                f"{path} differs from the hash in its manifest.",
                remedy="Copy the bundle again from where it was trained.",
            )
        return data

    def learned(self) -> dict[str, float | None]:
        """What the model has learned, by image hash, with the score that models gave it which did
        not learn it; None where it has none. Raises BundleError."""
        lines = [line.split() for line in self.read(TRAINED_ON).decode().splitlines()]
        return {line[0]: float(line[1]) if len(line) > 1 else None for line in lines}


def open_bundle(path: Path) -> Bundle:
    """Open `<store>/<recipe>/<version>` and verify every hash. Raises BundleError."""
    bundle = look_into_bundle(path)
    for name in FILES:
        bundle.read(name)
    return bundle


def look_into_bundle(path: Path) -> Bundle:
    """The same by its manifest alone, which is quick: each file is verified when it is read.

    Raises BundleError.
    """
    path = path.absolute()  # its last two names say which bundle it must be
    try:
        raw = read_plain(path / MANIFEST)
        manifest = Manifest.model_validate_json(raw)
    except OSError as error:
        raise BundleError(
            f"{path} is not a bundle: {MANIFEST} cannot be read ({error.strerror}).",
            remedy="Name a directory <store>/<recipe>/<version>.",
        ) from error
    except ValidationError as error:
        raise BundleError(f"{path / MANIFEST} is not a bundle's manifest: {error}") from error
    if set(manifest.sha256) != set(FILES):
        raise BundleError(f"{path / MANIFEST} does not list exactly {', '.join(FILES)}.")
    if (manifest.recipe, str(manifest.version)) != (path.parent.name, path.name):
        raise BundleError(
            f"{path} holds version {manifest.version} of {manifest.recipe!r}.",
            remedy="Keep bundles under the recipe and version that they were written as.",
        )
    return Bundle(path, manifest, hashlib.sha256(raw).hexdigest())


def write_bundle(
    store: Path,
    manifest: Manifest,
    files: Mapping[str, bytes],
    *,
    sign: Callable[[str], bytes] | None = None,
) -> Path:
    """Write a bundle whole or not at all, and return its path. `sign` signs its digest.

    The manifest's `sha256` is filled in here. Raises BundleError for a missing file, a bad
    recipe name, or a version that exists.
    """
    check_recipe_name(manifest.recipe)
    if set(files) != set(FILES):
        raise BundleError(f"A bundle holds exactly {', '.join(FILES)}, not {', '.join(files)}.")
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    sealed = manifest.model_copy(update={"sha256": digests})
    path = store / manifest.recipe / str(manifest.version)
    try:
        with new_directory(path) as temporary:
            for name, data in files.items():
                write_file(temporary / name, data)
            raw = sealed.model_dump_json(indent=2).encode()
            write_file(temporary / MANIFEST, raw)
            if sign:
                write_file(temporary / SIGNATURE, sign(hashlib.sha256(raw).hexdigest()))
    except FileExistsError as error:
        raise BundleError(
            f"{path} already exists; a bundle never changes.", remedy="Train again."
        ) from error
    return path


def copy_bundle(bundle: Bundle, target: Path) -> None:
    """Write it once more, whole or not at all. Raises BundleError, FileExistsError."""
    with new_directory(target) as temporary:
        for name in FILES:
            write_file(temporary / name, bundle.read(name))
        for name in (MANIFEST, SIGNATURE):
            if (bundle.path / name).exists():
                write_file(temporary / name, read_plain(bundle.path / name))


def read_plain(path: Path) -> bytes:
    """The content of a file. Raises OSError; BundleError for a link."""
    if path.is_symlink():
        raise BundleError(f"{path} is a link; a bundle holds plain files only.")
    return path.read_bytes()


def check_recipe_name(recipe: str) -> None:
    """Raise BundleError unless `recipe` is a name that is safe in paths and URLs."""
    if not RECIPE_NAME.fullmatch(recipe):
        raise BundleError(
            f"{recipe!r} is not a recipe name.",
            remedy="Use up to 63 of a-z, 0-9, - and _, starting with a letter or digit.",
        )


def list_versions(store: Path, recipe: str) -> list[int]:
    """The versions of a recipe that a store holds, ascending, unverified."""
    return sorted(
        int(path.name)
        for path in (store / recipe).glob("*")
        if path.name.isdecimal() and (path / MANIFEST).exists()
    )


def list_recipes(store: Path) -> list[str]:
    """The recipes of which a store holds at least one version, sorted."""
    return sorted(
        path.name
        for path in store.glob("*")
        if RECIPE_NAME.fullmatch(path.name) and list_versions(store, path.name)
    )
