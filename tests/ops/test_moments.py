import numpy as np
import pytest
import torch

from da.ops.moments import (
    ChannelMoments,
    Spread,
    channel_distance,
    deviation_ratio,
    domain_gap,
    mixing_share,
)


def moments_of(batches, channels=1):
    found = ChannelMoments()
    for batch in batches:
        found.update(batch, channels)
    return found.spread


@pytest.mark.parametrize("shape", [(40, 5), (40, 5, 7), (40, 5, 3, 7), (40, 1, 1, 1)])
@pytest.mark.parametrize("sizes", [[40], [1, 39], [16, 16, 8], [1] * 40])
def test_batches_merge_to_numpys_moments_of_all(shape, sizes):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 - 1
    found = moments_of(x.split(sizes))
    axes = tuple(d for d in range(x.dim()) if d != 1)
    whole = x.double().numpy()
    np.testing.assert_allclose(found.mean, whole.mean(axes), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.std, whole.std(axes), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("channels", [-1, 2, 3])
def test_channels_may_be_any_dimension(channels):
    x = torch.randn(6, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    found = moments_of(x.split(4), channels)
    axes = tuple(d for d in range(4) if d != channels % 4)
    np.testing.assert_allclose(found.mean, x.double().numpy().mean(axes), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.std, x.double().numpy().std(axes), rtol=1e-6)


def test_a_small_deviation_on_a_large_mean_survives():
    """Sums of squares in float32 would give a deviation of 0 or nan here."""
    x = (4096 + torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)).double()).float()
    found = moments_of(x.split(7))
    np.testing.assert_allclose(found.std, x.double().numpy().std(0), rtol=1e-4)
    np.testing.assert_allclose(found.mean, x.double().numpy().mean(0), rtol=1e-7)
    naive = (x.square().mean(0) - x.mean(0).square()).numpy()
    assert np.abs(naive - 1).max() > 0.1


def test_half_precision_is_measured_in_float32():
    x = torch.full((64, 2, 64, 64), 0.1).bfloat16() * torch.tensor([1, -1]).view(1, 2, 1, 1)
    found = moments_of([x, x])
    exact = x[0, :, 0, 0].double()
    np.testing.assert_allclose(found.mean, exact, rtol=1e-6)
    np.testing.assert_allclose(found.std, 0, atol=1e-6)


def test_gaps_are_those_of_the_formula_channel_by_channel():
    random = np.random.default_rng(0)
    a, b = (Spread(*torch.from_numpy(random.uniform(0.5, 2, (2, 9)))) for _ in range(2))
    gap, away, product = 0.0, 0.0, 1.0
    for c in range(9):
        sigma = np.sqrt((a.std[c] ** 2 + b.std[c] ** 2) / 2)
        gap += abs(a.mean[c] - b.mean[c]) / sigma / 9
        away += abs(a.mean[c] - 0.3) / sigma / 9
        product *= b.std[c] / a.std[c]
    assert domain_gap(a, b) == pytest.approx(float(gap))
    assert channel_distance(a.mean, torch.full((9,), 0.3), a, b) == pytest.approx(float(away))
    assert deviation_ratio(b.std, a.std) == pytest.approx(float(product) ** (1 / 9))
    assert domain_gap(b, a) == pytest.approx(domain_gap(a, b))
    assert domain_gap(a, a) == 0
    assert deviation_ratio(a.std, a.std) == 1


def test_constant_channels_are_left_out():
    a = Spread(torch.tensor([0.0, 5.0]), torch.tensor([1.0, 0.0]))
    b = Spread(torch.tensor([2.0, 7.0]), torch.tensor([1.0, 0.0]))
    assert domain_gap(a, b) == 2
    assert deviation_ratio(a.std, b.std) == 1
    dead = Spread(torch.zeros(2), torch.zeros(2))
    assert np.isnan(domain_gap(dead, dead))
    assert np.isnan(deviation_ratio(dead.std, a.std))


@pytest.mark.parametrize("t", [-0.5, 0.0, 0.3, 1.0])
def test_the_share_of_a_mixture_is_found_whatever_the_direction_of_a_channel(t):
    random = np.random.default_rng(0)
    means, stds = random.normal(size=(2, 30)), random.uniform(0.1, 3, (2, 30))
    a, b = (Spread(*map(torch.from_numpy, pair)) for pair in zip(means, stds, strict=True))
    assert mixing_share((1 - t) * a.mean + t * b.mean, a, b) == pytest.approx(t)
    # What is no mixture is fitted by least squares in units of the deviation.
    other = torch.from_numpy(random.normal(size=30))
    sigma = np.sqrt((stds**2).mean(0))
    x, y = (means[1] - means[0]) / sigma, (other.numpy() - means[0]) / sigma
    expected = np.linalg.lstsq(x[:, None], y, rcond=None)[0].item()
    assert mixing_share(other, a, b) == pytest.approx(expected)
    assert np.isnan(mixing_share(a.mean, a, a))
