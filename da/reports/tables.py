"""The comparison: per task and on average, each normaliser's accuracy and paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from da.engine.result import SELECTIONS, Result, ScoredImages, Selection
from da.grids.grid import Row
from da.grids.plan import Plan
from da.reports.differences import Comparison, Difference, compare
from da.reports.runs import Column, Run, columns
from da.reports.statistics import Summary, sampling_error, summary

Point = dict[str, Any]
Pair = tuple[Column, Column]
"""The challenger and a baseline."""


@dataclass(frozen=True)
class Field:
    """One number of a table: accuracy over seeds, or why there is none."""

    planned: int
    """Seeds to train; 0 where no tuned rate works."""
    done: int
    diverged: int
    summary: Summary | None
    values: tuple[float, ...] = ()
    """One per seed where all have one; of an average, their means over its tasks."""
    unscored: int = 0
    """Runs that finished and whose label-free epoch nobody knows: its score is not a number."""
    unlabelled: int = 0
    """Runs that finished and whose target has no labels."""

    @property
    def complete(self) -> bool:
        """All seeds have a value."""
        return self.summary is not None

    @property
    def settled(self) -> bool:
        """All seeds have a value or diverged: nothing is still to come."""
        return self.complete or self.done + self.diverged == self.planned


@dataclass(frozen=True)
class Line:
    """One row of a table."""

    label: str
    task: str | None
    point: Point
    fields: dict[Column, Field]
    differences: list[Difference]
    sampling_error: float | None = None
    n: int | None = None
    tasks: tuple[str, ...] = ()

    @property
    def is_average(self) -> bool:
        """The line is an average over tasks."""
        return self.task is None

    @property
    def has_labels(self) -> bool:
        """Anything is known of how right the predictions are, or nothing has finished."""
        return not all(field.unlabelled for field in self.fields.values())

    @property
    def best(self) -> list[Column]:
        """The columns with the highest mean, as shown with one decimal; none before all ran."""
        if not self.is_average and not all(f.settled for f in self.fields.values()):
            return []
        means = {c: round(100 * f.summary.mean, 1) for c, f in self.fields.items() if f.summary}
        return [c for c, mean in means.items() if mean == max(means.values())]


@dataclass(frozen=True)
class Table:
    """One method under one selection."""

    row: Row
    method: str
    selection: Selection
    stream: str
    columns: list[Column]
    lines: list[Line]
    comparisons: int
    has_labels: bool = True
    """Whether anything is known of how right the predictions are; or no run has finished."""
    evaluations: tuple[int, ...] = ()
    score: str = ""
    scored_images: ScoredImages = "held out"
    """What the label-free score is of."""
    left_out: list[tuple[Column, Point]] = field(default_factory=list)
    """Columns that are complete in no task at a point, and so in no average there."""

    @property
    def is_of_target(self) -> bool:
        """Whether it shows accuracies on the target's test images; not of those without labels."""
        return self.stream == "target/test" and self.has_labels

    @property
    def name(self) -> str:
        """The method, and the point of a sweep that all lines are of, if they are of one."""
        points = {point_text(line.point) for line in self.lines}
        return ", ".join(filter(None, [self.method, *(points if len(points) == 1 else ())]))


Runs = dict[tuple[str, str, int], Run]
"""Runs of one row, method and point by (task, normaliser, seed)."""


def tables(plan: Plan, runs: list[Run]) -> list[Table]:
    """All tables of a report: target accuracy, and the source's where something is swept."""
    shown = columns(runs, list(plan.grid.norms))
    made = []
    for row in plan.grid.rows:
        for method in plan.grid.methods:
            mine = [r for r in runs if r.entry.row == row and r.entry.cell.method == method]
            made += [_table(plan, row, method, s, "target/test", shown, mine) for s in SELECTIONS]
            if plan.grid.sweep:
                made.append(_table(plan, row, method, "last", "source/test", shown, mine))
    return made


def _table(
    plan: Plan,
    row: Row,
    method: str,
    selection: Selection,
    stream: str,
    shown: list[Column],
    runs: list[Run],
) -> Table:
    points = plan.grid.points()
    lines, left_out = [], []
    for point in points:
        mine: Runs = {
            (r.entry.cell.task, r.entry.cell.norm, r.entry.cell.seed): r
            for r in runs
            if r.entry.point == point
        }
        values = _Values(plan.grid.seeds, mine, selection, stream, compared(plan, shown))
        compared_here = {
            pair: compare(values.differences(pair, plan.tasks), len(points))
            for pair in values.pairs
        }
        tasks = [values.line(task, point, shown, compared_here) for task in plan.tasks]
        lines += tasks
        if len(tasks) > 1:
            average, missing = values.average(tasks, point, shown, len(points))
            lines.append(average)
            left_out += [(column, point) for column in missing]
    results = [run.result for run in runs if run.result is not None]
    return Table(
        row=row,
        method=method,
        selection=selection,
        stream=stream,
        columns=shown,
        lines=lines,
        comparisons=len(points) * len(plan.tasks),
        has_labels=not results or any(has_accuracy(result, stream) for result in results),
        evaluations=tuple(sorted({len(result.evaluations) for result in results})),
        score=plan.grid.score,
        scored_images=plan.scored_images,
        left_out=left_out,
    )


def has_accuracy(result: Result, stream: str) -> bool:
    """Whether the images of a stream have labels."""
    return result.evaluations[-1].forms[""][stream].accuracy is not None


def compared(plan: Plan, shown: list[Column]) -> list[Pair]:
    """The challenger with each of its baselines, of those that are shown."""
    challenger, baselines = plan.grid.comparison
    pairs = [(Column.named(challenger), Column.named(baseline)) for baseline in baselines]
    return [(a, b) for a, b in pairs if a in shown and b in shown]


