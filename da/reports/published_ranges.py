"""How far published sources disagree, and whether ours lie within: absolute, and as gains.

Code bases that report the same method on the same tasks differ by several points, so a band around
the number of one is no band. What a method gains over the same code's source-only training says
more of the method, and less of crops, selection and learning rates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from da.engine.result import Selection
from da.grids.plan import Plan
from da.reports.published_comparison import (
    POINTS,
    Group,
    group_of,
    named_selection,
    percent_on_target,
)
from da.reports.references import AVERAGE, BASE, MEANS, Reference, same_task
from da.reports.runs import Run
from da.reports.statistics import Summary, summary


@dataclass(frozen=True)
class Published:
    """What one source has of a method.

    Attributes:
        reference: its number.
        gain: over its own source-only training, in points; None where it has none.
    """

    reference: Reference
    gain: float | None


@dataclass(frozen=True)
class Range:
    """One method on one task, or on the average over all, under one metric; in percent.

    Attributes:
        ours: at ``selection``, over seeds.
        our_gain: over our source-only training with the same normaliser and rate, over the seeds
            that both have; None where one is missing.
        selection: that of the number whose settings are ours; where there is none, the one that
            all sources share which name one of ours, else the last epoch.
        sources: what is published, ours being compared with all of it.
    """

    group: Group
    task: str
    label: str
    metric: str
    selection: Selection
    ours: Summary | None
    our_gain: Summary | None
    sources: tuple[Published, ...]

    @property
    def values(self) -> list[float]:
        """The numbers of all sources."""
        return [source.reference.value for source in self.sources]

    @property
    def gains(self) -> list[float]:
        """The gains of those sources that have a source-only number."""
        return [source.gain for source in self.sources if source.gain is not None]


def distance(ours: Summary | None, values: Sequence[float]) -> float | None:
    """How far ours is outside the range of some values, 0 within; None where it can't be said."""
    if ours is None or not values:
        return None
    return max(min(values) - ours.mean, ours.mean - max(values), 0.0)


def tolerance(ours: Summary) -> float:
    """max(2 standard errors of our mean, 1.5 points), as for single numbers."""
    return max(2 * (ours.std or 0.0) / math.sqrt(ours.n), POINTS)


def inside(ours: Summary | None, values: Sequence[float]) -> bool | None:
    """Whether ours is within the range, up to the tolerance; None where it can't be said."""
    beyond = distance(ours, values)
    if ours is None or beyond is None:
        return None
    return round(beyond, 6) <= tolerance(ours)


def ranges(plan: Plan, runs: Sequence[Run], references: Sequence[Reference]) -> list[Range]:
    """The ranges of every method and normaliser, per task and on average, where any is published.

    Args:
        plan: of the grid.
        runs: its runs.
        references: of the benchmark; those with a ``band`` make the ranges.
    """
    metrics = [m for m in MEANS if any(r.metric == m for r in references if r.band)]
    found = []
    for group in dict.fromkeys(map(group_of, runs)):
        for metric in metrics:
            # What papers are quoted with is of the metric that is named first.
            quoted = metric == metrics[0]
            about = [
                r
                for r in references
                if r.band and (r.metric == metric or (quoted and r.metric == "paper"))
            ]
            tasks = [*plan.tasks, AVERAGE] if len(plan.tasks) > 1 else plan.tasks
            found += [_range(group, metric, task, plan, runs, about) for task in tasks]
    return [each for each in found if each.sources]


def _range(
    group: Group,
    metric: str,
    task: str,
    plan: Plan,
    runs: Sequence[Run],
    about: Sequence[Reference],
) -> Range:
    theirs = [r for r in about if r.band == group[0] and same_task(r.task, task)]
    base = [r for r in about if r.band == BASE and same_task(r.task, task)]
    selection = _selection(theirs)
    tasks = plan.tasks if task == AVERAGE else [task]
    if task == AVERAGE and len(tasks) != len({r.task for r in about} - {AVERAGE}):
        theirs = []  # an average over other tasks
    ours = _by_seed(group, tasks, metric, selection, runs)
    ours_base = _by_seed((BASE, *group[1:]), tasks, metric, selection, runs)
    both = [ours[seed] - ours_base[seed] for seed in ours if seed in ours_base]
    return Range(
        group,
        task,
        next((r.label for r in about if same_task(r.task, task)), task),
        metric,
        selection,
        summary(list(ours.values())) if ours else None,
        summary(both) if both and group[0] != BASE else None,
        tuple(Published(r, None if group[0] == BASE else _gain(r, base)) for r in theirs),
    )


def _selection(theirs: Sequence[Reference]) -> Selection:
    """At which of our selections a method is held against its sources, see :class:`Range`."""
    of_ours = {named_selection(r) for r in theirs if r.ours} - {None}
    shared = of_ours or {named_selection(r) for r in theirs} - {None}
    return (shared.pop() if len(shared) == 1 else None) or "last"


def _by_seed(
    group: Group, tasks: Sequence[str], metric: str, selection: Selection, runs: Sequence[Run]
) -> dict[int, float]:
    """The mean over the tasks, in percent, of each seed that has all of them."""
    values: dict[int, list[float]] = {}
    for run in runs:
        cell = run.entry.cell
        if group_of(run) == group and cell.task in tasks:
            value = percent_on_target(run, selection, metric)
            values.setdefault(cell.seed, []).extend([] if value is None else [value])
    whole = {seed: of_seed for seed, of_seed in values.items() if len(of_seed) == len(tasks)}
    return {seed: sum(of_seed) / len(of_seed) for seed, of_seed in whole.items()}


def _gain(of: Reference, base: Sequence[Reference]) -> float | None:
    """Over the source-only number of the same source, and of the same kind (quoted or rerun)."""
    same = [
        r.value
        for r in base
        if r.source == of.source and (r.metric == "paper") == (of.metric == "paper")
    ]
    return round(of.value - same[0], 6) if same else None
