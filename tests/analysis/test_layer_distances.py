import numpy as np
import pytest
import torch

from da.analysis.layer_distances import measure_distances, mixed_kernel, squared_mmd

WIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)


def mmd_by_loops(x, y):
    """The formula of Gretton et al. (2012), pair by pair, with the kernel written out."""
    both = [*x, *y]

    def apart(a, b):
        return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))

    mean = np.mean([apart(a, b) for a in both for b in both])

    def k(a, b):
        return np.mean([np.exp(-apart(a, b) / (2 * width * mean)) for width in WIDTHS])

    m, n = len(x), len(y)
    within_x = sum(k(x[i], x[j]) for i in range(m) for j in range(m) if i != j)
    within_y = sum(k(y[i], y[j]) for i in range(n) for j in range(n) if i != j)
    between = sum(k(a, b) for a in x for b in y)
    return within_x / (m * (m - 1)) + within_y / (n * (n - 1)) - 2 * between / (m * n)


@pytest.mark.parametrize(("m", "n"), [(7, 7), (5, 9)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_the_discrepancy_is_that_of_the_formula(m, n, scale):
    random = np.random.default_rng(0)
    x, y = scale * random.normal(size=(m, 3)), scale * random.normal(0.7, 1, (n, 3)) + scale
    own = np.repeat([True, False], [m, n])[:, None]
    found = squared_mmd(mixed_kernel(torch.from_numpy(np.concatenate([x, y]))), own)
    assert found == pytest.approx([mmd_by_loops(x, y)], rel=1e-9)


def test_it_is_unbiased_within_a_domain_and_large_between_domains_far_apart():
    random = np.random.default_rng(0)
    one = {"conv": torch.from_numpy(random.normal(size=(200, 4))).float()}
    same = {"conv": torch.from_numpy(random.normal(size=(200, 4))).float()}
    far = {"conv": same["conv"] + 50}
    (near,) = measure_distances(one, same, 0)
    assert abs(near.mmd2) < 0.02
    assert 0 < near.chance < 0.02
    (apart,) = measure_distances(one, far, 0)
    assert apart.mmd2 > 0.7
    assert apart.channels == 4
    assert measure_distances(one, far, 0) == [apart]
    assert measure_distances(one, far, 1)[0].mmd2 == apart.mmd2


def test_one_in_twenty_of_equal_domains_is_beyond_chance():
    random = np.random.default_rng(1)
    beyond = 0
    for seed in range(100):
        one, other = ({"x": torch.from_numpy(random.normal(size=(12, 2)))} for _ in range(2))
        (found,) = measure_distances(one, other, seed)
        beyond += found.mmd2 > found.chance
    assert 1 <= beyond <= 12


def test_layers_that_never_vary_and_those_of_one_network_alone():
    dead = {"dead": torch.full((8, 3), 7.1), "more": torch.zeros(8, 1)}
    (found,) = measure_distances(dead, {"dead": torch.full((8, 3), 7.1)}, 0)
    assert (found.layer, found.mmd2, found.chance) == ("dead", pytest.approx(0), pytest.approx(0))