@dataclass(frozen=True)
class _Values:
    """Accuracies of one method at one point, by task, column and seed."""

    seeds: Sequence[int]
    runs: Runs
    selection: Selection
    stream: str
    pairs: list[Pair]
    """Columns of which the difference is shown."""

    def accuracies(self, task: str, column: Column) -> list[float | None]:
        runs = (self.runs.get((task, column.norm, seed)) for seed in self.seeds)
        return [
            None if run is None else run.accuracy(column.form, self.selection, self.stream)
            for run in runs
        ]

    def whole(self, task: str, column: Column) -> list[float] | None:
        """One accuracy per seed, or None: means over unequal sets are not compared."""
        values = [value for value in self.accuracies(task, column) if value is not None]
        return values if len(values) == len(self.seeds) else None

    def field(self, task: str, column: Column) -> Field:
        values = self.accuracies(task, column)
        whole = self.whole(task, column)
        states = [r.state for s in self.seeds if (r := self.runs.get((task, column.norm, s)))]
        return Field(
            planned=len(states),
            done=sum(value is not None for value in values),
            diverged=states.count("diverged"),
            summary=summary(whole) if whole else None,
            values=tuple(whole or ()),
            unscored=self.unscored(task, column),
            unlabelled=self.unlabelled(task, column),
        )

    def unlabelled(self, task: str, column: Column) -> int:
        runs = (self.runs.get((task, column.norm, seed)) for seed in self.seeds)
        results = [run.result for run in runs if run is not None and run.result is not None]
        return sum(not has_accuracy(result, self.stream) for result in results)

    def unscored(self, task: str, column: Column) -> int:
        if self.selection != "label-free":
            return 0
        runs = (self.runs.get((task, column.norm, seed)) for seed in self.seeds)
        return sum(
            run.selected(column.form, self.selection) is None
            for run in runs
            if run is not None and run.result is not None and column.form in run.result.forms
        )

    def differences(self, pair: Pair, tasks: Sequence[str]) -> dict[str, list[float]]:
        """The first minus the second over seeds, of those tasks in which both are complete."""
        of_tasks = {}
        for task in tasks:
            first, second = (self.whole(task, column) for column in pair)
            if first and second:
                of_tasks[task] = [a - b for a, b in zip(first, second, strict=True)]
        return of_tasks

    def line(
        self, task: str, point: Point, shown: list[Column], compared: dict[Pair, Comparison]
    ) -> Line:
        fields = {column: self.field(task, column) for column in shown}
        sizes = {
            run.result.evaluations[-1].forms[""][self.stream].n
            for (name, _, _), run in self.runs.items()
            if name == task and run.result is not None
        }
        means = [f.summary.mean for f in fields.values() if f.summary]
        n = max(sizes) if sizes else None
        return Line(
            label=_label(task, point),
            task=task,
            point=point,
            fields=fields,
            differences=[
                Difference(
                    *pair,
                    comparison.tasks.get(task),
                    spread=comparison.spread if len(comparison.tasks) == 1 else None,
                )
                for pair, comparison in compared.items()
            ],
            # Of the largest: it is widest at one half, and one number per task is enough.
            sampling_error=max((sampling_error(m, n) for m in means), default=None) if n else None,
            n=n,
        )

    def average(
        self, lines: list[Line], point: Point, shown: list[Column], families: int
    ) -> tuple[Line, list[Column]]:
        """The average over the tasks in which every compared column is complete.

        A column that is complete in no task is left out of the comparison, and named.
        """
        present = [c for c in shown if any(line.fields[c].complete for line in lines)]
        tasks = [
            line.task
            for line in lines
            if line.task and present and all(line.fields[c].complete for c in present)
        ]
        fields = {}
        for column in shown:
            per_task = [self.whole(task, column) for task in tasks]
            complete = [values for values in per_task if values is not None]
            means: list[float] = []
            if len(complete) == len(tasks):
                means = means_over_tasks(complete)
            over_tasks = summary(means) if means else None
            fields[column] = Field(len(lines), len(complete), 0, over_tasks, tuple(means))
        differences = []
        for pair in self.pairs:
            comparison = compare(self.differences(pair, tasks) if tasks else {}, families)
            differences.append(
                Difference(
                    *pair,
                    comparison.average,
                    comparison.like,
                    comparison.signed_rank,
                    comparison.spread,
                )
            )
        label = f"average ({len(tasks)} of {len(lines)} tasks)"
        line = Line(_label(label, point), None, point, fields, differences, tasks=tuple(tasks))
        return line, [c for c in shown if c not in present]


def headline(shown: Sequence[Table]) -> list[Table]:
    """Target accuracy at the last epoch: a table of each method, and of each point of a sweep."""
    of_methods = [t for t in shown if t.selection == "last" and t.is_of_target]
    return [
        replace(table, lines=[line for line in table.lines if line.point == point])
        for table in of_methods
        for point in {str(line.point): line.point for line in table.lines}.values()
    ]


def averages(table: Table) -> list[Line]:
    """The averages of a table; of a single task its own lines."""
    return [line for line in table.lines if line.is_average] or table.lines


def means_over_tasks(values: Sequence[Sequence[float]]) -> list[float]:
    """One number per seed, out of each task's; none without a task.

    >>> means_over_tasks([[0.5, 0.25], [1.0, 0.75]])
    [0.75, 0.5]
    """
    return [sum(of_seed) / len(values) for of_seed in zip(*values, strict=True)]


def point_text(point: Point) -> str:
    """The swept settings in words: ``batch_size 8, scope backbone``."""
    return ", ".join(f"{key.removeprefix('model.')} {value}" for key, value in point.items())


def _label(task: str, point: Point) -> str:
    return f"{task}, {point_text(point)}" if point else task
