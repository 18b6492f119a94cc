"""Our numbers beside the published ones: per task, at the selection that the number used."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from da.engine.result import SELECTIONS, Scores, Selection
from da.grids.plan import Plan
from da.reports.references import AVERAGE, MEANS, Reference, same_task
from da.reports.runs import Run
from da.reports.statistics import Summary, summary

POINTS = 1.5
"""How far ours may be from a published number at least."""

Group = tuple[str, str, str, str]
"""Method, normaliser, kind of learning rate, swept settings."""


@dataclass(frozen=True)
class Line:
    """One task, or the average over all, under one metric; numbers are in percent."""

    group: Group
    task: str
    label: str
    metric: str
    reference: Reference | None
    ours: dict[Selection, Summary | None]
    done: int
    planned: int
    diverged: int = 0

    @property
    def selection(self) -> Selection | None:
        """The selection of the published number, None where it is not stated."""
        return named_selection(self.reference) if self.reference else None

    @property
    def compared(self) -> Summary | None:
        """Our number at that selection."""
        return self.ours[self.selection] if self.selection else None

    @property
    def difference(self) -> float | None:
        """Ours minus the published number."""
        ours = self.compared
        return None if ours is None or self.reference is None else ours.mean - self.reference.value

    @property
    def band(self) -> float:
        """max(2 standard errors of our mean, 1.5 points); of one seed there is no error."""
        ours = self.compared
        if ours is None or ours.std is None:
            return POINTS
        return max(2 * ours.std / math.sqrt(ours.n), POINTS)

    @property
    def inside(self) -> bool | None:
        """Whether ours is within the band, None where it can't be said."""
        # Numbers are published with one decimal: a difference of 1.5 is 1.5.
        return None if self.difference is None else round(abs(self.difference), 6) <= self.band


def named_selection(reference: Reference) -> Selection | None:
    """The selection of a published number, where it is one of ours."""
    return next((s for s in get_args(Selection) if s == reference.selection), None)


def group_of(run: Run) -> Group:
    """What one table is of."""
    entry = run.entry
    swept = ", ".join(f"{k.removeprefix('model.')} {v}" for k, v in entry.point.items())
    return entry.cell.method, entry.cell.norm, entry.row, swept


def compare(plan: Plan, runs: Sequence[Run], references: Sequence[Reference]) -> list[Line]:
    """Every task of every method and normaliser beside its published number, then the average."""
    metrics = [m for m in MEANS if any(r.metric == m and r.task != AVERAGE for r in references)]
    lines = []
    for group in dict.fromkeys(map(group_of, runs)):
        mine = [run for run in runs if group_of(run) == group]
        for metric in metrics:
            tasks = [
                _line(
                    group, task, metric, [r for r in mine if r.entry.cell.task == task], references
                )
                for task in plan.tasks
            ]
            lines += tasks
            if len(tasks) > 1:
                lines.append(_average(group, metric, tasks, mine, references))
    return lines


def _find_reference(
    references: Sequence[Reference], method: str, task: str, metric: str
) -> Reference | None:
    of_method = (r for r in references if r.ours == method and r.metric == metric)
    return next((r for r in of_method if same_task(r.task, task)), None)


def _value(run: Run, selection: Selection, of: Callable[[Scores], Any]) -> Any:
    """What a run's selected epoch has on the target's test images, None without a result."""
    chosen = run.selected("", selection)
    return None if chosen is None else of(chosen.forms[""]["target/test"])


def percent_on_target(run: Run, selection: Selection, metric: str) -> float | None:
    """The target's test accuracy of a run at a selection, in percent; None without a result."""
    accuracy = _value(run, selection, lambda scores: getattr(scores, metric))
    return None if accuracy is None else 100 * accuracy


def _whole(values: Sequence[float | None]) -> Summary | None:
    """The mean over all seeds; none where one is missing, since sets would be unequal."""
    present = [value for value in values if value is not None]
    return summary(present) if present and len(present) == len(values) else None


