"""The detectable difference: against scipy's noncentral t, and found in simulation."""

import numpy as np
import pytest
from scipy import stats

from da.reports.fixed_tasks import on_these_tasks
from da.reports.power import detectable_in_a_task, detectable_mean, detectable_shift, planned


@pytest.mark.parametrize(("freedom", "quantile"), [(2, 4.3), (2, 10.8), (4.6, 2.6), (24, 2.06)])
def test_the_shift_against_the_noncentral_t(freedom, quantile):
    shift = detectable_shift(freedom, quantile)
    power = stats.nct.sf(quantile, freedom, shift) + stats.nct.cdf(-quantile, freedom, shift)
    assert power == pytest.approx(0.8, abs=1e-4)


def test_a_grid_finds_what_it_could_detect_in_four_of_five_cases():
    tasks, seeds, deviation = 6, 5, 0.06
    could = planned(tasks, seeds, deviation, 0.08)
    noise = np.random.default_rng(0).normal(0, deviation, (20_000, tasks, seeds))
    found = on_these_tasks(noise + could.average)
    # The average is planned with the pooled variance; the check costs a little power.
    assert (found.average > found.half).mean() == pytest.approx(0.8, abs=0.02)
    shifted = noise.copy()
    shifted[:, 0] += could.task
    found = on_these_tasks(shifted)
    assert (found.means[:, 0] > found.halves[:, 0]).mean() == pytest.approx(0.8, abs=0.02)
    effects = np.random.default_rng(1).normal(could.like, 0.08, (20_000, tasks, 1))
    means = (effects + noise).mean(-1)
    p = stats.ttest_1samp(means, 0, axis=-1).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.02)


def test_one_task_is_a_paired_t_test():
    assert detectable_in_a_task(0.05, 1, 5) == pytest.approx(detectable_mean(0.05 / 5**0.5, 4))


def test_where_pooling_is_unfair_the_deviation_of_the_task_counts():
    calm, wild = (detectable_in_a_task(0.05, 6, 5, own=own) for own in (0.01, 0.2))
    assert calm < detectable_in_a_task(0.05, 6, 5) < wild
    floor = detectable_in_a_task(0.05, 6, 5, own=0.0)
    assert 0 < floor < calm


def test_one_seed_and_two_tasks_detect_nothing():
    could = planned(2, 1, 0.05, 0.1)
    assert (could.average, could.task, could.like) == (None, None, None)
    assert planned(6, 3, 0.05, None).like is None
