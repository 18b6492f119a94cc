"""The pictures of a study of target statistics: one per question, a panel per way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from da.grids.statistics_study import QUESTIONS, Question
from da.reports.figure_style import COLOURS, write
from da.reports.target_statistics import TITLES, WAYS, axis
from da.reports.target_statistics_answers import Answers
from da.reports.target_statistics_panels import draw_panels

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
    drawn = [panel.get_legend_handles_labels() for panel in axes.flat]
    by_name = {name: handle for some in drawn for handle, name in zip(*some, strict=True)}
    names = list(by_name)
    figure.legend(by_name.values(), names, loc="outside lower center", ncols=min(6, len(names)))
    band = "band: one standard deviation over seeds of the mean over tasks"
    figure.suptitle(f"{TITLES[question]} ({band})", fontsize="medium")
    return figure


def _lines(
    panel: Any, answers: Answers, asked: tuple[Question, str], values: tuple[str, ...], way: str
) -> None:
    """A line with its band per network; dashed, those of the comparison as they were trained."""
    challenger, baselines = answers.study.plan.grid.comparison
    compared = {challenger, *baselines}
    places = range(len(values))
    for index, column in enumerate(answers.columns):
        colour = COLOURS[index % len(COLOURS)]
        found = [answers.average(column, *asked, value, way) for value in values]
        fields = [field for field in found if field is not None]
        if len(fields) == len(values):  # the way is defined for this network
            means = [100 * field.mean for field in fields]
            widths = [100 * (field.std or 0.0) for field in fields]
            marker = LINE_MARKERS[index % len(LINE_MARKERS)]
            panel.plot(places, means, color=colour, marker=marker, ms=4, label=column)
            low = [mean - width for mean, width in zip(means, widths, strict=True)]
            high = [mean + width for mean, width in zip(means, widths, strict=True)]
            panel.fill_between(places, low, high, color=colour, alpha=0.15, lw=0)
        if column.rpartition(" ")[2] in compared:
            level = 100 * answers.as_trained(column).mean
            panel.axhline(level, color=colour, ls="--", lw=1, label=f"{column} as trained")
