import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from da.ops.rank_correlation import weighted_spearman


def by_hand(scores, accuracies, power):
    """The published definition in plain loops."""

    def dense(values):
        levels = sorted(set(values))
        return [(levels.index(v) + 1) / len(levels) for v in values]

    weights = [max(a, b) ** power for a, b in zip(dense(scores), dense(accuracies), strict=True)]

    def ranks(values):
        found = []
        for v in values:
            below = sum(w for u, w in zip(values, weights, strict=True) if u < v)
            equal = [w for u, w in zip(values, weights, strict=True) if u == v]
            found.append(below + (len(equal) + 1) / 2 * sum(equal) / len(equal))
        return found

    def centred(values):
        mean = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
        return [v - mean for v in values]

    x, y = centred(ranks(scores)), centred(ranks(accuracies))

    def product(a, b):
        return sum(w * i * j for w, i, j in zip(weights, a, b, strict=True))

    return product(x, y) / math.sqrt(product(x, x) * product(y, y))


@pytest.mark.parametrize("power", [0, 1, 2])
def test_it_is_the_published_definition_also_with_ties_and_spearmans_without_weights(power):
    random = np.random.default_rng(0)
    for n in (2, 5, 30):
        scores, accuracies = random.normal(size=n).round(1), random.random(n).round(1)
        scores[0], accuracies[0] = 9, 9  # neither is constant
        found = weighted_spearman(scores, accuracies, power)
        assert found == pytest.approx(by_hand(list(scores), list(accuracies), power))
        if power == 0:
            assert found == pytest.approx(spearmanr(scores, accuracies).statistic)


def test_what_goes_wrong_at_the_top_counts_more():
    accuracies = [1, 2, 3, 4, 5, 6]
    top, bottom = [1, 2, 3, 4, 6, 5], [2, 1, 3, 4, 5, 6]
    assert weighted_spearman(top, accuracies) < weighted_spearman(bottom, accuracies) < 1
    assert weighted_spearman(accuracies, accuracies) == pytest.approx(1)
    assert weighted_spearman([-x for x in accuracies], accuracies) < 0


def test_a_constant_ranks_nothing():
    assert weighted_spearman([1, 1, 1], [1, 2, 3]) is None
    assert weighted_spearman([1, 2, 3], [0.5] * 3) is None
    assert weighted_spearman([1], [1]) is None
