"""The page of a study of target statistics: accuracy against images, mixture and order."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from da.grids.statistics_study import REESTIMATED, Question
from da.reports.model import Fact
from da.reports.page.charts import COLOURS, Axis, Line, chart
from da.reports.page.templates import fill_template
from da.reports.target_statistics import (
    LEGEND,
    NOT_DEFINED,
    TITLES,
    WAYS,
    axis,
    facts,
    field_text,
    flips,
    table,
)
from da.reports.target_statistics_answers import Answers
from da.reports.texts import count

MARKERS = ("circle", "square", "triangle", "diamond")

AXIS_NAMES: dict[Question, str] = {
    "images": "target images",
    "mixture": "share of other images",
    "label_shift": "order of the images",
}
"""Under the charts; the text above them says it in full."""


@dataclass(frozen=True)
class _Asked:
    """One question about one domain that is mixed in, or none."""

    id: str
    title: str
    axis: str
    charts: list[tuple[str, Markup]]
    header: list[str]
    rows: list[list[str]]
    flips: list[str]


def html(answers: Answers) -> str:
    """``report.html`` of a study, which holds all it needs as that of a grid does."""
    study = answers.study
    defined = all(answers.is_defined(c, w) for c in answers.columns for w in study.questions.ways)
    tasks = f"{len(answers.tasks)} of {count(len(study.plan.tasks), 'task')}"
    left_out = f"Complete in no task, so left out: {', '.join(answers.left_out)}."
    return fill_template(
        "study.html",
        title="When do target statistics fail?",
        facts=[Fact(name, text, name == "command") for name, text in facts(answers)],
        explanation=LEGEND.format(tasks=tasks, reestimated=REESTIMATED),
        remarks=[
            *([] if defined else [NOT_DEFINED]),
            *([left_out] if answers.left_out else []),
        ],
        trained=[[column, field_text(answers.as_trained(column))] for column in answers.columns],
        styles=_styles(answers),
        questions=[
            _asked(answers, number, *series)
            for number, series in enumerate(
                study.questions.series() if answers.columns else [], start=1
            )
        ],
        missing=[f"{one.entry.cell}: {one.missing}" for one in answers.all if one.missing],
        networks=len(answers.all),
    )


def _styles(answers: Answers) -> dict[str, tuple[str, str]]:
    """Class and marker of every network."""
    return {
        column: (f"c{number % COLOURS}", MARKERS[number % len(MARKERS)])
        for number, column in enumerate(answers.columns)
    }


def _asked(
    answers: Answers, number: int, question: Question, other: str, values: tuple[str, ...]
) -> _Asked:
    header, rows = table(answers, question, other, values)
    return _Asked(
        f"question-{number}",
        TITLES[question] + (f": {other}" if other else ""),
        axis(question, other),
        [
            (WAYS.get(way, way), _chart(answers, question, other, values, way))
            for way in answers.study.questions.ways
        ],
        header,
        rows,
        flips(answers, question, other, values),
    )


def _chart(
    answers: Answers, question: Question, other: str, values: tuple[str, ...], way: str
) -> Markup:
    lines = []
    for column, (style, shape) in _styles(answers).items():
        found = [answers.average(column, question, other, value, way) for value in values]
        known = [(place, one) for place, one in enumerate(found) if one is not None]
        points = [(place, 100 * one.mean) for place, one in known]
        deviations = [100 * (one.std or 0.0) for _, one in known]
        lines.append(Line(column, style, points, shape, deviations=deviations))
    words = f"target accuracy in percent, {WAYS.get(way, way)}: {axis(question, other)}"
    places = Axis(AXIS_NAMES[question], [*enumerate(values)], (0, len(values) - 1))
    return chart(words, lines, places)
