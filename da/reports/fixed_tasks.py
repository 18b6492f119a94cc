"""Intervals *on these tasks*: seeds vary, tasks and test images are fixed.

The analysis takes leading axes, so that a simulation runs the very code that makes a report.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95

CHECK_LEVEL = 0.2
"""Level of the check of equal variances. It is meant to fail easily: a difference that it overlooks
costs more than pooling gains (Bancroft 1964 advises .25 for preliminary tests)."""

DRAWS = 20_000
"""Of deviations under equal variances, from which critical values are computed. Over each draw a
smooth probability is averaged, so the error of a level is about .0003."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OnTheseTasks:
    """The analysis of differences with shape (..., T, S); arrays have shape (...) or (..., T).

    Half-widths are nan where no difference varies, or where there is one seed.
    """

    means: Floats
    """Of each task over seeds, (..., T)."""
    halves: Floats
    """Half-widths of simultaneous intervals around them, (..., T)."""
    average: Floats
    """Mean over tasks."""
    half: Floats
    """Half-width of its interval, which is a single one."""
    error: Floats
    """Its standard error, √(Σ s_t² / S) / T."""
    freedom: Floats
    """The degrees of freedom of that error."""
    deviations: Floats
    """Sample standard deviation of each task over seeds, s_t, (..., T)."""
    pooled: Floats
    """Their root mean square, √(Σ s_t² / T)."""
    check: Floats
    """Bartlett's p-value for equal variances of the tasks; nan of one task."""
    fair: NDArray[np.bool_]
    """The check holds."""


