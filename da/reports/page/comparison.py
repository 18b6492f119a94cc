"""What the page shows of the comparison: a table and its forest plots per method and selection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from markupsafe import Markup

from da.engine.result import SELECTIONS
from da.reports.model import Report
from da.reports.page.charts import COLOURS, Axis, Interval, Line, chart, forest
from da.reports.runs import Column
from da.reports.statistics import Paired
from da.reports.swept_averages import (
    average_over,
    common_tasks,
    lacks,
    over_text,
    swept_text,
)
from da.reports.tables import Line as TableLine
from da.reports.tables import Table, point_text
from da.reports.texts import (
    Strong,
    accuracy_texts,
    left_out_texts,
    normalisers_go_down,
    notes,
    paired_text,
    percent,
    title,
    transposed,
)
from da.reports.verdicts import verdict

SHAPES = {"": "circle", "source-stats": "triangle", "target-stats": "square"}
"""Markers of the forms; any other is a diamond."""


@dataclass(frozen=True)
class Cell:
    """A field of a table: its text, what it is sorted by, and its classes."""

    text: str
    value: float | str | None = None
    style: str = ""


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        label: in front of it.
        cells: its fields.
        interval: the question that it answers, of an average.
        link: the part of the page that says more.
    """

    label: str
    cells: list[Cell]
    interval: str = ""
    link: str = ""


@dataclass(frozen=True)
class Choice:
    """A selection of epochs that can be switched to.

    Attributes:
        key: of its tables.
        label: of its button.
        scores: keys and names of the scores that it may go by; empty where there is one at most.
    """

    key: str
    label: str
    scores: Sequence[tuple[str, str]] = ()

    @property
    def keys(self) -> list[str]:
        """Of all tables that it switches to."""
        return [key for key, _ in self.scores] or [self.key]


