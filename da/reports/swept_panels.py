"""The picture of a sweep of many normalisers: a small panel for each, batch norm behind it.

Colours tell seven normalisers apart; of more, each has a panel of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from da.ops.shown_text import shorten
from da.reports.figure_style import (
    NAME,
    add_legend,
    crosses,
    form_style,
    limit_to_percents,
    scale_to,
    series,
)
from da.reports.runs import Column
from da.reports.swept_averages import absent_at, average_over, common_tasks, over_text, swept_text
from da.reports.tables import Table

ACROSS = 5
"""Panels in a row."""

BEHIND = Column("bn")
"""What each panel shows in grey, where it is trained."""


def swept_panels(tables: Sequence[Table], name: str, values: Sequence[float]) -> Any:
    """A block of panels for each method (and row of rates), a panel for each normaliser.

    A panel has the target accuracy as trained and in re-estimated forms, the source's, and batch
    norm's target accuracy behind, all averages over the same tasks.

    Args:
        tables: of one selection of epochs, of the target and of the source.
        name: of the swept setting.
        values: of it, positive numbers.
    """
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys((table.method, table.row) for table in tables))
    norms = list(dict.fromkeys(column.norm for t in tables for column in t.columns))
    down = math.ceil(len(norms) / ACROSS)
    size = (1.0 + 2.3 * ACROSS, 1.2 + (0.4 + 1.9 * down) * len(groups))
    figure = Figure(figsize=size, layout="constrained")
    parts = figure.subfigures(len(groups), 1, squeeze=False).ravel()
    drawn = []
    for part, group in zip(parts, groups, strict=True):
        mine = {t.stream: t for t in tables if (t.method, t.row) == group}
        target, source = mine["target/test"], mine.get("source/test")
        method, row = group
        title = f"{method}, {row} learning rate, last epoch{over_text(target)}"
        part.suptitle(title, fontsize="medium")
        panels = part.subplots(down, ACROSS, sharex=True, sharey=True, squeeze=False).ravel()
        for spare in panels[len(norms) :]:
            spare.set_visible(False)
        for place, (panel, norm) in enumerate(zip(panels, norms, strict=False)):
            _draw(panel, target, source, norm, name, values)
            panel.set_title(shorten(norm, NAME), fontsize="small")
            panel.tick_params(labelbottom=place + ACROSS >= len(norms), labelsize="small")
        part.supxlabel(swept_text(name), fontsize="small")
        part.supylabel("accuracy (%)", fontsize="small")
        drawn += list(panels[: len(norms)])
    limit_to_percents(drawn)
    add_legend(figure, *drawn)
    return figure


def _draw(
    panel: Any,
    target: Table,
    source: Table | None,
    norm: str,
    name: str,
    values: Sequence[float],
) -> None:
    _, common = common_tasks(target)

    def points(table: Table, column: Column) -> tuple[list[float], list[float], list[float]]:
        found = [average_over(table, column, {name: value}, common) for value in values]
        return series(found, list(values))

    if BEHIND in target.columns and norm != BEHIND.norm:
        xs, means, _ = points(target, BEHIND)
        panel.plot(xs, means, color="0.7", lw=3, label="target, bn as trained", zorder=1)
    if source is not None:
        xs, means, _ = points(source, Column(norm))
        panel.plot(xs, means, color="0.2", ls=":", lw=1.2, label="source, as trained")
    for column in target.columns:
        if column.norm != norm:
            continue
        style = form_style(column.form)
        label = f"target, {column.form or 'as trained'}"
        panel.errorbar(*points(target, column), lw=1.2, ms=4, capsize=2, label=label, **style)
        if not column.form:
            crosses(panel, absent_at(target, column, name), {**style, "alpha": 1.0})
    scale_to(panel, values)
    panel.grid(color="0.9")
    panel.set_axisbelow(True)
