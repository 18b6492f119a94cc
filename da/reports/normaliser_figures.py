"""Two pictures of a grid of many normalisers: accuracy against cost, and all against batch norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from da.ops.shown_text import shorten
from da.reports import costs as cost_tables
from da.reports.against_baseline import against_baseline, of_tasks
from da.reports.costs import Costs, Point, costed
from da.reports.differences import Comparison
from da.reports.figure_style import COLOURS, NAME, write
from da.reports.model import Report
from da.reports.tables import Table, headline

KINDS = ("png", "svg")

ACROSS = 4
"""Panels in a row."""

LEAST = 0.055
"""Distance of two names beside a panel, as a share of its height."""


def save_pictures(report: Report) -> None:
    """Writes ``cost`` and ``forest``, ``.png`` and ``.svg``; removes what there is no data for."""
    costs = report.costs
    tables = costed(report.tables) if costs is not None else []
    _save(report.out / "cost", tables, _cost_figure, costs)
    found = [(table, against_baseline(table)) for table in headline(report.tables)]
    compared = [(table, beside) for table, beside in found if len(beside) > 1]
    _save(report.out / "forest", compared, _forest_figure, None)


def _save(path: Path, data: Sequence[Any], draw: Any, costs: Costs | None) -> None:
    figure = draw(data, costs) if data else None
    if figure is not None:
        write(figure, path, kinds=KINDS)
        return
    for kind in KINDS:
        path.with_name(f"{path.name}.{kind}").unlink(missing_ok=True)


def _forest_figure(data: list[tuple[Table, dict[str, Comparison]]], costs: None) -> Any:
    """A panel for each method and point: the average difference of each normaliser, sorted."""
    from matplotlib.figure import Figure

    most = max(len(found) for _, found in data)
    across = min(ACROSS, len(data))
    down = math.ceil(len(data) / across)
    figure = Figure(figsize=(1.6 + 3.4 * across, 1.2 + 0.26 * most * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for spare in axes[len(data) :]:
        spare.set_visible(False)
    for axis, (table, found) in zip(axes, data, strict=False):
        averages = {name: c.average for name, c in found.items() if c.average is not None}
        ordered = sorted(averages, key=lambda name: averages[name].difference)
        for y, name in enumerate(ordered):
            one = averages[name]
            low = one.difference if one.low is None else one.low
            high = one.difference if one.high is None else one.high
            colour = COLOURS[1] if name.partition("+")[0] == "wa" else COLOURS[0]
            axis.plot([100 * low, 100 * high], [y, y], color=colour, lw=1.4)
            style = {"color": colour, "markerfacecolor": colour if one.sign else "white"}
            axis.plot([100 * one.difference], [y], marker="D", ms=5, ls="none", **style)
        axis.axvline(0, color="0.3", lw=0.8, zorder=0)
        labels = [f"{shorten(name, NAME)}{of_tasks(found[name], table)}" for name in ordered]
        axis.set_yticks(range(len(ordered)), labels)
        axis.set_ylim(-0.7, len(ordered) - 0.3)
        axis.set_title(f"{table.name}\n{table.row} learning rate, last epoch", fontsize="medium")
        axis.set_xlabel("target accuracy - bn (points)")
        axis.grid(axis="x", color="0.9")
    figure.suptitle("95 % on these tasks, each by itself; filled: excludes 0", fontsize="small")
    return figure


def _cost_figure(tables: list[Table], costs: Costs) -> Any:
    """A panel for each method: accuracy over the seconds of a step, names beside it."""
    from matplotlib.figure import Figure

    panels = [(t, [p for p in cost_tables.points_of(t, costs) if p.step]) for t in tables]
    panels = [(table, points) for table, points in panels if points]
    if not panels:
        return None
    height = 1.2 + 0.2 * max(len(points) for _, points in panels)
    figure = Figure(figsize=(4.6 * len(panels), max(3.4, height)), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (table, points) in zip(axes, panels, strict=True):
        for point in points:
            axis.errorbar(
                [point.step],
                [100 * point.mean],
                [100 * (point.std or 0)],
                fmt="o",
                ms=5,
                lw=0.8,
                color=COLOURS[1] if point.norm.partition("+")[0] == "wa" else COLOURS[0],
                markerfacecolor=None if point.best else "white",
            )
        axis.margins(0.08)
        _name_points(axis, points)
        axis.set_title(f"{table.method}\n{table.row} learning rate, last epoch", fontsize="medium")
        axis.set_xlabel("training step / bn")
        axis.set_ylabel("target accuracy (%)")
        axis.grid(color="0.9")
    figure.suptitle(f"filled: no other is as cheap and as accurate; {costs.case}", fontsize="small")
    return figure


def _name_points(axis: Any, points: list[Point]) -> None:
    """Names in a column on the right, in the order of the points, each joined to its own."""
    low, high = axis.get_ylim()
    heights = spread([(100 * p.mean - low) / (high - low) for p in points])
    for point, height in zip(points, heights, strict=True):
        axis.annotate(
            shorten(point.norm, NAME),
            (point.step, 100 * point.mean),
            xytext=(1.04, height),
            textcoords="axes fraction",
            fontsize="x-small",
            va="center",
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": "0.6", "shrinkA": 0, "shrinkB": 3},
        )


def spread(heights: Sequence[float], least: float = LEAST) -> list[float]:
    """Heights in the same order that are at least so far apart, as near to the given as one pass
    from below and one from above make them.

    >>> [round(x, 2) for x in spread([0.5, 0.5, 0.9], least=0.1)]
    [0.5, 0.6, 0.9]
    """
    order = sorted(range(len(heights)), key=heights.__getitem__)
    least = min(least, 1 / max(len(heights), 1))
    moved = list(heights)
    for below, above in pairwise(order):
        moved[above] = max(moved[above], moved[below] + least)
    top = 1.0
    for i in reversed(order):
        moved[i] = min(moved[i], top)
        top = moved[i] - least
    return moved
