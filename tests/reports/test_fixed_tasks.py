"""Intervals on these tasks: against scipy, at their limits, and their level in simulation."""

import numpy as np
import pytest
from scipy import stats

from da.reports.differences import compare
from da.reports.fixed_tasks import bartlett, critical_value, on_these_tasks, own_quantiles


def grids(tasks, seeds, number=1, seed=0):
    return np.random.default_rng(seed).normal(0.05, 0.03, (number, tasks, seeds))


def equal_spread(tasks, seeds):
    """Differences of which every task has the same deviation: nothing to see for the check."""
    values = grids(tasks, seeds)[0]
    values -= values.mean(-1, keepdims=True)
    return 0.02 * values / values.std(-1, ddof=1, keepdims=True) + np.arange(tasks)[:, None] / 100


def test_the_average_of_one_task_is_the_paired_t_test():
    values = grids(1, 5)[0]
    interval = stats.ttest_1samp(values[0], 0).confidence_interval(0.95)
    found = on_these_tasks(values)
    assert found.average - found.half == pytest.approx(interval.low)
    assert found.means[0] + found.halves[0] == pytest.approx(interval.high)
    assert np.isnan(found.check)


def test_the_average_with_a_pooled_variance_is_that_of_a_linear_model():
    values = equal_spread(4, 5)
    found = on_these_tasks(values)
    assert found.fair
    assert found.freedom == 16
    # Ordinary least squares with one mean per task, and the contrast that averages them.
    design = np.kron(np.eye(4), np.ones((5, 1)))
    residuals = values.ravel() - design @ np.linalg.lstsq(design, values.ravel())[0]
    variance = residuals @ residuals / (20 - 4)
    contrast = np.full(4, 0.25)
    error = np.sqrt(variance * contrast @ np.linalg.inv(design.T @ design) @ contrast)
    assert found.half == pytest.approx(stats.t.ppf(0.975, 16) * error)


def test_welchs_form_of_two_tasks_is_scipys_test_of_two_samples():
    values = np.array([[0.0, 0.1, 0.2, 0.05], [0.3, 1.9, -1.0, 0.7]])
    found = on_these_tasks(values)
    assert not found.fair
    # The mean of two tasks is half the difference of the first and the negated second.
    welch = stats.ttest_ind(values[0], -values[1], equal_var=False).confidence_interval(0.95)
    assert found.average - found.half == pytest.approx(welch.low / 2)
    assert found.average + found.half == pytest.approx(welch.high / 2)


@pytest.mark.parametrize(("tasks", "seeds"), [(2, 3), (6, 5)])
def test_bartlett_against_scipy(tasks, seeds):
    values = grids(tasks, seeds, 1, tasks)[0]
    reference = stats.bartlett(*values).pvalue
    assert bartlett(values.var(-1, ddof=1), seeds) == pytest.approx(reference)
    assert bartlett(np.array([0.0, 1.0]), seeds) == 0


def test_without_their_own_deviations_tasks_have_the_studentised_maximum_modulus():
    # At a level of 0 the check never fails; with many seeds a task's own deviation is the pooled
    # one, and its quantile for one interval is below that for all: only the maximum counts.
    tasks, seeds = 4, 40
    freedom = tasks * (seeds - 1)
    c = critical_value(tasks, seeds, 0.05, check_level=0.0)
    joint = stats.multivariate_t(np.zeros(tasks), np.eye(tasks), df=freedom, seed=0)
    inside = joint.cdf(np.full(tasks, c), lower_limit=np.full(tasks, -c), maxpts=200_000)
    assert inside == pytest.approx(0.95, abs=0.001)


def test_the_critical_value_is_below_that_of_the_maximum_alone_and_above_one_interval():
    for seeds in (3, 5, 10):
        c = critical_value(6, seeds, 0.05)
        assert c < stats.studentized_range.ppf(0.95, 6, 6 * (seeds - 1))
        assert c > stats.norm.ppf(0.975)


def test_a_task_that_varies_more_has_a_wider_interval():
    values = equal_spread(6, 3)
    values[0] = values[0].mean() + 30 * (values[0] - values[0].mean())
    found = on_these_tasks(values)
    assert not found.fair
    own = own_quantiles(6, 3, 0.05)[1] * values[0].std(ddof=1) / np.sqrt(3)
    assert found.halves[0] == pytest.approx(own)
    assert own_quantiles(6, 3, 0.05)[1] == pytest.approx(
        stats.t.ppf(1 - (1 - 0.95 ** (1 / 6)) / 2, 2)
    )


def test_several_families_are_corrected_for():
    values = equal_spread(1, 5)
    one, three = on_these_tasks(values), on_these_tasks(values, families=3)
    ratio = stats.t.ppf(1 - 0.05 / 6, 4) / stats.t.ppf(0.975, 4)
    assert three.halves / one.halves == pytest.approx(ratio)
    assert three.half == one.half


@pytest.mark.parametrize(
    ("differences", "reason"),
    [
        ({"a": [0.1], "b": [0.2]}, "one seed"),
        ({"a": [0.3 - 0.2, 0.1]}, "the 2 differences are equal"),
        ({"a": [0.1, 0.1], "b": [0.2, 0.2]}, "in no task do the 2 differences differ"),
    ],
)
def test_what_cannot_be_tested_says_why(differences, reason):
    found = compare(differences)
    assert found.average.reason == reason
    assert found.average.low is None
    assert all(paired.reason == reason for paired in found.tasks.values())


def test_a_task_whose_seeds_agree_is_not_taken_for_certain():
    found = compare({"a": [0.5, 0.5, 0.5], "b": [0.1, 0.2, 0.15], "c": [0.3, 0.25, 0.2]})
    assert not found.spread.fair
    assert found.tasks["a"].high - found.tasks["a"].low > 0.05


def test_true_differences_that_cancel_are_no_news_for_the_average_on_these_tasks():
    # What a test over task means rejects in 0.07 % of grids where it should in 5 %.
    effects = np.array([0.08, -0.08, 0.05, -0.05, 0.1, -0.1])[:, None]
    found = on_these_tasks(effects + np.random.default_rng(1).normal(0, 0.05, (20_000, 6, 5)))
    assert 0.04 < (abs(found.average) > found.half).mean() < 0.06


@pytest.mark.parametrize(("tasks", "seeds"), [(2, 3), (6, 3), (6, 5)])
def test_the_whole_procedure_keeps_its_level(tasks, seeds):
    values = np.random.default_rng(3).normal(size=(20_000, tasks, seeds))
    found = on_these_tasks(values)
    assert 0.04 < (abs(found.average) > found.half).mean() < 0.06
    assert 0.045 < (abs(found.means) > found.halves).any(-1).mean() < 0.055
    unequal = on_these_tasks(values * np.geomspace(1, 3, tasks)[:, None])
    assert (abs(unequal.means) > unequal.halves).any(-1).mean() < 0.06
