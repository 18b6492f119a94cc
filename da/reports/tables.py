"""The comparison: per task and on average, each normaliser's accuracy and paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from da.engine.result import SELECTIONS, Result, Selection
from da.grids.grid import Row
from da.grids.plan import Plan
from da.reports.runs import Column, Run, columns
from da.reports.statistics import (
    Paired,
    SignedRank,
    Summary,
    paired_t,
    sampling_error,
    summary,
    wilcoxon,
)

Point = dict[str, Any]


@dataclass(frozen=True)
class Field:
    """One number of a table: accuracy over seeds, or why there is none."""

    planned: int
    """Seeds to train; 0 where no tuned rate works."""
    done: int
    diverged: int
    summary: Summary | None

    @property
    def complete(self) -> bool:
        """All seeds have a value."""
        return self.summary is not None

    @property
    def settled(self) -> bool:
        """All seeds have a value or diverged: nothing is still to come."""
        return self.complete or self.done + self.diverged == self.planned


@dataclass(frozen=True)
class Difference:
    """The challenger minus a baseline, paired over seeds (a task) or task means (the average)."""

    challenger: Column
    baseline: Column
    paired: Paired | None
    signed_rank: SignedRank | None = None

    @property
    def name(self) -> str:
        """``wa - bn``."""
        return f"{self.challenger} - {self.baseline}"


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
    left_out: list[Column] = field(default_factory=list)


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
    comparisons = len(points) * len(plan.tasks)
    lines, left_out = [], []
    for point in points:
        mine: Runs = {
            (r.entry.cell.task, r.entry.cell.norm, r.entry.cell.seed): r
            for r in runs
            if r.entry.point == point
        }
        values = _Values(plan.grid.seeds, mine, selection, stream, compared(plan, shown))
        tasks = [values.line(task, point, shown, comparisons) for task in plan.tasks]
        lines += tasks
        if len(tasks) > 1:
            average, missing = values.average(tasks, point, shown)
            lines.append(average)
            left_out += [column for column in missing if column not in left_out]
    results = [run.result for run in runs if run.result is not None]
    return Table(
        row=row,
        method=method,
        selection=selection,
        stream=stream,
        columns=shown,
        lines=lines,
        comparisons=comparisons,
        has_labels=not results or any(has_accuracy(result, stream) for result in results),
        evaluations=tuple(sorted({len(result.evaluations) for result in results})),
        score=plan.grid.score,
        left_out=left_out,
    )


def has_accuracy(result: Result, stream: str) -> bool:
    """Whether the images of a stream have labels."""
    return result.evaluations[-1].forms[""][stream].accuracy is not None


def compared(plan: Plan, shown: list[Column]) -> list[tuple[Column, Column]]:
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
    pairs: list[tuple[Column, Column]]
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
        )

    def line(self, task: str, point: Point, shown: list[Column], comparisons: int) -> Line:
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
                    challenger,
                    baseline,
                    self._paired(
                        self.whole(task, challenger), self.whole(task, baseline), comparisons
                    ),
                )
                for challenger, baseline in self.pairs
            ],
            # Of the largest: it is widest at one half, and one number per task is enough.
            sampling_error=max((sampling_error(m, n) for m in means), default=None) if n else None,
            n=n,
        )

    def average(
        self, lines: list[Line], point: Point, shown: list[Column]
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
            over_tasks = None
            if complete and len(complete) == len(tasks):
                means = [sum(seed) / len(tasks) for seed in zip(*complete, strict=True)]
                over_tasks = summary(means)
            fields[column] = Field(len(lines), len(complete), 0, over_tasks)
        differences = []
        for challenger, baseline in self.pairs:
            pairs = [(self.whole(t, challenger), self.whole(t, baseline)) for t in tasks]
            means = [summary(a).mean - summary(b).mean for a, b in pairs if a and b]
            whole = bool(means) and len(means) == len(tasks)
            differences.append(
                Difference(
                    challenger,
                    baseline,
                    paired_t(means, [0.0] * len(means)) if whole else None,
                    wilcoxon(means) if whole else None,
                )
            )
        label = f"average ({len(tasks)} of {len(lines)} tasks)"
        line = Line(_label(label, point), None, point, fields, differences, tasks=tuple(tasks))
        return line, [c for c in shown if c not in present]

    def _paired(
        self, a: list[float] | None, b: list[float] | None, comparisons: int
    ) -> Paired | None:
        return paired_t(a, b, comparisons) if a and b else None


def _label(task: str, point: Point) -> str:
    if not point:
        return task
    swept = ", ".join(f"{key.removeprefix('model.')} {value}" for key, value in point.items())
    return f"{task}, {swept}"


def verdict(table: Table) -> str:
    """The table in one plain sentence."""
    if not table.has_labels:
        return f"{table.selection}: the target has no labels, so nothing is known of accuracies."
    lines = [line for line in table.lines if not line.is_average]
    what = "tasks" if all(not line.point for line in lines) else "settings"
    parts = []
    for index, difference in enumerate(lines[0].differences if lines else []):
        challenger, baseline = _title(difference.challenger), difference.baseline
        tested = [d.paired for line in lines if (d := line.differences[index]).paired]
        signs = [paired.sign for paired in tested if paired is not None]
        if not signs:
            parts.append(
                f"{challenger} and {baseline} cannot be compared: on no {what[:-1]} did all seeds "
                "of both finish"
            )
            continue
        untested = sum(p is not None and p.low is None for p in tested)
        parts.append(
            f"{challenger} beats {baseline} beyond its interval on {signs.count(1)} of "
            f"{len(lines)} {what} and loses on {signs.count(-1)}"
            + (f" ({untested} not testable)" if untested else "")
            + (f" ({len(lines) - len(signs)} missing)" if len(signs) < len(lines) else "")
        )
    if ranking := _ranking(lines, table.columns):
        parts.append(f"highest mean on {ranking} of {len(lines)} {what}")
    for line in table.lines:
        if line.is_average and line.best and what == "tasks":
            over = (
                ""
                if len(line.tasks) == len(lines)
                else f" over {len(line.tasks)} of {len(lines)} tasks"
            )
            parts.append(f"highest average{over}: {', '.join(map(str, line.best))}")
    return f"{table.selection}: " + "; ".join(parts or ["nothing to compare yet"]) + "."


def _title(column: Column) -> str:
    """``WA`` for ``wa``: the abbreviation at the head of a sentence."""
    return "WA" if column == Column("wa") else str(column)


def _ranking(lines: list[Line], shown: list[Column]) -> str:
    """How often each column is best, ties counted for each: ``wa 3, bn@target-stats 3``."""
    counts = {column: sum(column in line.best for line in lines) for column in shown}
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{column} {count}" for column, count in ordered if count)
