import math

import pytest
import torch
from made_evidence import evidence

from da.selection import mmd
from da.selection.mmd import MMD
from da.types import Predictions


def score(source, target, seed=0):
    source = {"train": Predictions(torch.zeros(len(source), 2), None, source)}
    return MMD()(evidence(torch.zeros(len(target), 2), target, source, seed))


def by_hand(source, target):
    """The formula as a loop over pairs."""
    x, y = source.double().tolist(), target.double().tolist()
    together = [*x, *y]

    def distance(a, b):
        return sum((i - j) ** 2 for i, j in zip(a, b, strict=True))

    def mean(values):
        return sum(values) / len(values)

    d = mean([distance(a, b) for a in together for b in together])

    def k(a, b):
        return mean([math.exp(-distance(a, b) / (2 * 2.0**e * d)) for e in range(-3, 2)])

    def over(first, second):
        return mean([k(a, b) for a in first for b in second])

    return over(x, x) + over(y, y) - 2 * over(x, y)


@pytest.mark.parametrize(("n", "m"), [(9, 6), (1, 1), (1, 5)])
def test_it_is_minus_the_discrepancy_of_domains_of_any_sizes(n, m):
    generator = torch.Generator().manual_seed(n)
    source = torch.randn(n, 3, generator=generator)
    target = torch.randn(m, 3, generator=generator) + 2
    assert score(source, target) == pytest.approx(-by_hand(source, target), rel=1e-6)


def test_equal_domains_score_0_and_apart_ones_less_whatever_the_scale_of_features():
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(7))
    assert score(x, x) == pytest.approx(0, abs=1e-12)
    near, far = score(x, x + 0.5), score(x, x + 3)
    assert -2 <= far < near < 0
    assert score(100 * x, 100 * (x + 0.5)) == pytest.approx(near, rel=1e-6)


def test_one_feature_for_all_scores_0():
    same = torch.full((5, 3), 0.1)
    assert score(same, same) == 0.0


def test_of_large_domains_so_many_images_are_drawn_by_the_seed(monkeypatch):
    monkeypatch.setattr(mmd, "MOST", 20)
    generator = torch.Generator().manual_seed(8)
    source, target = torch.randn(90, 2, generator=generator), torch.randn(15, 2) + 1
    found = [score(source, target, seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
