"""How the embedded digits are made: pure functions from named seeds to arrays, no files written.

Nothing is downloaded. The material is what the dependencies ship: the handwritten digits of the UCI
Optical Recognition set and two photographs (scikit-learn), and fonts (matplotlib).

==========  =====================================  =============================================
domain      digits                                 what differs between train, validation, test
==========  =====================================  =============================================
rendered    fonts, light on dark, in colour        the fonts
optical     1,000 handwritten, coarse, grey        the handwritten images
photo       the other 797, |digit - photograph|    the handwritten images and photograph regions
outlined    outlines of glyphs, light on dark      the fonts (development only)
sketched    strokes through drawn skeletons        the strokes' seeds (development only)
==========  =====================================  =============================================

The difficulty was set with batch norm and source-only training alone, before any other normaliser
was tried. Test accuracy of batch norm in the default ablation (source-only, last epoch, mean of the
seeds), rows trained on, columns tested on:

========  ========  =======  =====
          rendered  optical  photo
rendered      99.7     58.8   47.5
optical       55.1     97.1   47.6
photo         62.5     47.1   95.4
========  ========  =======  =====

outlined to sketched: 99 on itself, 49 on sketched; the reverse: 100 and 22.

``sketched`` was made harder once, in grey at full contrast: on a milder one, in colour, the rate
that was found for WA with DANN diverged on 15 of the 18 runs of the table. The three domains of the
table have stayed as they were, but for one font that older versions of matplotlib lack.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from da.ops.seeding import derive_seed, permutation, uniforms

VERSION = 4
"""Counts up whenever an image changes, so that no cache of an older recipe is ever read."""
_SEED = 1
SIZE = 32
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

FONTS: dict[Split, tuple[str, ...]] = {
    "train": (
        "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-BoldOblique", "DejaVuSansMono-Bold",
        "DejaVuSansMono-BoldOblique", "DejaVuSansMono-Oblique", "DejaVuSerif",
        "DejaVuSerif-BoldItalic", "STIXGeneralBolIta", "STIXGeneralItalic", "cmb10", "cmr10",
    ),
    "validation": ("DejaVuSans-Oblique", "DejaVuSerif-Bold", "STIXGeneral", "cmtt10"),
    "test": ("DejaVuSansMono", "DejaVuSerif-Italic", "STIXGeneralBol", "cmss10"),
}  # fmt: skip
"""The fonts of matplotlib 3.9 and later that draw digits; its others draw nothing, a box or other
signs."""

RENDERED: dict[Split, int] = {"train": 1200, "validation": 400, "test": 400}
DEVELOPMENT: dict[Split, int] = {"train": 600, "validation": 200, "test": 200}
OPTICAL = 1000
CROPS = 2
"""Crops of the photographs that each handwritten digit of ``photo`` is blended into."""

DIMMED = 0.4
"""What is left of the photographs' brightness in ``photo``."""

STRIPS = ("train", "validation", "train", "test", "train")
"""Owners of the upright strips, of equal width, that each photograph is cut into."""

GLYPH = 96
"""Side of the canvas that a glyph is drawn on before it is turned and scaled."""


