import numpy as np
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional

from datasets.streams.augmentation import (
    CropAndFlip,
    ShiftAndJitter,
    draw_crop_boxes,
    normalise,
    shift_images,
)


def test_shift_agrees_with_a_loop_over_pixels():
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.random((6, 2, 5, 7), dtype=np.float32))
    down, right = rng.integers(-2, 3, 6), rng.integers(-2, 3, 6)
    moved = shift_images(images, down, right, 2)
    for b in range(6):
        for y in range(5):
            for x in range(7):
                y0, x0 = np.clip(y - down[b], 0, 4), np.clip(x - right[b], 0, 6)
                assert torch.equal(moved[b, :, y, x], images[b, :, y0, x0])


def test_normalise_follows_the_formula():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (3, 3, 4, 4), dtype=np.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.5)
    a, b = np.array([0.8, 1.0, 1.2]), np.array([0.1, 0.0, -0.1])
    ours = normalise(torch.from_numpy(images), mean, std, a, b)
    v = (images / 255 - 0.5) * a[:, None, None, None] + 0.5 + b[:, None, None, None]
    expected = (v - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
    assert ours.dtype == torch.float32
    np.testing.assert_allclose(ours.numpy(), expected, atol=2e-6)


def test_each_sample_is_augmented_by_its_own_numbers():
    transform = ShiftAndJitter((0.5,) * 3, (0.5,) * 3)
    image = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8).repeat(40, 1, 1, 1)
    draws = np.random.default_rng(2).random((40, transform.draws))
    whole = transform.train(image, draws)
    assert len(torch.unique(whole.flatten(1), dim=0)) == 40
    assert torch.equal(whole[7:9], transform.train(image[7:9], draws[7:9]))
    assert not torch.equal(whole[0], transform.evaluate(image)[0])


def test_shifts_reach_every_place_and_none_beyond():
    transform = ShiftAndJitter((0.0,), (1.0,), pixels=2, contrast=0, brightness=0)
    image = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    image[0, 0, 4, 4] = 255
    n = 500
    draws = np.random.default_rng(3).random((n, 4))
    out = transform.train(image.repeat(n, 1, 1, 1), draws)
    places = {tuple(place) for place in out[:, 0].nonzero()[:, 1:].tolist()}
    assert places == {(y, x) for y in range(2, 7) for x in range(2, 7)}


def test_edges_of_the_draws_stay_within_the_limits():
    transform = ShiftAndJitter((0.0,), (1.0,), pixels=2)
    images = torch.zeros(2, 1, 9, 9, dtype=torch.uint8)
    draws = np.array([[0.0] * 4, [1 - 2**-53] * 4])
    assert transform.train(images, draws).shape == (2, 1, 9, 9)


def test_the_set_itself_is_not_changed():
    transform = ShiftAndJitter((0.5,) * 3, (0.5,) * 3)
    images = torch.full((2, 3, 8, 8), 9, dtype=torch.uint8)
    transform.train(images, np.full((2, 4), 0.9))
    transform.evaluate(images)
    assert (images == 9).all()


def test_crop_boxes_agree_with_a_loop_over_the_tries():
    draws = np.random.default_rng(4).random((300, 22))
    draws[:20, :10] = 1 - 1e-9  # nearly the whole area: hardly any ratio fits
    boxes = draw_crop_boxes(draws, 40)
    fallbacks = 0
    for (top, left, height, width), u in zip(boxes.tolist(), draws, strict=True):
        h = w = 40
        for k in range(10):
            area = 1600 * (0.08 + 0.92 * u[k])
            aspect = (3 / 4) ** (1 - u[10 + k]) * (4 / 3) ** u[10 + k]
            if max(round((area / aspect) ** 0.5), round((area * aspect) ** 0.5)) <= 40:
                h, w = round((area / aspect) ** 0.5), round((area * aspect) ** 0.5)
                break
        else:
            fallbacks += 1
        assert (height, width) == (h, w)
        assert (top, left) == (int(u[20] * (41 - h)), int(u[21] * (41 - w)))
    assert 0 < fallbacks < 20


def test_crop_boxes_are_distributed_as_those_of_torchvision():
    n = 4000
    ours = draw_crop_boxes(np.random.default_rng(5).random((n, 22)), 64)
    image = torch.zeros(1, 64, 64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = [RandomResizedCrop.get_params(image, [0.08, 1], [3 / 4, 4 / 3]) for _ in range(n)]
    for mine, other in zip(ours.T, np.array(theirs).T, strict=True):
        # 0.043 is where two samples of 4,000 differ with a probability of 1 in 1,000.
        assert ks_2samp(mine, other).statistic < 0.043
    assert (ours[:, :2] + ours[:, 2:] <= 64).all()
    assert (ours[:, 2:] > 0).all()


def test_crops_agree_with_torchvision():
    transform = CropAndFlip((0.4, 0.5, 0.6), (0.2, 0.3, 0.5), size=12)
    rng = np.random.default_rng(6)
    images = torch.from_numpy(rng.integers(0, 256, (8, 3, 40, 40), dtype=np.uint8))
    draws = rng.random((8, transform.draws))
    out = transform.train(images, draws)
    assert out.shape == (8, 3, 12, 12)
    assert out.dtype == torch.float32
    for image, box, u, ours in zip(
        images, draw_crop_boxes(draws[:, :22], 40), draws, out, strict=True
    ):
        expected = functional.resized_crop(image.float() / 255, *box.tolist(), [12, 12],
                                           antialias=True)  # fmt: skip
        if u[22] < 0.5:
            expected = functional.hflip(expected)
        expected = functional.normalize(expected, [0.4, 0.5, 0.6], [0.2, 0.3, 0.5])
        torch.testing.assert_close(ours, expected, atol=1 / 255 / 0.2 + 1e-5, rtol=0)
    assert 0 < (draws[:, 22] < 0.5).sum() < 8


def test_the_centre_is_evaluated():
    transform = CropAndFlip((0.0,), (1 / 255,), size=4)
    images = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8)
    expected = functional.center_crop(images, [4, 4]).float()
    assert torch.equal(transform.evaluate(images), expected)
    assert images[0, 0, 7, 7] == 63


def test_flips_can_be_left_out():
    images = torch.randint(0, 256, (4, 3, 9, 9), dtype=torch.uint8)
    draws = np.full((4, 23), 0.4)
    flipped = CropAndFlip((0.5,) * 3, (0.5,) * 3, 5).train(images, draws)
    plain = CropAndFlip((0.5,) * 3, (0.5,) * 3, 5, flip=False).train(images, draws)
    assert torch.equal(flipped.flip(-1), plain)
    assert not torch.equal(flipped, plain)


def test_each_crop_is_made_by_its_own_numbers():
    transform = CropAndFlip((0.5,) * 3, (0.5,) * 3, 8)
    image = torch.randint(0, 256, (1, 3, 24, 24), dtype=torch.uint8).repeat(20, 1, 1, 1)
    draws = np.random.default_rng(7).random((20, transform.draws))
    whole = transform.train(image, draws)
    assert len(torch.unique(whole.flatten(1), dim=0)) == 20
    assert torch.equal(whole[5:7], transform.train(image[5:7], draws[5:7]))
