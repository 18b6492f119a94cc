"""What the page shows of single trainings: curves with the epochs picked, settings, machines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from da.engine.result import SELECTIONS, Result, Selection
from da.reports.model import Report
from da.reports.page.charts import COLOURS, Axis, Line, chart, ticks
from da.reports.page.comparison import Cell
from da.reports.runs import Column, Run, columns
from da.reports.tables import has_accuracy, point_text
from da.reports.texts import percent

PICKS: dict[Selection, str] = {"last": "square", "label-free": "diamond", "oracle": "triangle"}
"""Markers of the selections on a curve."""

PANEL = (340, 210)


@dataclass(frozen=True)
class Curves:
    """The curves of one method in one row of rates: a chart for each task and swept point."""

    title: str
    charts: list[tuple[str, Markup]]


@dataclass(frozen=True)
class RunRow:
    """One run: its place, state and accuracies, and below them what is its own."""

    id: str
    cells: list[Cell]
    facts: list[tuple[str, str]]
    curve: Markup | None


@dataclass(frozen=True)
class Environment:
    """Versions and machine that results share, and how many do."""

    machine: str
    versions: str
    runs: int


def curves(report: Report) -> Iterator[Curves]:
    """Accuracy on the target over a training; of a target without labels, on the source."""
    norms = list(report.plan.grid.norms)
    for row in report.plan.grid.rows:
        for method in report.plan.grid.methods:
            charts = []
            for task in report.plan.tasks:
                for point in report.plan.grid.points():
                    mine = [
                        run
                        for run in report.runs
                        if (run.entry.row, run.entry.cell.method) == (row, method)
                        and (run.entry.cell.task, run.entry.point) == (task, point)
                    ]
                    if lines := [line for run in mine for line in _lines(run, norms)]:
                        where = f", {point_text(point)}" if point else ""
                        charts.append((f"{task}{where}", _chart(f"{task}{where}", lines)))
            if charts:
                yield Curves(f"{method}, {row} learning rate", charts)


def _lines(run: Run, norms: Sequence[str]) -> Iterator[Line]:
    """The network as it was trained, with the epochs that are picked."""
    if run.result is None:
        return
    stream = "target/test" if has_accuracy(run.result, "target/test") else "source/test"
    points = _points(run.result, "", stream)
    if not points:
        return
    cell = run.entry.cell
    marks = []
    picks = PICKS if stream == "target/test" else {}
    for selection, shape in picks.items():
        chosen = run.selected("", selection)
        if chosen is not None:
            accuracy = chosen.forms[""][stream].accuracy
            if accuracy is not None:
                marks.append(
                    (shape, float(chosen.step), 100 * accuracy, f"{selection}, step {chosen.step}:")
                )
    yield Line(
        f"{cell.norm}, seed {cell.seed}",
        f"c{norms.index(cell.norm) % COLOURS}",
        points,
        marks=marks,
    )


def _points(result: Result, form: str, stream: str) -> list[tuple[float, float]]:
    """Steps and accuracies in percent; nothing where the images have no labels."""
    found = []
    for evaluation in result.evaluations:
        scores = evaluation.forms[form].get(stream)
        if scores is not None and scores.accuracy is not None:
            found.append((float(evaluation.step), 100 * scores.accuracy))
    return found


def _chart(title: str, lines: list[Line], size: tuple[int, int] = PANEL) -> Markup:
    places = [place for line in lines for place, _ in line.points]
    ends = min(places), max(places)
    axis = Axis("step", [(tick, f"{tick:g}") for tick in ticks(*ends)], ends)
    return chart(f"accuracy in percent over the training, {title}", lines, axis, size)


def header(report: Report) -> list[str]:
    """Titles of the table of runs."""
    swept = [name.removeprefix("model.") for name in report.plan.grid.sweep]
    rates = ["rates"] if len(report.plan.grid.rows) > 1 else []
    names = [*rates, "task", "method", "normaliser", "seed", *swept, "state"]
    return [*names, *shown_selections(report), "seconds"]


def shown_selections(report: Report) -> Sequence[Selection]:
    """Whose accuracies the runs are listed with: nothing is one where no target has labels."""
    return SELECTIONS if report.has_labels else ()


def run_rows(report: Report) -> Iterator[RunRow]:
    """One per run, in the order of the grid."""
    numbers = _numbers(report)
    shared = common_settings(report)
    for run in report.runs:
        facts = [("cell", run.entry.cell.id)]
        if run.state != "pending":
            facts.append(("folder", run.folder))
        if run.reason:
            facts.append(("reason", run.reason))
        settings = flat_settings(run.entry.cell.model_dump(mode="json"))
        facts += [(name, text) for name, text in settings.items() if name not in shared]
        if run.result is not None:
            facts += _facts(run, run.result, numbers[_environment(run.result)])
        yield RunRow(run.entry.cell.id, _cells(report, run), facts, _own_curve(run))


def _cells(report: Report, run: Run) -> list[Cell]:
    """The fields under :func:`header`."""
    cell, result = run.entry.cell, run.result
    place: list[Any] = [run.entry.row] if len(report.plan.grid.rows) > 1 else []
    place += [cell.task, cell.method, cell.norm, cell.seed, *run.entry.point.values()]
    cells = [Cell(str(v), v if isinstance(v, (int, float)) else str(v)) for v in place]
    state = "not run" if run.state == "pending" else run.state
    cells.append(Cell(state, state, "" if result else "absent"))
    for selection in shown_selections(report):
        accuracy = run.accuracy("", selection)
        cells.append(Cell("–" if accuracy is None else percent(accuracy), accuracy))
    seconds = result.seconds.total if result else None
    return [*cells, Cell("–" if seconds is None else f"{seconds:.1f}", seconds)]


def _facts(run: Run, result: Result, environment: int) -> Iterator[tuple[str, str]]:
    """What a result says of its training."""
    for form in result.forms:
        picked = []
        for selection in SELECTIONS:
            chosen = run.selected(form, selection)
            accuracy = None if chosen is None else chosen.forms[form]["target/test"].accuracy
            if chosen is not None:
                value = "" if accuracy is None else f" ({percent(accuracy)})"
                picked.append(f"{selection} epoch {chosen.epoch + 1}{value}")
        yield f"{Column(run.entry.cell.norm, form)}", ", ".join(picked)
    yield "parameters", f"{result.parameters}"
    if result.part_norms:
        yield "normaliser of each part", ", ".join(f"{k} {v}" for k, v in result.part_norms.items())
    if result.alarms is not None:
        alarms = [f"{alarm.name} at step {alarm.step}" for alarm in result.alarms]
        yield "alarms", ", ".join(alarms) or "none"
    if result.clipped_fraction is not None:
        yield "gradient clipped", f"{100 * result.clipped_fraction:.0f} % of the steps"
    spent = result.seconds
    yield "seconds", f"{spent.training:.1f} training, {spent.evaluation:.1f} evaluation"
    if result.data_manifest:
        yield "data manifest", result.data_manifest[:12]
    yield "machine and versions", f"number {environment} below"


def _own_curve(run: Run) -> Markup | None:
    """Target and source accuracy over one training, in every form; none where nothing is known."""
    if run.result is None:
        return None
    lines = []
    for number, form in enumerate(run.result.forms):
        column = Column(run.entry.cell.norm, form)
        if points := _points(run.result, form, "target/test"):
            lines.append(Line(f"target, {column}", f"c{number % COLOURS}", points, "circle"))
    if points := _points(run.result, "", "source/test"):
        lines.append(Line("source", "c6 dashed", points))
    if not lines or len(lines[0].points) < 2:
        return None
    return _chart(str(run.entry.cell), lines, (320, 180))


def flat_settings(settings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings with the path of each: ``{"model_args.backbone": "resnet50"}``."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            flat |= flat_settings(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def common_settings(report: Report) -> dict[str, str]:
    """The settings that all runs share."""
    every = [flat_settings(cell.model_dump(mode="json")) for cell in report.plan.cells]
    return {k: v for k, v in every[0].items() if all(one.get(k) == v for one in every[1:])}


def _environment(result: Result) -> tuple[str, str]:
    return result.machine, ", ".join(f"{name} {number}" for name, number in result.versions.items())


def _numbers(report: Report) -> dict[tuple[str, str], int]:
    """Every machine with every set of versions that there are results of, numbered from 1."""
    every = [_environment(run.result) for run in report.runs if run.result is not None]
    return {one: number for number, one in enumerate(dict.fromkeys(every), start=1)}


def environments(report: Report) -> Iterator[Environment]:
    """Machines and versions, in the order of their numbers."""
    every = [_environment(run.result) for run in report.runs if run.result is not None]
    for machine, versions in _numbers(report):
        count = every.count((machine, versions))
        yield Environment(machine or "–", versions or "–", count)


def form_columns(report: Report) -> list[Column]:
    """The columns of all tables."""
    return columns(report.runs, list(report.plan.grid.norms))
