from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from datasets.files import digits_recipe as recipe
from datasets.files.digits_recipe import (
    FONTS,
    RECIPES,
    SPLITS,
    STRIPS,
    choose_corner,
    draw_glyph,
    place_digit,
)

DOMAINS = {}


@pytest.fixture(params=list(RECIPES))
def domain(request):
    return request.param, made(request.param)


def made(name):
    if name not in DOMAINS:
        DOMAINS[name] = RECIPES[name]()
    return DOMAINS[name]


@pytest.mark.parametrize("font", recipe.list_fonts())
def test_every_font_draws_ten_different_digits(font):
    glyphs = [np.asarray(draw_glyph(font, digit), float) / 255 for digit in range(10)]
    for digit, image in enumerate(glyphs):
        assert 0.01 < image.mean() < 0.25, (font, digit)
        ink = Image.fromarray((image * 255).astype(np.uint8)).getbbox()
        assert abs(ink[0] + ink[2] - recipe.GLYPH) <= 16, "within 8 of 96 pixels of the middle"
        assert abs(ink[1] + ink[3] - recipe.GLYPH) <= 2
        assert 40 <= ink[3] - ink[1] <= 60, "about half as high as the canvas"
        for other in glyphs[:digit]:
            union = np.maximum(image, other).sum()
            assert np.abs(image - other).sum() > 0.15 * union


def test_the_test_of_the_glyphs_would_find_a_font_without_digits():
    empty = [np.asarray(draw_glyph("STIXSizOneSymReg", digit)).mean() for digit in range(10)]
    assert max(empty) == 0
    other = Path(matplotlib.get_data_path()) / "fonts/ttf/cmsy10.ttf"
    assert other.exists()
    assert not {"cmsy10", "cmex10", "LastResortHE-Regular"} & set(recipe.list_fonts())


def test_well_formed(domain):
    name, data = domain
    n = len(data.labels)
    assert data.images.shape == (n, 3, 32, 32)
    assert data.images.dtype == np.uint8
    assert (data.labels.dtype, data.splits.dtype) == (np.int64, np.uint8)
    assert len(np.unique(data.images.reshape(n, -1), axis=0)) == n, f"{name}: images repeat"
    assert data.images.reshape(n, -1).std(1).min() > 5, f"{name}: an image is blank"


def test_60_20_20_in_every_class(domain):
    _, data = domain
    for digit in range(10):
        counts = np.bincount(data.splits[data.labels == digit], minlength=3)
        assert np.abs(counts / counts.sum() - (0.6, 0.2, 0.2)).max() < 0.02


def test_made_alike_every_time():
    # From scratch, not from the caches of fonts and digits.
    draw_glyph.cache_clear()
    recipe.load_handwritten.cache_clear()
    for name in ("rendered", "optical", "photo"):
        first = made(name)
        assert all(np.array_equal(a, b) for a, b in zip(first, RECIPES[name](), strict=True))


def test_the_sizes_are_those_of_the_documentation():
    assert {name: len(made(name).labels) for name in RECIPES} == {
        "rendered": 2000, "optical": 1000, "photo": 1594, "outlined": 1000, "sketched": 1000,
    }  # fmt: skip


def test_no_font_and_no_handwritten_image_is_in_two_splits(domain):
    _, data = domain
    origins = [set(data.origins[data.splits == split].tolist()) for split in range(3)]
    assert all(origins)
    assert not origins[0] & origins[1] | origins[0] & origins[2] | origins[1] & origins[2]


def test_fonts_are_named_once():
    names = recipe.list_fonts()
    assert len(names) == len(set(names)) == 20


def test_every_image_is_drawn_in_a_font_of_its_split():
    data = made("rendered")
    for split, name in enumerate(SPLITS):
        used = {recipe.list_fonts()[i] for i in data.origins[data.splits == split]}
        assert used == set(FONTS[name])


def test_optical_and_photo_share_no_handwriting():
    optical, photo = made("optical"), made("photo")
    assert not set(optical.origins.tolist()) & set(photo.origins.tolist())
    assert len({*optical.origins.tolist(), *photo.origins.tolist()}) == 1797
    target = load_digits().target
    for data in (optical, photo):
        assert np.array_equal(data.labels, target[data.origins])


def test_optical_shows_the_original_pixels():
    data, originals = made("optical"), load_digits().images
    for row in (0, 500, 999):
        inner = Image.fromarray(data.images[row, 0, 6:26, 6:26])
        small = np.asarray(inner.resize((8, 8), Image.Resampling.NEAREST), float)
        np.testing.assert_allclose(small / 255, originals[data.origins[row]] / 16, atol=0.003)


@pytest.mark.parametrize("split", SPLITS)
def test_crops_lie_in_strips_of_their_split(split):
    rng = np.random.default_rng(0)
    extremes = [np.zeros(3), np.full(3, 1 - 2**-53)]
    for draws in [*rng.random((200, 3)), *extremes]:
        top, left = choose_corner(split, 0, draws)
        assert 0 <= top <= 427 - 32
        strip = left * len(STRIPS) // 640
        assert STRIPS[strip] == split
        assert (left + 31) * len(STRIPS) // 640 == strip


def test_placing_moves_and_scales_ink():
    mask = Image.new("L", (96, 96))
    mask.paste(255, (38, 24, 58, 72))  # 20 wide, 48 high, centred
    rows, columns = np.nonzero(place_digit(mask, 24, 0, 0, 0, 0) > 0.5)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 27, 11, 20)
    moved_rows, moved_columns = np.nonzero(place_digit(mask, 24, 0, 0, 3, -2) > 0.5)
    assert (moved_rows.min(), moved_columns.min()) == (2, 14)
    rows, columns = np.nonzero(place_digit(mask, 24, np.pi / 2, 0, 0, 0) > 0.5)
    assert np.ptp(columns) == 23, "a quarter turn"