@dataclass(frozen=True)
class Shown:
    """One table with its plots.

    Attributes:
        key: of its selection.
        caption: what it shows.
        header: titles of its columns.
        rows: its lines.
        averages: its last lines, which stay there when it is sorted.
        plots: names and pictures.
        remarks: what its intervals rest on.
        verdict: what it comes to, in words.
        beside: the table of differences where the table itself has normalisers as its rows.
    """

    key: str
    caption: str
    header: list[str]
    rows: list[Row]
    averages: list[Row] = field(default_factory=list)
    plots: list[tuple[str, Markup]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    verdict: str = ""
    beside: Shown | None = None


@dataclass(frozen=True)
class Method:
    """All that is shown of one method in one row of learning rates."""

    id: str
    title: str
    tables: list[Shown]
    sweeps: list[tuple[str, Markup]] = field(default_factory=list)


def key_of(table: Table) -> str:
    """What a table's selection is called on the page; each score has one of its own."""
    return (
        f"{table.selection} {table.score}" if table.selection == "label-free" else table.selection
    )


def choices(report: Report) -> list[Choice]:
    """The selections of epochs, the headline first."""
    scores = [report.plan.grid.score, *dict.fromkeys(t.score for t in report.by_other_scores)]
    keys = [(f"label-free {score}", score) for score in scores]
    several = len(scores) > 1
    by_name = {
        "last": Choice("last", "last epoch"),
        "label-free": Choice(
            keys[0][0],
            "label-free by" if several else f"label-free by {scores[0]}",
            keys if several else (),
        ),
        "oracle": Choice("oracle", "oracle"),
    }
    return [by_name[selection] for selection in SELECTIONS]


def table_keys(report: Report) -> list[str]:
    """Of the tables of a method, in their order on the page."""
    return [key for choice in choices(report) for key in choice.keys]


def methods(report: Report) -> Iterator[Method]:
    """One for each row of rates and method; of a target without labels, without any table."""
    every = [*report.tables, *report.by_other_scores]
    order = table_keys(report)
    for row in report.plan.grid.rows:
        for method in report.plan.grid.methods:
            mine = [t for t in every if (t.row, t.method) == (row, method) and t.has_labels]
            of_target = [t for t in mine if t.stream == "target/test"]
            yield Method(
                method_id(report, row, method),
                f"{method}, {row} learning rate",
                [_shown(t) for t in sorted(of_target, key=lambda t: order.index(key_of(t)))],
                _sweeps(report, [t for t in mine if t.selection == "last"]),
            )


def method_id(report: Report, row: str, method: str) -> str:
    """What the part of a method is called in links."""
    return f"method-{row}-{list(report.plan.grid.methods).index(method)}"


def _shown(table: Table) -> Shown:
    settings = list(table.lines[0].point) if table.lines else []
    differences = [d.name for d in table.lines[0].differences] if table.lines else []
    tasks = [line for line in table.lines if not line.is_average]
    averages = [line for line in table.lines if line.is_average]
    header = ["task", *(name.removeprefix("model.") for name in settings)]
    shown = Shown(
        key_of(table),
        f"Target accuracy in percent, {title(table)}",
        [*header, *map(str, table.columns), *differences, "sampling error (n)"],
        [_row(table, line) for line in tasks],
        [row for line in averages for row in _average_rows(table, line)],
        _plots(table, differences),
        [*notes(table), *left_out_texts(table)],
        verdict(table),
    )
    if not normalisers_go_down(table.columns, table.lines):
        return shown
    lines = [[line.label, *accuracy_cells(table, line)] for line in table.lines]
    across, rows = transposed([*header[:1], *map(str, table.columns)], lines)
    first = len(header) - 1  # of the accuracies among the cells of a row
    after = first + len(table.columns)

    def without_accuracies(row: Row) -> Row:
        return replace(row, cells=[*row.cells[:first], *row.cells[after:]])

    beside = Shown(
        shown.key,
        "Differences in points",
        [*header, *differences, "sampling error (n)"],
        [without_accuracies(row) for row in shown.rows],
        [without_accuracies(row) for row in shown.averages],
    )
    turned = [Row(name, cells) for name, *cells in rows]
    return replace(shown, header=across, rows=turned, averages=[], beside=beside)


def _plots(table: Table, names: Sequence[str]) -> list[tuple[str, Markup]]:
    """A forest plot for each baseline that anything is known against."""
    found = [(name, _intervals(table, number)) for number, name in enumerate(names)]
    return [
        (name, forest(name, intervals))
        for name, intervals in found
        if any(one.middle is not None for one in intervals)
    ]


def _row(table: Table, line: TableLine) -> Row:
    error = "–" if line.sampling_error is None else f"{percent(line.sampling_error)} ({line.n})"
    these = [difference_cell(difference.these) for difference in line.differences]
    cells = [
        *_settings(line),
        *accuracy_cells(table, line),
        *these,
        Cell(error, line.sampling_error),
    ]
    return Row(line.task or "", cells)


def _average_rows(table: Table, line: TableLine) -> Iterator[Row]:
    """An average has two: its differences answer two questions."""
    label = f"average ({len(line.tasks)} of {len({x.task for x in table.lines if x.task})} tasks)"
    these = [difference_cell(difference.these) for difference in line.differences]
    question = ", on these tasks" if these else ""
    cells = [*_settings(line), *accuracy_cells(table, line), *these, Cell("")]
    yield Row(f"{label}{question}", cells, "these" if these else "")
    if these:
        like = [difference_cell(difference.like) for difference in line.differences]
        empty = [Cell("") for _ in table.columns]
        yield Row(
            f"{label}, on tasks like these",
            [*_settings(line), *empty, *like, Cell("")],
            "like",
        )


def _settings(line: TableLine) -> list[Cell]:
    return [Cell(str(v), v if isinstance(v, (int, float)) else str(v)) for v in line.point.values()]


def accuracy_cells(table: Table, line: TableLine) -> list[Cell]:
    """The accuracies of a line, the best of them in bold."""
    texts = accuracy_texts(table, line)
    found = []
    for column, text in zip(table.columns, texts, strict=True):
        whole = line.fields[column].summary
        style = "best" if isinstance(text, Strong) else "" if whole else "absent"
        found.append(Cell(text, whole.mean if whole else None, style))
    return found


def difference_cell(paired: Paired | None) -> Cell:
    """A difference with its interval, in the colour of what it excludes."""
    if paired is None:
        return Cell("–", None, "absent")
    style = {1: "up", -1: "down", 0: "even"}[paired.sign]
    return Cell(paired_text(paired), paired.difference, style)


def _intervals(table: Table, number: int) -> list[Interval]:
    """The lines of a forest plot: tasks, then averages with both questions."""
    found = []
    for line in table.lines:
        difference = line.differences[number]
        if not line.is_average:
            found.append(interval(line.label, difference.these, "task"))
            continue
        these, like = "average, on these tasks", "average, tasks like these"
        if line.point:  # what is swept has to be seen within the length of a label
            point = point_text(line.point)
            these, like = f"these tasks, {point}", f"tasks like these, {point}"
        found.append(interval(these, difference.these, "these"))
        found.append(interval(like, difference.like, "like"))
    return found


def interval(label: str, paired: Paired | None, kind: str) -> Interval:
    """A line of a forest plot, in points; see :class:`.charts.Interval`."""
    if paired is None:
        return Interval(label, None, None, None, kind, "–")
    low, high = (None if end is None else 100 * end for end in (paired.low, paired.high))
    return Interval(label, 100 * paired.difference, low, high, kind, paired_text(paired))


def styles(columns: Sequence[Column]) -> dict[Column, tuple[str, str]]:
    """Class and marker of every column: a colour per normaliser, a marker per form."""
    norms = list(dict.fromkeys(column.norm for column in columns))
    return {
        column: (
            f"c{norms.index(column.norm) % COLOURS}{' open' if column.form else ''}",
            SHAPES.get(column.form, "diamond"),
        )
        for column in columns
    }


def _sweeps(report: Report, tables: Sequence[Table]) -> list[tuple[str, Markup]]:
    """Accuracy against each swept setting, in a chart for each value of the others."""
    found = []
    for name, values in report.plan.grid.sweep.items():
        points = report.plan.grid.points()
        others = [{k: v for k, v in point.items() if k != name} for point in points]
        for rest in {str(other): other for other in others}.values():
            found += [_sweep(table, name, list(values), rest) for table in tables]
    return found


def _sweep(table: Table, name: str, values: list[Any], rest: dict[str, Any]) -> tuple[str, Markup]:
    _, common = common_tasks(table)
    styled = styles(table.columns)
    lines = []
    for column in table.columns:
        of_points = [average_over(table, column, {**rest, name: v}, common) for v in values]
        known = [(i, whole) for i, whole in enumerate(of_points) if whole is not None]
        style, shape = styled[column]
        lines.append(
            Line(
                str(column),
                style,
                [(i, 100 * whole.mean) for i, whole in known],
                shape,
                deviations=[100 * (whole.std or 0.0) for _, whole in known],
                absent=[i for i, v in enumerate(values) if lacks(table, column, {**rest, name: v})],
            )
        )
    domain = table.stream.partition("/")[0]
    where = f", {point_text(rest)}" if rest else ""
    short = swept_text(name)
    heading = f"{domain} accuracy in percent against {short}{where}, last epoch{over_text(table)}"
    labels = [(i, f"{v:g}" if isinstance(v, float) else str(v)) for i, v in enumerate(values)]
    return heading, chart(heading, lines, Axis(short, labels, (0, len(values) - 1)))
