"""A challenger against a baseline: both questions, per task and on average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from da.reports.fixed_tasks import CONFIDENCE, on_these_tasks
from da.reports.power import detectable_in_a_task, detectable_mean
from da.reports.runs import Column
from da.reports.statistics import Paired, SignedRank, on_tasks_like_these, wilcoxon


@dataclass(frozen=True)
class Spread:
    """How differences vary over seeds, and what follows for the intervals on these tasks."""

    deviations: tuple[float, ...]
    """Of each task."""
    pooled: float
    check: float | None
    """Bartlett's p-value; None of one task."""
    fair: bool
    """The variance is pooled."""
    in_a_task: tuple[float, ...]
    """Detectable in each task; where the variance is pooled, the same in all."""


@dataclass(frozen=True)
class Comparison:
    """Paired differences of one method at one point, by task."""

    tasks: dict[str, Paired]
    """On these tasks, with simultaneous intervals."""
    average: Paired | None
    """On these tasks; None without a task."""
    like: Paired | None
    """On tasks like these."""
    signed_rank: SignedRank | None
    """On tasks like these."""
    spread: Spread | None
    """None where no difference varies over seeds."""


@dataclass(frozen=True)
class Difference:
    """The challenger minus a baseline in one line of a table."""

    challenger: Column
    baseline: Column
    these: Paired | None
    """On these tasks: seeds vary, tasks and test images are fixed."""
    like: Paired | None = None
    """On tasks like these: tasks vary. Of an average alone."""
    signed_rank: SignedRank | None = None
    spread: Spread | None = field(default=None, repr=False)
    """Of an average, and of a line of the only task."""

    @property
    def name(self) -> str:
        """``wa - bn``."""
        return f"{self.challenger} - {self.baseline}"


def compare(differences: Mapping[str, Sequence[float]], families: int = 1) -> Comparison:
    """Both questions about one challenger and one baseline.

    Args:
        differences: paired over seeds, by task; equally many for each.
        families: how many such comparisons are shown in one table (Bonferroni).
    """
    if not differences:
        return Comparison({}, None, None, None, None)
    values = np.array(list(differences.values()), dtype=np.float64)
    tasks, seeds = values.shape
    found = on_these_tasks(values, families)
    means = [float(mean) for mean in found.means]
    like, rank = on_tasks_like_these(means), wilcoxon(means)
    average = float(found.average)
    if not np.isfinite(found.half):
        reason = "one seed" if seeds == 1 else f"the {seeds} differences are equal"
        if tasks > 1 and seeds > 1:
            reason = f"in no task do the {seeds} differences differ"
        untested = {
            t: Paired(seeds, m, reason=reason) for t, m in zip(differences, means, strict=True)
        }
        return Comparison(untested, Paired(seeds, average, reason=reason), like, rank, None)
    fair, alpha = bool(found.fair), (1 - CONFIDENCE) / families
    pooled, deviations = float(found.pooled), [float(s) for s in found.deviations]
    seen_in = [
        detectable_in_a_task(pooled, tasks, seeds, alpha, own=None if fair else own)
        for own in deviations
    ]
    return Comparison(
        {
            task: Paired(seeds, mean, mean - half, mean + half, detectable=seen)
            for task, mean, half, seen in zip(
                differences, means, map(float, found.halves), seen_in, strict=True
            )
        },
        _average(average, float(found.half), float(found.error), float(found.freedom), seeds),
        like,
        rank,
        Spread(
            tuple(deviations),
            pooled,
            None if tasks == 1 else float(found.check),
            fair,
            tuple(seen_in),
        ),
    )


def _average(mean: float, half: float, error: float, freedom: float, seeds: int) -> Paired:
    from scipy.special import stdtr

    return Paired(
        seeds,
        mean,
        mean - half,
        mean + half,
        p=2 * float(stdtr(freedom, -abs(mean) / error)),
        freedom=freedom,
        detectable=detectable_mean(error, freedom),
    )
