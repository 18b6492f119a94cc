import time

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from datasets.streams.distortion import (
    CUTOUT,
    DISTORTIONS,
    DRAWS,
    GREY,
    OPERATIONS,
    distort_strongly,
)

NAMES = list(DISTORTIONS)
#: Those that do nothing at a strength of 0, in both directions.
GRADUAL = [name for name in NAMES if name not in ("autocontrast", "equalize")]


def picture(side=48, low=20, high=200):
    """Smooth blobs between two brightnesses: each distortion has something to change."""
    coarse = torch.from_numpy(np.random.default_rng(0).uniform(low, high, (1, 3, 4, 4)))
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")[0].byte()


def draws_of(name, strength=0.5, direction=0.0, cut=0.0):
    """Numbers that pick one distortion and then the identity, and cut a square of a size."""
    which = (NAMES.index(name) + 0.5) / len(NAMES)
    idle = (NAMES.index("identity") + 0.5) / len(NAMES)
    return np.array([which, strength, direction, idle, 0.5, 0.0, cut, 0.5, 0.5])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(32, 32), (20, 31), (1, 1)])
def test_each_distortion_keeps_shape_and_type_and_leaves_its_input_alone(name, channels, shape):
    image = torch.randint(0, 256, (channels, *shape), dtype=torch.uint8)
    before = image.clone()
    for strength in (0.0, 0.3, 0.999999, 1.0):
        for sign in (-1.0, 1.0):
            out = DISTORTIONS[name](image, strength, sign)
            assert out.shape == image.shape
            assert out.dtype == torch.uint8
            assert torch.equal(image, before)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "identity"])
def test_each_distortion_but_the_identity_changes_an_image(name):
    image = picture()
    assert not torch.equal(DISTORTIONS[name](image, 0.7, 1.0), image)


@pytest.mark.parametrize("name", GRADUAL)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_no_strength_is_no_change(name, sign):
    image = picture(low=0, high=255)
    image[:, 0, :2] = torch.tensor([0, 255])
    assert torch.equal(DISTORTIONS[name](image, 0.0, sign), image)


@pytest.mark.parametrize("name", [n for n in GRADUAL if n not in ("identity", "posterize")])
def test_more_strength_changes_more(name):
    image = picture()

    def change(strength):
        return (DISTORTIONS[name](image, strength, 1.0).float() - image.float()).abs().mean()

    assert 0 < change(0.4) < change(1.0)


@pytest.mark.parametrize("factor", [0.05, 0.6, 1.4, 1.95])
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
        ("sharpness", ImageEnhance.Sharpness),
    ],
)
def test_enhancements_are_those_of_pillow(name, theirs, factor):
    image = picture()
    strength, sign = abs(factor - 1) / 0.95, float(np.sign(factor - 1))
    ours = DISTORTIONS[name](image, strength, sign)
    reference = theirs(Image.fromarray(image.permute(1, 2, 0).numpy())).enhance(factor)
    difference = ours.permute(1, 2, 0).numpy().astype(int) - np.asarray(reference).astype(int)
    assert np.abs(difference).max() <= 2  # each rounds in its own places


@pytest.mark.parametrize("strength", [0.0, 0.25, 0.5, 1.0])
def test_solarize_and_posterize_are_those_of_pillow(strength):
    image = picture()
    pil = Image.fromarray(image.permute(1, 2, 0).numpy())
    for name, reference in (
        ("solarize", ImageOps.solarize(pil, round(256 * (1 - strength)))),
        ("posterize", ImageOps.posterize(pil, 8 - round(4 * strength))),
    ):
        ours = DISTORTIONS[name](image, strength, 1.0)
        assert np.array_equal(ours.permute(1, 2, 0).numpy(), np.asarray(reference)), name


