import numpy as np
import torch

from datasets.transforms import ShiftAndJitter, normalise, shift


def test_shift_agrees_with_a_loop_over_pixels():
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.random((6, 2, 5, 7), dtype=np.float32))
    down, right = rng.integers(-2, 3, 6), rng.integers(-2, 3, 6)
    moved = shift(images, down, right, 2)
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
