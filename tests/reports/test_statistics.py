import itertools
import math

import numpy as np
import pytest
from scipy import stats

from da.reports.statistics import paired_t, sampling_error, summary, wilcoxon


def samples(n, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(0.9, 0.02, n).tolist(), generator.normal(0.88, 0.03, n).tolist()


def test_summary_against_numpy():
    values, _ = samples(7)
    found = summary(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.std == pytest.approx(np.std(values, ddof=1))
    assert summary([0.5]).std is None


@pytest.mark.parametrize("n", [2, 3, 6, 20])
def test_paired_t_against_scipy(n):
    a, b = samples(n, n)
    found = paired_t(a, b)
    reference = stats.ttest_rel(a, b)
    interval = reference.confidence_interval(0.95)
    assert found.p == pytest.approx(reference.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_paired_t_with_two_pairs_in_closed_form():
    # One degree of freedom is Cauchy's distribution: t(0.975) = tan(0.475 pi).
    found = paired_t([1.0, 3.0], [0.0, 0.0])
    assert found.difference == 2
    assert found.high - 2 == pytest.approx(math.tan(0.475 * math.pi))


def test_bonferroni_widens_the_interval_and_scales_p():
    a, b = samples(5)
    reference = stats.ttest_rel(a, b)
    interval = reference.confidence_interval(1 - 0.05 / 6)
    found = paired_t(a, b, comparisons=6)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(min(1, 6 * reference.pvalue))


def test_what_cannot_be_tested_says_why():
    assert paired_t([0.9], [0.8]).reason == "one pair"
    # Differences that are equal but for rounding: an interval of width 0 would claim certainty.
    equal = paired_t([0.3, 0.9], [0.2, 0.8])
    assert equal.low is None
    assert equal.sign == 0
    assert "equal" in equal.reason


def test_sign_is_that_of_an_interval_without_zero():
    assert paired_t([0.91, 0.92, 0.93], [0.5, 0.51, 0.525]).sign == 1
    assert paired_t([0.5, 0.51, 0.525], [0.91, 0.92, 0.93]).sign == -1
    assert paired_t([0.5, 0.9, 0.7], [0.6, 0.6, 0.7]).sign == 0


@pytest.mark.parametrize("n", [6, 9, 14])
def test_wilcoxon_against_scipy(n):
    a, b = samples(n, n)
    differences = (np.array(a) - np.array(b)).tolist()
    reference = stats.wilcoxon(differences, method="exact").pvalue
    assert wilcoxon(differences).p == pytest.approx(reference)


def test_wilcoxon_with_ties_against_all_signs():
    differences = [0.1, 0.1, -0.1, 0.3, 0.3, 0.2, 0.0]
    values = np.array([d for d in differences if d])
    ranks = stats.rankdata(abs(values))
    observed = abs(ranks @ np.sign(values))
    signs = np.array(list(itertools.product([-1, 1], repeat=len(values))))
    assert wilcoxon(differences).p == pytest.approx((abs(signs @ ranks) >= observed - 1e-9).mean())


@pytest.mark.parametrize(("n", "floor"), [(3, "0.25"), (5, "0.0625")])
def test_wilcoxon_is_not_testable_below_six(n, floor):
    found = wilcoxon([0.1 * (i + 1) for i in range(n)])
    assert found.p is None
    assert floor in found.reason
    assert wilcoxon([0.1 * (i + 1) for i in range(6)]).p == pytest.approx(0.03125)
    assert wilcoxon([0.0, 0.0]).p is None


def test_sampling_error():
    assert sampling_error(0.5, 400) == pytest.approx(0.025)