def test_motions_go_where_they_say_and_bring_in_grey():
    image = torch.zeros(3, 20, 20, dtype=torch.uint8)
    image[:, 8:12, 8:12] = 255
    right = DISTORTIONS["translate_x"](image, 0.5, 1.0)  # 0.3 * 0.5 * 20 = 3 pixels
    assert torch.equal(right[:, :, 3:], image[:, :, :-3])
    assert (right[:, :, :3] == GREY).all()
    up = DISTORTIONS["translate_y"](image, 1.0, -1.0)
    assert torch.equal(up[:, :-6], image[:, 6:])
    assert (up[:, -6:] == GREY).all()
    turned = DISTORTIONS["rotate"](image, 1.0, 1.0)
    assert (turned[:, 0, 0] == GREY).all()
    assert turned[:, 9:11, 9:11].min() == 255
    # x' = x + 0.3 y about the centre: rows move against each other, the middle stays.
    column = torch.zeros(3, 21, 21, dtype=torch.uint8)
    column[:, :, 10] = 255
    for name, rows in (("shear_x", lambda x: x[0]), ("shear_y", lambda x: x[0].T)):
        sheared = rows(DISTORTIONS[name](column if name == "shear_x" else column.mT, 1.0, 1.0))
        edges = [int(sheared[row].argmax()) for row in (3, 10, 17)]
        assert edges[1] == 10
        assert sorted(abs(edge - 10) for edge in edges) == [0, 2, 2]
        assert edges[0] - 10 == -(edges[2] - 10)


def test_every_distortion_is_drawn_in_both_directions_about_as_often(monkeypatch):
    drawn = []

    def noted(name):
        return lambda x, s, sign: drawn.append((name, sign)) or x

    for name in NAMES:
        monkeypatch.setitem(DISTORTIONS, name, noted(name))
    rng = np.random.default_rng(0)
    image = picture(4)
    for draws in rng.random((2000, DRAWS)):
        distort_strongly(image, draws)
    assert len(drawn) == 2000 * OPERATIONS
    counts = [drawn.count((name, sign)) for name in NAMES for sign in (-1.0, 1.0)]
    expected = len(drawn) / len(counts)
    assert min(counts) > 0.6 * expected
    assert max(counts) < 1.4 * expected


def test_an_image_is_a_function_of_its_numbers_and_is_left_as_it_is():
    image = picture()
    before = image.clone()
    rng = np.random.default_rng(1)
    rows = rng.random((20, DRAWS))
    first = [distort_strongly(image, row) for row in rows]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert all(
        torch.equal(x, distort_strongly(image, row)) for x, row in zip(first, rows, strict=True)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(image, before)
    assert len({x.numpy().tobytes() for x in first}) == 20


@pytest.mark.parametrize("extreme", [0.0, np.nextafter(1, 0)])
def test_the_first_and_the_last_numbers_are_of_use(extreme):
    out = distort_strongly(picture(), np.full(DRAWS, extreme))
    assert out.dtype == torch.uint8


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_threads_changes_nothing(name):
    """Workers have one thread, the process that trains has several; the images are large enough."""
    image = torch.randint(0, 256, (3, 299, 301), dtype=torch.uint8)
    threads = torch.get_num_threads()
    made = []
    try:
        for count in (1, 4):
            torch.set_num_threads(count)
            made.append(DISTORTIONS[name](image, 0.6, -1.0))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*made)


def test_a_square_of_the_drawn_size_is_cut_out_in_all_channels():
    image = torch.zeros(3, 40, 40, dtype=torch.uint8)
    for size in (0.25, 0.5, 0.9999):
        out = distort_strongly(image, draws_of("identity", cut=size))
        side = round(size * CUTOUT * 40)
        rows, columns = (out[0] == GREY).nonzero().T
        assert (out == out[:1]).all()
        assert len(rows) == side**2
        for places in (rows, columns):
            assert places.min() == round(20 - side / 2)
            assert places.max() == places.min() + side - 1


def test_no_size_cuts_nothing():
    image = picture()
    assert torch.equal(distort_strongly(image, draws_of("identity", cut=0.0)), image)


def test_a_square_at_the_edge_is_cut_off_there():
    image = torch.zeros(1, 40, 40, dtype=torch.uint8)
    draws = draws_of("identity", cut=0.9999)
    draws[-2:] = 0.0, np.nextafter(1, 0)
    out = distort_strongly(image, draws)
    assert (out[0, :10, 30:] == GREY).all()
    assert (out == GREY).sum() == 100


def test_of_a_wide_image_the_shorter_side_decides():
    image = torch.zeros(3, 20, 80, dtype=torch.uint8)
    out = distort_strongly(image, draws_of("identity", cut=0.9999))
    assert (out[0] == GREY).sum() == 100


def test_what_an_image_takes_is_shown():
    """No bound, since machines differ: read it with ``-s``."""
    rows = np.random.default_rng(0).random((32, DRAWS))
    for side in (32, 224):
        image = picture(side)
        start = time.perf_counter()
        for row in rows:
            distort_strongly(image, row)
        print(f"{side} px: {1000 * (time.perf_counter() - start) / len(rows):.2f} ms per image")