class Made(NamedTuple):
    """The images of one domain.

    Attributes:
        images: ``(N, 3, 32, 32)`` uint8.
        labels: ``(N,)`` int64.
        splits: ``(N,)`` uint8, positions in :data:`SPLITS`.
        origins: ``(N,)`` int64: the handwritten image or the font that each was made from.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    splits: NDArray[np.uint8]
    origins: NDArray[np.int64]


def list_fonts() -> tuple[str, ...]:
    """Every font in use; ``Made.origins`` of the domains that use fonts points in here."""
    return tuple(name for split in SPLITS for name in FONTS[split])


@cache
def draw_glyph(font: str, digit: int) -> Image.Image:
    """A digit, white on black, about half as high as the canvas of ``GLYPH`` pixels square.

    It is centred by the font's own box, so the ink may lie a few pixels to one side.
    """
    import matplotlib

    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    face = ImageFont.truetype(str(file), 66, layout_engine=ImageFont.Layout.BASIC)
    left, top, right, bottom = face.getbbox(str(digit))
    canvas = Image.new("L", (GLYPH, GLYPH))
    place = ((GLYPH - left - right) / 2, (GLYPH - top - bottom) / 2)
    ImageDraw.Draw(canvas).text(place, str(digit), font=face, fill=255)
    return canvas


def place_digit(
    mask: Image.Image, height: float, angle: float, shear: float, dx: float, dy: float
) -> NDArray[np.floating]:
    """A ``GLYPH``-sized mask turned, slanted, scaled and moved: ``(32, 32)`` float32 in [0, 1].

    Args:
        mask: white on black, with ink about half as high as the canvas.
        height: of the ink in the result, in pixels.
        angle: in radians.
        shear: horizontal shift per unit of height.
        dx: shift to the right, in pixels.
        dy: shift down, in pixels.
    """
    fine = 2  # drawn at twice the size and averaged, or thin strokes would break
    scale = (GLYPH / 2) / height / fine
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    a, b = cos + shear * sin, -sin + shear * cos
    d, e = sin, cos
    middle = SIZE * fine / 2
    x, y = middle + dx * fine, middle + dy * fine
    matrix = (a, b, GLYPH / 2 - a * x - b * y, d, e, GLYPH / 2 - d * x - e * y)
    side = (SIZE * fine, SIZE * fine)
    drawn = mask.transform(side, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    drawn = drawn.resize((SIZE, SIZE), Image.Resampling.BOX)
    return np.asarray(drawn, dtype=np.float32) / 255


def _choose_colours(
    ink: NDArray[np.floating],
    draws: NDArray[np.float64],
    dark: tuple[float, float],
    light: tuple[float, float],
) -> NDArray[np.floating]:
    """Blends two colours by an ink mask: ``(32, 32)`` and six draws give ``(3, 32, 32)``."""
    ground = dark[0] + (dark[1] - dark[0]) * draws[:3, None, None]
    stroke = light[0] + (light[1] - light[0]) * draws[3:6, None, None]
    return ground + (stroke - ground) * ink


def _bytes(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _change_weight(mask: Image.Image, draw: float) -> Image.Image:
    """The glyph as it is (half of the cases), bolder, or lighter, by about one pixel of 32."""
    if draw < 0.25:
        return mask.filter(ImageFilter.MaxFilter(3))
    if draw < 0.5:
        return mask.filter(ImageFilter.GaussianBlur(1.5))
    return mask


def _place(draws: NDArray[np.float64]) -> dict[str, float]:
    """Five draws as the keywords of :func:`place_digit`."""
    return {
        "height": 19 + 6 * draws[0],
        "angle": np.deg2rad(20 * (draws[1] - 0.5)),
        "shear": 0.4 * (draws[2] - 0.5),
        "dx": 3 * (draws[3] - 0.5),
        "dy": 3 * (draws[4] - 0.5),
    }


def _draw_domain(
    name: str, counts: dict[Split, int], draw: Callable[[str, int, NDArray[np.float64]], NDArray]
) -> Made:
    """A domain of glyphs: each split cycles through the digits and through its own fonts.

    Args:
        name: of the domain; seeds its random numbers.
        counts: images per split.
        draw: ``(font, digit, 16 draws in [0, 1)) -> (3, 32, 32)`` uint8.
    """
    images, labels, splits, origins = [], [], [], []
    names = list_fonts()
    for number, split in enumerate(SPLITS):
        key = derive_seed("digits", _SEED, name, split)
        index = np.arange(counts[split])
        draws = uniforms(key, np.zeros_like(index), index, 16)
        for i in index:
            digit, font = int(i % 10), FONTS[split][i // 10 % len(FONTS[split])]
            images.append(draw(font, digit, draws[i]))
            labels.append(digit)
            splits.append(number)
            origins.append(names.index(font))
    return Made(
        np.stack(images),
        np.array(labels, np.int64),
        np.array(splits, np.uint8),
        np.array(origins, np.int64),
    )


def rendered() -> Made:
    """2,000 digits in 21 fonts, light on dark, varied in size, place, slant, weight and colour."""

    def draw(font: str, digit: int, draws: NDArray[np.float64]) -> NDArray[np.uint8]:
        ink = place_digit(_change_weight(draw_glyph(font, digit), draws[5]), **_place(draws))
        return _bytes(_choose_colours(ink, draws[6:], (0.0, 0.25), (0.6, 1.0)))

    return _draw_domain("rendered", RENDERED, draw)


def outlined() -> Made:
    """1,000 outlines of glyphs, light on dark (development)."""

    def draw(font: str, digit: int, draws: NDArray[np.float64]) -> NDArray[np.uint8]:
        mask = draw_glyph(font, digit)
        edge = ImageChops.difference(mask.filter(ImageFilter.MaxFilter(7)), mask)
        ink = place_digit(edge, **_place(draws))
        return _bytes(_choose_colours(ink, draws[6:], (0.0, 0.3), (0.6, 1.0)))

    return _draw_domain("outlined", DEVELOPMENT, draw)


# One or two strokes per digit through points (x, y) of the unit square, y down.
_SKELETONS: tuple[tuple[tuple[tuple[float, float], ...], ...], ...] = (
    (((.5, .0), (.15, .2), (.1, .5), (.15, .8), (.5, 1), (.85, .8), (.9, .5), (.85, .2), (.5, 0)),),
    (((.3, .25), (.45, .15), (.55, .0), (.55, .5), (.55, 1)),),
    (((.12, .25), (.3, .03), (.65, .0), (.85, .25), (.7, .5), (.4, .75), (.1, 1), (.5, .98),
      (.9, 1)),),
    (((.15, .1), (.5, .0), (.83, .2), (.7, .42), (.4, .48), (.75, .55), (.9, .78), (.6, 1),
      (.12, .9)),),
    (((.6, .0), (.35, .35), (.1, .65), (.5, .67), (.92, .65)), ((.68, .35), (.68, .7), (.68, 1))),
    (((.85, .0), (.5, .01), (.22, .0), (.2, .22), (.17, .45), (.55, .4), (.87, .65), (.6, .98),
      (.12, .93)),),
    (((.75, .0), (.4, .2), (.15, .6), (.3, .95), (.65, .98), (.87, .72), (.6, .5), (.2, .65)),),
    (((.1, .03), (.5, .02), (.88, .0), (.65, .4), (.48, .7), (.38, 1)),),
    (((.5, .47), (.18, .25), (.5, .0), (.82, .25), (.5, .47), (.12, .75), (.5, 1), (.88, .75),
      (.5, .47)),),
    (((.83, .28), (.5, .5), (.17, .3), (.45, .0), (.8, .1), (.83, .4), (.75, .7), (.55, 1)),),
)  # fmt: skip


def _interpolate_curve(points: NDArray[np.float64], steps: int = 8) -> NDArray[np.float64]:
    """A Catmull-Rom spline through ``(P, 2)`` points, ``((P - 1) * steps + 1, 2)``."""
    padded = np.concatenate([points[:1], points, points[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    pieces = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2
               + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False)
    ]  # fmt: skip
    return np.concatenate([*pieces, points[-1:]])


def sketched() -> Made:
    """1,000 digits as unsteady grey strokes through drawn skeletons, on noise (development)."""

    def draw(_: str, digit: int, draws: NDArray[np.float64]) -> NDArray[np.uint8]:
        key = derive_seed("digits", _SEED, "sketched", digit, *draws)
        canvas = Image.new("L", (GLYPH, GLYPH))
        for stroke, points in enumerate(_SKELETONS[digit]):
            n = len(points)
            wobble = uniforms(key, np.full(n, stroke), np.arange(n), 2) - 0.5
            path = _interpolate_curve(np.array(points) + 0.2 * wobble) * (34, 48) + (31, 24)
            line = [tuple(p) for p in path]
            ImageDraw.Draw(canvas).line(line, 255, width=int(4 + 6 * draws[5]), joint="curve")
        ink = place_digit(canvas, **_place(draws))
        noise = uniforms(key, np.full(SIZE, 9), np.arange(SIZE), 3 * SIZE).reshape(SIZE, 3, SIZE)
        # Grey at full contrast: a shift of colour as large as those between the three domains.
        image = _choose_colours(ink, draws[[6, 6, 6, 7, 7, 7]], (0.0, 0.1), (0.9, 1.0))
        return _bytes(image + 0.1 * (noise.transpose(1, 0, 2) - 0.5))

    # The fonts that the loop passes through are not used, so none is recorded.
    made = _draw_domain("sketched", DEVELOPMENT, draw)
    return made._replace(origins=np.arange(len(made.labels)))


class _Hand(NamedTuple):
    """Handwritten digits.

    Attributes:
        ink: ``(N, 8, 8)`` float32 in [0, 1].
        labels: ``(N,)`` int64.
        splits: ``(N,)`` uint8.
        numbers: ``(N,)`` int64, their places in scikit-learn's set.
    """

    ink: NDArray[np.float32]
    labels: NDArray[np.int64]
    splits: NDArray[np.uint8]
    numbers: NDArray[np.int64]


@cache
def load_handwritten() -> tuple[_Hand, _Hand]:
    """scikit-learn's 1,797 digits, stratified into those of ``optical`` and those of ``photo``.

    Each of the two is split 60/20/20, stratified too.
    """
    from sklearn.datasets import load_digits

    loaded = load_digits()
    ink, labels = (loaded.images / 16).astype(np.float32), loaded.target.astype(np.int64)
    # Every class is shuffled, then the classes are interleaved: any prefix is stratified.
    ranks = np.empty(len(labels))
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        order = permutation(derive_seed("digits", _SEED, "handwritten", digit), 0, len(members))
        ranks[members[order]] = (np.arange(len(members)) + 0.5) / len(members)
    order = np.lexsort((labels, ranks))

    def part(numbers: NDArray[np.int64]) -> _Hand:
        splits = np.empty(len(numbers), np.uint8)
        for digit in range(10):
            rows = np.flatnonzero(labels[numbers] == digit)
            splits[rows] = np.digitize((np.arange(len(rows)) + 0.5) / len(rows), (0.6, 0.8))
        return _Hand(ink[numbers], labels[numbers], splits, numbers)

    return part(order[:OPTICAL]), part(order[OPTICAL:])


def enlarge_ink(ink: NDArray[np.float32], side: int, how: Image.Resampling) -> NDArray[np.float32]:
    """Upsamples ``(N, 8, 8)`` in [0, 1] to a centred square: ``(N, 32, 32)``, zero around it."""
    large = np.zeros((len(ink), SIZE, SIZE), np.float32)
    edge = (SIZE - side) // 2
    for row, small in enumerate(ink):
        resized = Image.fromarray(small).resize((side, side), how)
        large[row, edge : edge + side, edge : edge + side] = np.asarray(resized)
    return np.clip(large, 0, 1)


def optical() -> Made:
    """1,000 handwritten digits, light on black, grey, in visible pixels: a coarse scan."""
    hand, _ = load_handwritten()
    ink = enlarge_ink(hand.ink, 20, Image.Resampling.NEAREST)
    images = np.repeat(_bytes(ink)[:, None], 3, axis=1)
    return Made(images, hand.labels, hand.splits, hand.numbers)


def choose_corner(split: Split, photo: int, draws: NDArray[np.float64]) -> tuple[int, int]:
    """Top and left of a crop that lies wholly in a strip of its split: three draws in [0, 1)."""
    height, width = _load_photographs()[photo].shape[1:]
    strips = [i for i, owner in enumerate(STRIPS) if owner == split]
    strip = strips[int(draws[0] * len(strips))]
    first, end = (width * n // len(STRIPS) for n in (strip, strip + 1))
    return int(draws[1] * (height - SIZE + 1)), first + int(draws[2] * (end - first - SIZE + 1))


@cache
def _load_photographs() -> tuple[NDArray[np.float32], ...]:
    """The two photographs of scikit-learn, each ``(3, 427, 640)`` float32 in [0, 1]."""
    from sklearn.datasets import load_sample_image

    return tuple(
        load_sample_image(name).transpose(2, 0, 1).astype(np.float32) / 255
        for name in ("china.jpg", "flower.jpg")
    )


def photo() -> Made:
    """797 handwritten digits, twice each, as ``|digit - crop|`` per channel, sharpened.

    This is MNIST-M's blending (Ganin et al. 2016, Domain-adversarial training of neural networks,
    section 5.2.4, there with crops of BSDS500), with the photograph dimmed: at full strength these
    few images are not enough to learn from.
    """
    _, hand = load_handwritten()
    ink = np.clip(2 * enlarge_ink(hand.ink, 28, Image.Resampling.BICUBIC) - 0.5, 0, 1)
    images = np.empty((len(ink) * CROPS, 3, SIZE, SIZE), np.uint8)
    index = np.arange(len(images))
    key = derive_seed("digits", _SEED, "photo")
    draws = uniforms(key, np.zeros_like(index), index, 4)
    for i in index:
        which = int(draws[i, 3] * len(_load_photographs()))
        top, left = choose_corner(SPLITS[hand.splits[i // CROPS]], which, draws[i])
        crop = _load_photographs()[which][:, top : top + SIZE, left : left + SIZE]
        images[i] = _bytes(np.abs(ink[i // CROPS] - DIMMED * crop))
    return Made(
        images,
        np.repeat(hand.labels, CROPS),
        np.repeat(hand.splits, CROPS),
        np.repeat(hand.numbers, CROPS),
    )


RECIPES: dict[str, Callable[[], Made]] = {
    recipe.__name__: recipe for recipe in (rendered, optical, photo, outlined, sketched)
}
