"""The level of the whole procedure, check included, in simulated grids."""

import numpy as np
import pytest

from da.benchmarks.error_rates import SCENARIOS, SEEDS, TASKS, rates, stopping_rates
from da.reports.stopping import first_look

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


def bounds(grids, low, high):
    """Bounds for a share, with three standard errors of a share of 5 %."""
    error = 3 * np.sqrt(0.05 * 0.95 / grids)
    return low - error, high + error


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_noise_has_mean_0_and_variance_1(scenario):
    random = np.random.default_rng(0)
    noise = scenario.noise(random, (20_000, 6, 5))
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.var() == pytest.approx(1, rel=0.1)
    if scenario.effects:
        assert scenario.effects(random, (20_000, 6, 1)).var() == pytest.approx(1, rel=0.05)


def test_domains_make_tasks_of_one_source_alike():
    effects = BY_NAME["effects of domains, shared by tasks"].effects(
        np.random.default_rng(0), (20_000, 6, 1)
    )[..., 0]
    correlation = np.corrcoef(effects.T)
    assert correlation[0, 1] == pytest.approx(0.4, abs=0.03)  # a->b and a->c
    assert correlation[0, 2] == pytest.approx(0, abs=0.03)  # a->b and b->a


def test_the_rates_of_a_few_grids_are_about_right():
    found = rates(BY_NAME["equal variances"], 6, 3, grids=5_000)
    for rate in (found.average, found.any_task, found.like):
        assert 0.035 < rate < 0.065
    assert found.check_fails == pytest.approx(0.2, abs=0.03)
    assert rates(BY_NAME["equal variances"], 2, 3, grids=1_000).like is None
    stopped = stopping_rates(BY_NAME["equal variances"], 6, 5, grids=2_000)
    assert 5 < stopped.seeds < 7
    assert stopped.reached > 0.95


def test_a_domain_effect_makes_the_interval_on_tasks_like_these_too_narrow():
    found = rates(BY_NAME["effects of domains, shared by tasks"], 6, 5, grids=5_000)
    assert found.like > 0.07  # which is why the report says so
    assert found.average < 0.06  # the tasks are as they are


@pytest.mark.long
@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("tasks", TASKS)
def test_the_level_where_assumptions_hold_and_where_variances_differ(tasks, seeds):
    grids = 40_000
    for scenario in (s for s in SCENARIOS if s.kind != "violated"):
        found = rates(scenario, tasks, seeds, grids)
        holds = scenario.kind == "holds"
        low, high = bounds(grids, 0.04 if holds else 0.0, 0.06)
        for rate in (found.average, found.any_task, found.like):
            assert rate is None or low < rate < high, found


@pytest.mark.long
@pytest.mark.parametrize("tasks", TASKS)
@pytest.mark.parametrize("later", [1.0, 1.5])
def test_the_level_where_a_grid_stops_early(tasks, later):
    grids = 20_000
    for scenario in (s for s in SCENARIOS if s.kind == "holds"):
        found = stopping_rates(scenario, tasks, round(later * first_look(tasks)), grids)
        low, high = bounds(grids, 0.04, 0.06)
        assert low < found.average < high, found
        assert low < found.any_task < high, found
