"""The picture of a grid of many normalisers: one in each row, a panel for each task.

Colours tell seven normalisers apart; of more, their names beside the rows do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from da.ops.shown_text import shorten
from da.reports.figure_style import (
    COLOURS,
    CROSS,
    NAME,
    add_legend,
    form_style,
    limit_to_percents,
    name_of,
)
from da.reports.runs import Column
from da.reports.tables import Line, Table

PANELS = 4
"""Tasks of which each has a panel; of more, the averages alone are shown."""


def many_normalisers(tables: Sequence[Table]) -> bool:
    """Whether there are more of them than colours."""
    return any(len({column.norm for column in t.columns}) > len(COLOURS) for t in tables)


def normaliser_rows(tables: Sequence[Table], tasks: int) -> Any:
    """A row of panels for each method (and row of rates): its tasks, and their average last.

    Args:
        tables: of one selection of epochs.
        tasks: of the grid.
    """
    from matplotlib.figure import Figure

    tables = [table for table in tables if table.stream == "target/test"]
    shown = [_panels(table) for table in tables]
    norms = list(dict.fromkeys(column.norm for table in tables for column in table.columns))
    across = max(map(len, shown))
    size = (1.6 + 3.0 * across, 1.1 + (0.7 + 0.21 * len(norms)) * len(tables))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(tables), across, sharex=True, sharey=True, squeeze=False)
    for row, table, lines in zip(axes, tables, shown, strict=True):
        for axis, line in zip(row, lines, strict=False):
            _draw(axis, line, table.columns, norms)
            name = shorten(name_of(line, tasks), NAME)
            axis.set_title(f"{table.method}, {table.row} rate\n{name}", fontsize="medium")
        for spare in row[len(lines) :]:
            spare.set_visible(False)
    for axis in axes.ravel():
        axis.set_ylim(len(norms) - 0.4, -0.6)  # the first on top, as in the tables
        axis.set_yticks(range(len(norms)), [shorten(norm, NAME) for norm in norms])
        axis.grid(color="0.9")
        axis.set_axisbelow(True)
    for axis in axes[-1]:
        axis.set_xlabel("target accuracy (%)")
    limit_to_percents(axes.ravel(), along="x")
    add_legend(figure, axes[0, 0])
    return figure


def _panels(table: Table) -> list[Line]:
    """Tasks and average; of many tasks the averages alone."""
    lines = [line for line in table.lines if line.has_labels]
    averages = [line for line in lines if line.is_average]
    return averages if averages and len(lines) - len(averages) > PANELS else lines


def _draw(axis: Any, line: Line, columns: Sequence[Column], norms: Sequence[str]) -> None:
    """A point for each normaliser, and others for its re-estimated forms."""
    for form in dict.fromkeys(column.form for column in columns):
        mine = [column for column in columns if column.form == form]
        style = form_style(form)
        known = [(norms.index(c.norm), s) for c in mine if (s := line.fields[c].summary)]
        axis.errorbar(
            [100 * one.mean for _, one in known],
            [y for y, _ in known],
            xerr=[100 * (one.std or 0.0) for _, one in known],
            ls="none",
            ms=5,
            lw=1,
            label=form or "as trained",
            **style,
        )
        absent = [norms.index(c.norm) for c in mine if not line.fields[c].complete]
        if absent and not form:
            at = axis.get_yaxis_transform()
            axis.plot([0.02] * len(absent), absent, CROSS, ms=5, color=style["color"], transform=at)
