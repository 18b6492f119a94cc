"""The pictures of a study of many networks: a small panel for each, a line for each way.

Colours tell seven networks apart; of more, each has a panel of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from da.grids.statistics_study import Question
from da.ops.shown_text import shorten
from da.reports.figure_style import COLOURS, NAME, named_lines
from da.reports.target_statistics import TITLES, WAYS, axis
from da.reports.target_statistics_answers import Answers

ACROSS = 4
"""Panels in a row."""


def draw_panels(answers: Answers, question: Question) -> Any:
    """A block of panels for each thing that the target is mixed with, a panel for each network."""
    from matplotlib.figure import Figure

    series = [s for s in answers.study.questions.series() if s[0] == question]
    columns = answers.columns
    down = math.ceil(len(columns) / ACROSS)
    size = (1.0 + 2.5 * ACROSS, 1.3 + 1.9 * down * len(series))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(down * len(series), ACROSS, sharey=True, squeeze=False)
    for block, (_, other, values) in enumerate(series):
        panels = axes[block * down : (block + 1) * down].ravel()
        for spare in panels[len(columns) :]:
            spare.set_visible(False)
        for panel, column in zip(panels, columns, strict=False):
            _draw_network(panel, answers, (question, other), values, column)
            panel.set_title(shorten(column, NAME), fontsize="small")
            panel.set_xticks(range(len(values)), values, fontsize="small")
            panel.grid(color="0.9")
        panels[(down - 1) * ACROSS].set_xlabel(axis(question, other), loc="left", fontsize="small")
    figure.supylabel("target accuracy (%)", fontsize="medium")
    add_titles(figure, axes.flat, question)
    return figure


def add_titles(figure: Any, panels: Iterable[Any], question: Question) -> None:
    """What the picture asks above its panels, and below them the names of all their lines."""
    handles = named_lines(panels)
    columns = min(6, len(handles))
    figure.legend(handles.values(), [*handles], loc="outside lower center", ncols=columns)
    band = "band: one standard deviation over seeds of the mean over tasks"
    figure.suptitle(f"{TITLES[question]} ({band})", fontsize="medium")


def draw_band(
    panel: Any,
    answers: Answers,
    asked: tuple[Question, str],
    values: tuple[str, ...],
    column: str,
    way: str,
    **style: Any,
) -> None:
    """The line of one network and way with its band; nothing where the way is not defined."""
    found = [answers.average(column, *asked, value, way) for value in values]
    fields = [field for field in found if field is not None]
    if len(fields) < len(values):
        return
    places = range(len(values))
    means = [100 * field.mean for field in fields]
    widths = [100 * (field.std or 0.0) for field in fields]
    panel.plot(places, means, **style)
    low = [mean - width for mean, width in zip(means, widths, strict=True)]
    high = [mean + width for mean, width in zip(means, widths, strict=True)]
    panel.fill_between(places, low, high, color=style["color"], alpha=0.15, lw=0)


def _draw_network(
    panel: Any,
    answers: Answers,
    asked: tuple[Question, str],
    values: tuple[str, ...],
    column: str,
) -> None:
    """A line with its band for each way; dashed, the network as it was trained."""
    for index, way in enumerate(answers.study.questions.ways):
        style = {"color": COLOURS[index % len(COLOURS)], "marker": "o", "ms": 3}
        draw_band(panel, answers, asked, values, column, way, label=WAYS.get(way, way), **style)
    level = 100 * answers.as_trained(column).mean
    panel.axhline(level, color="0.2", ls="--", lw=1, label="as trained")
