"""The pictures of a report: accuracy by task and normaliser, or against what was swept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from da.grids.plan import Plan
from da.ops.shown_text import shorten
from da.reports.figure_style import (
    COLOURS,
    CROSS,
    KINDS,
    MARKERS,
    NAME,
    add_legend,
    crosses,
    limit_to_percents,
    name_of,
    scale_to,
    series,
    write,
)
from da.reports.normaliser_rows import many_normalisers, normaliser_rows
from da.reports.runs import Column
from da.reports.swept_averages import (
    absent_at,
    average_over,
    common_tasks,
    over_text,
    swept_text,
)
from da.reports.swept_panels import swept_panels
from da.reports.tables import Table

PANELS, PANEL_WIDTH = 4, 3.6
"""Panels below each other, of which more become columns, and the least inches of a column."""


def save(out: Path, plan: Plan, shown: list[Table]) -> None:
    """Writes ``figure.png``, ``.svg`` and ``.pdf`` of the last epoch."""
    headline = [t for t in shown if t.selection == "last" and t.has_labels]
    if not any(table.stream == "target/test" for table in headline):  # no target has labels
        for kind in KINDS:
            (out / f"figure.{kind}").unlink(missing_ok=True)
        return
    swept = _swept(plan)
    if swept and many_normalisers(headline):
        figure = swept_panels(headline, swept, plan.grid.sweep[swept])
    elif swept:
        figure = _sweep(plan, headline, swept)
    elif many_normalisers(headline):
        figure = normaliser_rows(headline, len(plan.tasks))
    else:
        figure = _tasks(plan, headline)
    if any(line.get_marker() == CROSS for axis in figure.axes for line in axis.get_lines()):
        figure.suptitle("× at the foot: diverged or missing", fontsize="small")
    write(figure, out / "figure", kinds=KINDS)


def _swept(plan: Plan) -> str | None:
    """The one swept setting whose values are numbers, if there is one."""
    if len(plan.grid.sweep) != 1:
        return None
    name, values = next(iter(plan.grid.sweep.items()))
    numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    return name if numeric and min(values) > 0 else None


def column_styles(columns: list[Column]) -> dict[Column, dict[str, Any]]:
    """One colour per normaliser, one marker per form; re-estimated forms are drawn open."""
    norms = list(dict.fromkeys(column.norm for column in columns))
    return {
        column: {
            "color": COLOURS[norms.index(column.norm) % len(COLOURS)],
            "marker": MARKERS.get(column.form, "d"),
            "markerfacecolor": "none" if column.form else None,
            "alpha": 0.75 if column.form else 1.0,
        }
        for column in columns
    }


def _tasks(plan: Plan, tables: list[Table]) -> Any:
    """One panel per method (and row of learning rates), tasks along x, and their average last."""
    from matplotlib.figure import Figure

    tables = [table for table in tables if table.stream == "target/test"]
    labelled = [line for line in tables[0].lines if line.has_labels]
    columns = [shorten(name_of(line, len(plan.tasks)), NAME) for line in labelled]
    labels = {line.label for line in labelled}
    down = min(len(tables), max(PANELS, math.ceil(math.sqrt(len(tables)))))
    across = math.ceil(len(tables) / down)
    width = max(PANEL_WIDTH, 1.2 + 0.95 * len(columns)) if across > 1 else 2.0 + 0.95 * len(columns)
    figure = Figure(figsize=(across * width, 0.8 + 2.9 * down), layout="constrained")
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    axes = panels.T.ravel()  # one column after the other
    for spare in axes[len(tables) :]:
        spare.set_visible(False)
    axes = axes[: len(tables)]
    ticks = range(len(columns))
    for number, axis in enumerate(axes):
        axis.set_xticks(ticks, columns, rotation=25, ha="right", rotation_mode="anchor")
        is_foot = (number + 1) % down == 0 or number + 1 == len(tables)
        axis.tick_params(labelbottom=is_foot)
    for axis, table in zip(axes, tables, strict=True):
        lines = [line for line in table.lines if line.label in labels]
        for index, (column, style) in enumerate(column_styles(table.columns).items()):
            offset = 0.8 * ((index + 0.5) / len(table.columns) - 0.5)
            fields = [line.fields[column] for line in lines]
            points = series(
                [one.summary for one in fields], [x + offset for x in range(len(fields))]
            )
            axis.errorbar(*points, ls="none", capsize=2, ms=5, label=str(column), **style)
            absent = [x + offset for x, one in enumerate(fields) if not one.complete]
            crosses(axis, absent, style)
        for x, line in enumerate(lines[1:], start=1):
            shade = "0.45" if line.is_average else "0.9"
            axis.axvline(x - 0.5, color=shade, lw=0.8, zorder=0)
        axis.set_title(f"{table.method}\n{table.row} learning rate, last epoch", fontsize="medium")
        axis.grid(axis="y", color="0.9")
    for axis in axes[:down]:
        axis.set_ylabel("target accuracy (%)")
    limit_to_percents(axes)
    add_legend(figure, axes[0])
    return figure


def _sweep(plan: Plan, tables: list[Table], name: str) -> Any:
    """Source accuracy on the left, target accuracy on the right, a line of panels per method.

    All points of a panel are averages over the same tasks, those that are complete at each of them.
    """
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys((table.method, table.row) for table in tables))
    figure = Figure(figsize=(9.5, 0.8 + 3.2 * len(groups)), layout="constrained")
    axes = figure.subplots(len(groups), 2, sharex=True, squeeze=False)
    for table in tables:
        row = groups.index((table.method, table.row))
        axis = axes[row, 0 if table.stream == "source/test" else 1]
        _, common = common_tasks(table)
        for number, (column, style) in enumerate(column_styles(table.columns).items()):
            values = [point[name] for point in plan.grid.points()]
            found = [average_over(table, column, point, common) for point in plan.grid.points()]
            line_style = ":" if column.form else "-"
            axis.errorbar(
                *series(found, values), ls=line_style, capsize=2, ms=5, label=str(column), **style
            )
            crosses(axis, absent_at(table, column, name), style, number)
        scale_to(axis, plan.grid.sweep[name])
        domain = table.stream.partition("/")[0]
        title = f"{table.method}\n{table.row} learning rate, last epoch{over_text(table)}"
        axis.set_title(title, fontsize="medium")
        axis.set_ylabel(f"{domain} accuracy (%)")
        axis.set_xlabel(swept_text(name))
        axis.grid(color="0.9")
    limit_to_percents(axes.ravel())
    add_legend(figure, axes[0, 0])
    return figure
