"""The demo product: a printed metal cap on a belt, drawn with light on a surface."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

FloatMap = npt.NDArray[np.float32]
ByteImage = npt.NDArray[np.uint8]

CAP_RADIUS = 0.41  # of the frame's side
METAL = np.array([0.93, 0.96, 1.0], np.float32)
INKS = np.array([[0.035, 0.065, 0.16], [0.66, 0.085, 0.045]], np.float32)  # navy, vermilion
BELT = np.array([0.017, 0.021, 0.025], np.float32)
RING_TEXT = "KIZU PRECISION CLOSURES  ·  TURNED ALUMINIUM  ·  TWIST TO OPEN  ·  KEEP SEALED  ·  "
# Lights: azimuth in radians from the key light's, degrees from overhead, power.
KEY, FILL = (0.0, 48.0, 1.0), (2.0, 62.0, 0.5)


@dataclass(frozen=True, eq=False)
class Part:
    """What one part and one exposure lawfully vary in; maps are HxW over the frame."""

    size: int
    turn: float  # radians
    centre: tuple[float, float]  # x, y in pixels
    print_shift: tuple[float, float]  # x, y in pixels, against the metal
    ink_density: float
    azimuth: float  # radians, of the key light
    brightness: float
    grain: FloatMap  # turned texture, around 0
    belt: FloatMap  # brightness of the belt, around 1
    dust: FloatMap  # 0 to 1
    noise: FloatMap  # HxWx3, unit variance
    radius: FloatMap  # distance from the cap's centre, 1 at its edge
    theta: FloatMap  # radians, in the image's frame


@dataclass(frozen=True, eq=False)
class Surface:
    """What the light meets; defects change it and the shading follows."""

    slope: FloatMap  # 2xHxW, height gained per pixel in x and in y
    grooves: FloatMap  # 2xHxW, unit direction of the tool marks
    ink: FloatMap  # 2xHxW, coverage 0 to 1 of each of INKS
    cut: FloatMap  # HxW, 0 to 1, bare metal freshly scratched


def draw_part(rng: np.random.Generator, size: int, *, loose: bool = False) -> Part:
    """Draws everything a good part may vary in, the noise included. A loose part lies turned in any
    way, and three times as far from the middle."""
    px = size / 512
    centre = size / 2 + rng.uniform(-6, 6, 2) * px * (3 if loose else 1)
    xs, ys = np.meshgrid(*[np.arange(size, dtype=np.float32)] * 2)
    polar = cv2.cartToPolar(xs - np.float32(centre[0]), ys - np.float32(centre[1]))
    radius, theta = (np.asarray(plane, np.float32) for plane in polar)
    radius /= np.float32(CAP_RADIUS * size)
    drift = rng.uniform(0, 16)  # the belt moves under the cap
    weave = np.sin((xs + ys) * np.float32(0.75 / px) + np.float32(drift))
    weave *= np.sin((xs - ys) * np.float32(0.75 / px))
    folds = rng.standard_normal((9, 9), np.float32)
    cloth = np.asarray(cv2.resize(folds, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)
    print_shift = rng.normal(0, 0.8, 2).clip(-2, 2) * px
    return Part(
        size=size,
        turn=float(np.deg2rad(rng.uniform(-3, 3) * (60 if loose else 1))),
        centre=(float(centre[0]), float(centre[1])),
        print_shift=(float(print_shift[0]), float(print_shift[1])),
        ink_density=float(rng.uniform(0.84, 0.94)),
        azimuth=float(np.deg2rad(-125 + rng.uniform(-9, 9))),
        brightness=float(rng.uniform(0.9, 1.1)),
        grain=turned_grain(rng, radius, theta),
        belt=1 + 0.22 * weave + 0.10 * cloth,
        dust=faint_dust(rng, size),
        noise=rng.standard_normal((size, size, 3), np.float32),
        radius=radius,
        theta=theta,
    )


def turned_grain(rng: np.random.Generator, radius: FloatMap, theta: FloatMap) -> FloatMap:
    """Tool marks of the lathe: fine across the radius, long around the centre."""
    rings = len(radius) // 2
    angles = 512
    marks = rng.standard_normal((angles, rings), np.float32)
    around = np.concatenate([marks[-64:], marks, marks[:64]])  # the circle closes on itself
    long = np.asarray(cv2.blur(cv2.blur(around, (1, 41)), (1, 21)), np.float32)[64:-64]
    marks = long / long.std() + np.float32(0.8) * rng.standard_normal(rings, np.float32)
    across = radius * np.float32(rings * 0.95)
    turned = theta * np.float32(angles / (2 * np.pi))
    grain = cv2.remap(marks, across, turned, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return np.asarray(grain, np.float32)


def faint_dust(rng: np.random.Generator, size: int) -> FloatMap:
    """A few specks and fibres that no inspector would reject."""
    dust = np.zeros((size, size), np.uint8)
    for _ in range(int(rng.integers(6, 22))):
        root = rng.uniform(0, 16 * size, 2)  # cv2 takes sixteenths of a pixel
        tip = root + rng.normal(0, 18 * size / 512, 2)
        grey = int(rng.integers(40, 110))
        cv2.line(dust, root.astype(int).tolist(), tip.astype(int).tolist(), grey, 1, cv2.LINE_AA, 4)
    return np.asarray(cv2.GaussianBlur(dust, (0, 0), 0.7), np.float32) / np.float32(255)


def good_surface(part: Part) -> Surface:
    """The cap as it should be: panel, bead, rim with a knurled edge, and its print."""
    r = part.radius

    def ridge(at: float, width: float) -> FloatMap:
        """Slope of a raised ring: up on its inner side, down on its outer one."""
        u = (r - at) / width
        return np.asarray(-u * cv2.exp(0.5 - 0.5 * u * u))

    edge = np.clip((r - 0.93) / 0.07, 0, 1)
    outward = 0.42 * ridge(0.79, 0.014) - 0.30 * ridge(0.745, 0.012) - 0.05 * r - 1.1 * edge * edge
    around = 0.55 * np.sin(96 * (part.theta - part.turn)) * np.sqrt(edge)
    cos, sin = np.cos(part.theta), np.sin(part.theta)
    return Surface(
        slope=np.stack([outward * cos - around * sin, outward * sin + around * cos]),
        grooves=np.stack([-sin, cos]),
        ink=printed(part),
        cut=np.zeros_like(r),
    )


def printed(part: Part) -> FloatMap:
    """The artwork in the part's pose, 2xHxW."""
    scale = 0.5  # the artwork is drawn twice as large
    cos, sin = scale * np.cos(part.turn), scale * np.sin(part.turn)
    x, y = np.add(part.centre, part.print_shift)
    pose = np.array(
        [[cos, -sin, x - (cos - sin) * part.size], [sin, cos, y - (sin + cos) * part.size]]
    )
    ink = cv2.warpAffine(artwork(part.size), pose, (part.size, part.size), flags=cv2.INTER_LINEAR)
    mottle = 1 - 0.06 * np.clip(part.grain, -1, 2)  # ink lies thinner on the crests
    return np.stack(cv2.split(ink)) * (part.ink_density * mottle)