def on_these_tasks(
    differences: Any,
    families: int = 1,
    confidence: float = CONFIDENCE,
    check_level: float = CHECK_LEVEL,
) -> OnTheseTasks:
    """Intervals for the average difference and for that of every task.

    *The average.* Its standard error is the same with pooled and with separate variances, since all
    tasks have equally many seeds; the check decides on its degrees of freedom: T (S - 1) where it
    holds, else Satterthwaite's (1946), (Σ s_t²)² / Σ (s_t⁴ / (S - 1)).

    *A task.* Half-width max(c · s, b_t · s_t) / √S with the pooled deviation s and the task's own,
    s_t. b is Student's quantile with S - 1 degrees of freedom, for one interval where the check
    holds and for T independent ones (Šidák 1967) where it fails. c is the number with which all T
    intervals together, check included, hold with the given confidence under equal variances, see
    :func:`critical_value`. So a task that varies more than the others gets no interval on their
    account, also where three seeds can't show that it does.

    Args:
        differences: (..., T, S), paired over seeds: T tasks, S ≥ 1 seeds.
        families: how many such sets of tasks are shown side by side (Bonferroni).
        confidence: of the average alone; of all tasks of all families together.
        check_level: of the check.
    """
    from scipy.special import stdtrit  # much lighter than scipy.stats

    # Accuracies are ratios of counts: differences that are equal but for rounding are equal.
    values = np.round(np.asarray(differences, dtype=np.float64), 12)
    tasks, seeds = values.shape[-2:]
    means = values.mean(-1)
    if seeds < 2:
        variances = np.full_like(means, np.nan)
    else:
        variances = np.where(np.ptp(values, -1) == 0, 0.0, values.var(-1, ddof=1))
    mean_variance = variances.mean(-1)
    testable = mean_variance > 0
    check = bartlett(variances, seeds)
    fair = ~(check <= check_level)  # nan: one task has nothing to check
    deviations, pooled = np.sqrt(variances), np.sqrt(mean_variance)
    error = np.where(testable, pooled / math.sqrt(tasks * seeds), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        separate = (seeds - 1) * variances.sum(-1) ** 2 / (variances**2).sum(-1)
    freedom = np.where(fair, float(tasks * (seeds - 1)), separate)
    half = np.full_like(error, np.nan)
    halves = np.full_like(means, np.nan)
    if seeds > 1:
        half = stdtrit(freedom, (1 + confidence) / 2) * error
        alpha = (1 - confidence) / families
        own = np.where(fair, *own_quantiles(tasks, seeds, alpha))[..., None]
        common = critical_value(tasks, seeds, alpha, check_level) * pooled[..., None]
        halves = np.maximum(common, own * deviations) / math.sqrt(seeds)
        halves = np.where(testable[..., None], halves, np.nan)
    return OnTheseTasks(
        means, halves, means.mean(-1), half, error, freedom, deviations, pooled, check, fair
    )


def bartlett(variances: Floats, seeds: int) -> Floats:
    """Bartlett's (1937) p-value for equal variances, for equally many values each.

    Heavy tails make it fail more often, which costs width and not the level. nan of one variance,
    or where all are 0; 0 where some are.

    Args:
        variances: (..., T), sample variances.
        seeds: how many values each is of.
    """
    from scipy.special import chdtrc

    tasks = variances.shape[-1]
    k = seeds - 1
    if tasks < 2 or k < 1:
        return np.full(variances.shape[:-1], np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = k * (tasks * np.log(variances.mean(-1)) - np.log(variances).sum(-1))
    correction = 1 + (tasks / k - 1 / (tasks * k)) / (3 * (tasks - 1))
    return np.asarray(chdtrc(tasks - 1, np.maximum(statistic, 0) / correction))


def own_quantiles(tasks: int, seeds: int, alpha: float) -> tuple[float, float]:
    """Student's two-sided quantiles with S - 1 degrees of freedom: for one interval, for T."""
    from scipy.special import stdtrit

    of_each = 1 - (1 - alpha) ** (1 / tasks)
    return float(stdtrit(seeds - 1, 1 - alpha / 2)), float(stdtrit(seeds - 1, 1 - of_each / 2))


@cache
def _draws(tasks: int, seeds: int) -> tuple[Floats, Floats, Floats]:
    """Deviations s_t / σ under equal variances (R, T), the pooled one (R, 1), the check (R, 1)."""
    k = seeds - 1
    variances = np.random.default_rng((tasks, seeds)).chisquare(k, (DRAWS, tasks)) / k
    pooled = np.sqrt(variances.mean(-1, keepdims=True))
    return np.sqrt(variances), pooled, bartlett(variances, seeds)[:, None]


def _widths(tasks: int, seeds: int, alpha: float, check_level: float, c: float) -> Floats:
    """Half-widths times √S / σ over the draws, (R, T)."""
    own, pooled, check = _draws(tasks, seeds)
    b = np.where(check <= check_level, *own_quantiles(tasks, seeds, alpha)[::-1])
    return np.maximum(c * pooled, b * own)


@cache
def critical_value(tasks: int, seeds: int, alpha: float, check_level: float = CHECK_LEVEL) -> float:
    """The factor c of the pooled deviation, see :func:`on_these_tasks`.

    The means are independent of the deviations, and of each other. So the probability that all
    intervals hold is E ∏_t (2 Φ(w_t) - 1) over the half-widths w_t, in standard errors; without
    the tasks' own deviations that is the studentised maximum modulus (Stoline & Ury 1979),
    whose quantile is the most that c can be.
    """
    from scipy.special import ndtr

    if tasks == 1:
        return own_quantiles(1, seeds, alpha)[0]

    def excess(c: float) -> float:
        widths = _widths(tasks, seeds, alpha, check_level, c)
        return float(np.prod(2 * ndtr(widths) - 1, axis=-1).mean()) - (1 - alpha)

    return rising_root(excess)


def power_of_a_task(
    tasks: int, seeds: int, alpha: float, shift: float, check_level: float = CHECK_LEVEL
) -> float:
    """The probability that a task's interval excludes 0, under equal variances.

    Args:
        tasks: how many.
        seeds: of each.
        alpha: of all tasks together.
        shift: the true difference over its standard error, δ √S / σ.
        check_level: of the check.
    """
    from scipy.special import ndtr

    c = critical_value(tasks, seeds, alpha, check_level)
    widths = _widths(tasks, seeds, alpha, check_level, c)[:, 0]
    return float((ndtr(shift - widths) + ndtr(-shift - widths)).mean())


def rising_root(function: Callable[[float], float]) -> float:
    """Where a function that rises crosses 0, from 0 on; 0 if it starts above."""
    from scipy.optimize import brentq

    if function(0.0) >= 0:
        return 0.0
    high = 4.0
    while function(high) < 0:
        high *= 2
    return float(brentq(function, 0.0, high, xtol=1e-6))
