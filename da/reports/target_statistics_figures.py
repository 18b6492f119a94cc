"""The pictures of a study of target statistics: one per question, a panel per way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from da.grids.statistics_study import QUESTIONS, Question
from da.reports.figure_style import COLOURS, write
from da.reports.target_statistics import WAYS, axis
from da.reports.target_statistics_answers import Answers
from da.reports.target_statistics_panels import add_titles, draw_band, draw_panels

LINE_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def save_figures(out: Path, answers: Answers) -> list[Path]:
    """Writes ``images.png``, ``mixture.png`` and ``label_shift.png``, those that are answered.

    The others are removed: they would be of results that are no more.
    """
    series = answers.study.questions.series() if answers.columns else []
    asked = [question for question, _, _ in series]
    for question in QUESTIONS:
        if question not in asked:
            for kind in ("png", "svg"):
                (out / f"{question}.{kind}").unlink(missing_ok=True)
    many = len(answers.columns) > len(COLOURS)
    return [
        path
        for question in dict.fromkeys(asked)
        for path in write((draw_panels if many else draw)(answers, question), out / question)
    ]


def draw(answers: Answers, question: Question) -> Any:
    """A row of panels for each thing that the target is mixed with, a column for each way."""
    from matplotlib.figure import Figure

    series = [s for s in answers.study.questions.series() if s[0] == question]
    ways = answers.study.questions.ways
    size = (1.2 + 3.3 * len(ways), 1.3 + 2.9 * len(series))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(series), len(ways), sharey=True, squeeze=False)
    for row, (_, other, values) in zip(axes, series, strict=True):
        for panel, way in zip(row, ways, strict=True):
            _lines(panel, answers, (question, other), values, way)
            panel.set_title(WAYS.get(way, way), fontsize="medium")
            panel.grid(color="0.9")
            panel.set_xticks(range(len(values)), values)
        row[0].set_ylabel("target accuracy (%)")
        row[len(ways) // 2].set_xlabel(axis(question, other))
    add_titles(figure, axes.flat, question)
    return figure


def _lines(
    panel: Any, answers: Answers, asked: tuple[Question, str], values: tuple[str, ...], way: str
) -> None:
    """A line with its band per network; dashed, those of the comparison as they were trained."""
    challenger, baselines = answers.study.plan.grid.comparison
    compared = {challenger, *baselines}
    for index, column in enumerate(answers.columns):
        colour = COLOURS[index % len(COLOURS)]
        style = {"color": colour, "marker": LINE_MARKERS[index % len(LINE_MARKERS)], "ms": 4}
        draw_band(panel, answers, asked, values, column, way, label=column, **style)
        if column.rpartition(" ")[2] in compared:
            level = 100 * answers.as_trained(column).mean
            panel.axhline(level, color=colour, ls="--", lw=1, label=f"{column} as trained")