@lru_cache(maxsize=2)
def artwork(size: int) -> FloatMap:
    """What is printed, centred, at twice the frame's scale: 2size x 2size x 2, 0 to 1."""
    side = 2 * size
    unit = CAP_RADIUS * side  # the cap's radius
    navy, red = Image.new("L", (side, side)), Image.new("L", (side, side))
    pen, red_pen = ImageDraw.Draw(navy), ImageDraw.Draw(red)

    def at(x: float, y: float) -> tuple[float, float]:
        return size + x * unit, size + y * unit

    font = ImageFont.load_default(unit * 0.40)
    for x, letter in zip((-0.36, -0.13, 0.09, 0.36), "KIZU", strict=True):
        pen.text(at(x, 0.0), letter, 255, font, "mm", stroke_width=unit * 0.012)
    small = ImageFont.load_default(unit * 0.078)
    pen.text(at(0, 0.265), "ONE FLAW IS TOO MANY", 255, small, "mm", stroke_width=unit * 0.003)
    red_pen.rectangle((*at(-0.48, 0.18), *at(0.48, 0.196)), 255)
    # The emblem: a ring with one scratch through it.
    red_pen.ellipse((*at(-0.115, -0.455), *at(0.115, -0.225)), outline=255, width=int(unit * 0.034))
    red_pen.line((*at(-0.15, -0.245), *at(0.15, -0.435)), 0, int(unit * 0.075))
    red_pen.line((*at(-0.15, -0.245), *at(0.15, -0.435)), 255, int(unit * 0.03))
    code = np.random.default_rng(7).random((9, 9)) < 0.5
    code[:, 0] = code[-1] = True  # the finder of a data-matrix code
    for row, column in np.argwhere(code):
        x, y = -0.081 + column * 0.018, 0.345 + row * 0.018
        pen.rectangle((*at(x, y), *at(x + 0.017, y + 0.017)), 255)
    ink = np.dstack([np.maximum(np.asarray(navy), ring_text(side, unit)), np.asarray(red)])
    return np.asarray(cv2.GaussianBlur(ink, (0, 0), 0.8), np.float32) / np.float32(255)


