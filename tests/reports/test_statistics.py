import itertools

import numpy as np
import pytest
from scipy import stats

from da.reports.statistics import on_tasks_like_these, sampling_error, summary, wilcoxon


def samples(n, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(0.9, 0.02, n).tolist(), generator.normal(0.88, 0.03, n).tolist()


def test_summary_against_numpy():
    values, _ = samples(7)
    found = summary(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.std == pytest.approx(np.std(values, ddof=1))
    assert summary([0.5]).std is None


@pytest.mark.parametrize("n", [3, 6, 20])
def test_on_tasks_like_these_against_scipy(n):
    a, b = samples(n, n)
    found = on_tasks_like_these([x - y for x, y in zip(a, b, strict=True)])
    reference = stats.ttest_rel(a, b)
    interval = reference.confidence_interval(0.95)
    assert found.p == pytest.approx(reference.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.freedom == n - 1


@pytest.mark.parametrize("differences", [[0.1], [0.10, 0.11]])
def test_one_or_two_tasks_say_nothing_of_others_and_get_no_mark(differences):
    found = on_tasks_like_these(differences)
    assert (found.low, found.p, found.sign, found.detectable) == (None, None, 0, None)
    assert found.reason in ("1 task", "2 tasks")


def test_differences_that_are_equal_but_for_rounding_are_not_testable():
    equal = on_tasks_like_these([0.3 - 0.2, 0.9 - 0.8, 0.1])  # a width of 0 would claim certainty
    assert equal.low is None
    assert equal.sign == 0
    assert "equal" in equal.reason


def test_sign_is_that_of_an_interval_without_zero():
    assert on_tasks_like_these([0.41, 0.41, 0.405]).sign == 1
    assert on_tasks_like_these([-0.41, -0.41, -0.405]).sign == -1
    assert on_tasks_like_these([-0.1, 0.3, 0.0]).sign == 0


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