def _line(
    group: Group, task: str, metric: str, runs: list[Run], references: Sequence[Reference]
) -> Line:
    published = _find_reference(references, group[0], task, metric)
    label = next((r.label for r in references if same_task(r.task, task)), task)
    return Line(
        group,
        task,
        label,
        metric,
        published,
        {s: _whole([percent_on_target(run, s, metric) for run in runs]) for s in SELECTIONS},
        done=sum(run.result is not None for run in runs),
        planned=len(runs),
        diverged=sum(run.state == "diverged" for run in runs),
    )


def _average(
    group: Group, metric: str, lines: list[Line], runs: list[Run], references: Sequence[Reference]
) -> Line:
    """Over tasks, seed by seed; only where every task is whole, and the published one has all."""
    theirs = _find_reference(references, group[0], AVERAGE, metric)
    tasks = {r.task for r in references if r.ours == group[0] and r.metric == metric} - {AVERAGE}
    equal = len(tasks) == len(lines) and all(line.reference for line in lines)
    ours: dict[Selection, Summary | None] = {}
    for selection in SELECTIONS:
        seeds: dict[int, list[float]] = {}
        for run in runs:
            value = percent_on_target(run, selection, metric)
            if value is not None:
                seeds.setdefault(run.entry.cell.seed, []).append(value)
        whole = all(line.ours[selection] for line in lines)
        means = [sum(v) / len(v) for v in seeds.values()]
        ours[selection] = summary(means) if whole and means else None
    complete = sum(line.done == line.planned for line in lines)
    return Line(
        group,
        AVERAGE,
        f"average ({complete} of {len(lines)} tasks)",
        metric,
        theirs if equal else None,
        ours,
        done=sum(line.done for line in lines),
        planned=sum(line.planned for line in lines),
        diverged=sum(line.diverged for line in lines),
    )


def other_images(plan: Plan, runs: Sequence[Run]) -> list[str]:
    """Targets that were tested on another number of images than is published, in words."""
    differences = {}
    for run in runs:
        domain = run.entry.cell.target
        count = _value(run, "last", lambda scores: scores.n)
        published = plan.images.get(domain, count)
        if count is not None and count != published:
            differences[domain] = (
                f"target '{domain}' was tested on {count:,} images, published are {published:,}: "
                "its numbers are not those of the published set"
            )
    return list(differences.values())


@dataclass(frozen=True)
class ClassLine:
    """One class of the target at the selection of the published number, in percent."""

    group: Group
    task: str
    name: str
    published: float | None
    ours: Summary | None


def classes(plan: Plan, runs: Sequence[Run], references: Sequence[Reference]) -> list[ClassLine]:
    """The target's classes one by one, by name, where they are published.

    Those that are published come first, in their order, then those that only our target has.
    """
    lines = []
    for task in plan.tasks:
        about = [r for r in references if same_task(r.task, task) and r.metric[:6] == "class:"]
        published = list(dict.fromkeys(r.metric[6:] for r in about))
        for group in dict.fromkeys(map(group_of, runs)) if published else ():
            mine = [r for r in runs if group_of(r) == group and r.entry.cell.task == task]
            accuracies = [_by_class(run) for run in mine]
            ours = dict.fromkeys(name for by_name in accuracies for name in by_name)
            for name in [*published, *(name for name in ours if name not in published)]:
                theirs = [r.value for r in about if (r.ours, r.metric[6:]) == (group[0], name)]
                seeds = [by_name.get(name) for by_name in accuracies]
                number = theirs[0] if theirs else None
                lines.append(ClassLine(group, task, name, number, _whole(seeds)))
    return lines


def _by_class(run: Run) -> dict[str, float | None]:
    """The accuracy of each class at the oracle's epoch, in percent; empty without a result."""
    per_class = _value(run, "oracle", lambda scores: scores.per_class) or {}
    return {name: None if value is None else 100 * value for name, value in per_class.items()}