def ring_text(side: int, unit: float) -> ByteImage:
    """RING_TEXT bent once around the centre: side x side, 0 to 255."""
    font = ImageFont.load_default(unit * 0.088)
    length, height = int(font.getlength(RING_TEXT)), int(unit * 0.12)
    strip = Image.new("L", (length, height))
    ImageDraw.Draw(strip).text(
        (0, height / 2), RING_TEXT, 255, font, "lm", stroke_width=unit * 0.003
    )
    ys, xs = np.mgrid[:side, :side].astype(np.float32) - np.float32(side / 2)
    along = (np.arctan2(ys, xs) / (2 * np.pi) + 0.75) % 1 * length
    across = np.float32(0.645 * unit + height / 2) - np.hypot(xs, ys)
    bent = cv2.remap(np.asarray(strip), along.astype(np.float32), across, cv2.INTER_LINEAR)
    return np.asarray(bent, np.uint8)


def shade(part: Part, surface: Surface) -> FloatMap:
    """The noise-free photograph, HxWx3, grey levels 0 to 255."""
    (sx, sy), (tx, ty) = surface.slope, surface.grooves
    along, across = sx * tx + sy * ty, sy * tx - sx * ty
    steep = 1 / np.sqrt(1 + sx * sx + sy * sy)
    # The room, mirrored: bright on the key light's side, dark on the other.
    facing = np.float32(-6 * np.cos(part.azimuth)) * sx + np.float32(-6 * np.sin(part.azimuth)) * sy
    matt = 0.105 + 0.10 * facing / np.sqrt(1 + facing * facing)
    gloss = np.zeros_like(sx)
    for turn, tilt, power in KEY, FILL:
        azimuth, polar = part.azimuth + turn, np.deg2rad(tilt)
        lx, ly, lz = np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)
        half = np.array([lx, ly, lz + 1]) / np.sqrt(2 * lz + 2)
        hx, hy, hz = half.astype(np.float32)
        # Ward's anisotropic lobe: narrow along the grooves, wide across them.
        ht = (hx * tx + hy * ty + hz * along + 0.028 * part.grain) / 0.17
        hb = (hy * tx - hx * ty + hz * across + 0.05 * part.grain) / 0.50
        hn = np.maximum(hz - hx * sx - hy * sy, 0.2)
        gloss += np.float32(power) * cv2.exp(-(ht * ht + hb * hb) / (hn * hn))
        lit = np.maximum(np.float32(lz) - np.float32(lx) * sx - np.float32(ly) * sy, 0)
        matt += np.float32(0.12 * power) * lit * steep
    return develop(part, surface, matt, gloss)


def develop(part: Part, surface: Surface, matt: FloatMap, gloss: FloatMap) -> FloatMap:
    """Matt and glossy light (HxW) into colours on the belt, through lens and tone curve."""
    metal = matt * (1 + 0.07 * part.grain) + 0.66 * gloss * (1 + 0.12 * part.grain)
    metal += surface.cut * (0.30 + 0.35 * gloss)
    bare = 1 - surface.ink[0] - surface.ink[1]
    varnish = 0.05 * gloss * (1 - bare)
    printed_light = 2.2 * matt + 0.35 * gloss
    reach = 1.05 + 0.05 * np.cos(part.theta - np.float32(part.azimuth + np.pi))
    gap = np.maximum(part.radius - reach, 0) / np.float32(0.10)
    belt = part.belt * (1 - 0.75 * cv2.exp(-gap * gap))
    inside = np.clip((1 - part.radius) * np.float32(CAP_RADIUS * part.size) + 0.5, 0, 1)
    planes = []
    for metal_tint, ink_tint, belt_tint in zip(METAL, INKS.T, BELT, strict=True):
        ink = surface.ink[0] * ink_tint[0] + surface.ink[1] * ink_tint[1]
        cap = metal * bare * metal_tint + ink * printed_light + varnish
        ground = belt * belt_tint
        light = cv2.GaussianBlur(ground + inside * (cap - ground) + 0.1 * part.dust, (0, 0), 0.55)
        planes.append(255 * np.sqrt(1 - cv2.exp(np.float32(-1.8 * part.brightness) * light)))
    return np.asarray(cv2.merge(planes), np.float32)


def expose(part: Part, scene: FloatMap) -> ByteImage:
    """The sensor: shot noise grows with light, read noise does not."""
    grey = scene + part.noise * (1.2 + 0.006 * scene) + 0.5
    return np.asarray(np.clip(grey, 0, 255), np.uint8)
