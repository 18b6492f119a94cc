"""A report as one page that holds all it needs: no file beside it, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from da.reports.class_accuracies import ClassAccuracies, class_accuracies
from da.reports.class_confusions import class_confusions
from da.reports.model import Report, rates
from da.reports.page import comparison, confusions, overview, pictures, trainings
from da.reports.page.templates import emphasised, fill_template
from da.reports.renderer import Renderer
from da.reports.runs import Column
from da.reports.texts import LEGEND, missing, partial, unlabelled_notes

MOST_CLASSES = 60
"""Classes of a table on the page; of more, those with the lowest accuracy."""

MOST_CLASS_CELLS = 20_000
"""Fields of all these tables; what comes after is in classes.csv alone."""


class Page(Renderer):
    """``report.html``: it opens without scripts, too, with every table and none to sort."""

    file: ClassVar[str] = "report.html"

    def render(self, report: Report) -> str:
        """See :class:`da.reports.renderer.Renderer`."""
        return fill_template("page.html", **_content(report))


def _content(report: Report) -> dict[str, Any]:
    """What the template shows, by its names there."""
    plan, runs = report.plan, report.runs
    shown = report.tables
    columns = trainings.form_columns(report)
    norm_columns = [Column(norm) for norm in plan.grid.norms]
    comparisons = shown[0].comparisons if shown else 1
    curves = list(trainings.curves(report))
    classes = list(_class_tables(class_accuracies(plan, runs)))
    sections = [(f"section-{i}", section) for i, section in enumerate(report.sections)]
    absent = missing(runs)
    said = partial(runs)
    numbers = {"seeds": len(plan.grid.seeds), "comparisons": comparisons}
    content: dict[str, Any] = {
        "title": "BN or WA under shift",
        "partial": said and f"{said[0].upper()}{said[1:]}.",
        "facts": report.facts,
        "has_labels": report.has_labels,
        "explanations": [emphasised(text.format(**numbers)) for text in LEGEND],
        "choices": comparison.choices(report),
        "overviews": overview.overviews(report),
        "overview_title": overview.heading(report),
        "methods": list(comparison.methods(report)),
        "unlabelled": " ".join(unlabelled_notes([t for t in shown if not t.has_labels])),
        "styles": comparison.styles(columns),
        "norm_styles": comparison.styles(norm_columns),
        "curves": curves,
        "curves_text": _curves_text(report),
        "picks": trainings.PICKS if report.has_labels else {},
        "classes": classes,
        "confusions": list(confusions.confusions(class_confusions(plan, runs))),
        "classes_left_out": _left_out(classes),
        "pictures": list(pictures.groups(report.folders, report.out)),
        "no_pictures": _no_pictures(report),
        "sections": sections,
        "missing": absent,
        "refused": plan.refused,
        "runs": list(trainings.run_rows(report)),
        "run_header": trainings.header(report),
        "common": trainings.common_settings(report),
        "environments": list(trainings.environments(report)),
        "rates": rates(runs),
    }
    rows = plan.grid.rows
    row = f", {rows[0]} learning rate" if len(rows) == 1 else ""  # where it tells nothing apart
    content["contents"] = [
        ("comparison", "Comparison"),
        *([("averages", content["overview_title"])] if content["overviews"] else []),
        *((method.id, method.title.removesuffix(row)) for method in content["methods"]),
        *([("curves", "Training curves")] if curves else []),
        *([("classes", "Accuracy by class")] if classes else []),
        *([("confusion", "Confusion")] if classes else []),
        ("pictures", "Pictures"),
        *((name, section.title) for name, section in sections),
        *([("missing", "Missing")] if absent else []),
        *([("refused", "Refused")] if plan.refused else []),
        ("runs", "Runs, settings, machines"),
    ]
    return content


def _curves_text(report: Report) -> str:
    if report.has_labels:
        return (
            "Accuracy on the target's test images over each training, a line for each seed, of the "
            "network as it was trained; marked are the epochs that each selection picks."
        )
    return (
        "Accuracy on the source's test images over each training: the target has no labels, and "
        "nothing is shown as an accuracy of it."
    )


def _no_pictures(report: Report) -> str:
    what = "t-SNE, confusion of classes and what the layers put out"
    if pictures.has_checkpoints(report.folders):
        return f"None are drawn yet: report --pictures draws {what}, from the checkpoints."
    return (
        f"None: {what} are drawn from checkpoints, and these trainings kept none (ablate --keep)."
    )


@dataclass(frozen=True)
class _ClassTable:
    title: str
    columns: list[str]
    rows: list[tuple[str, list[float | None]]]
    of: int


def _class_tables(found: Sequence[ClassAccuracies]) -> Iterator[_ClassTable]:
    left = MOST_CLASS_CELLS
    for one in found:
        columns = list(dict.fromkeys(c for by_column in one.classes.values() for c in by_column))
        rows = [
            (name, [100 * by[c].mean if c in by else None for c in columns])
            for name, by in one.classes.items()
        ]
        if len(rows) > MOST_CLASSES:
            rows = sorted(rows, key=lambda row: _mean(row[1]))[:MOST_CLASSES]
        left -= len(rows) * len(columns)
        if left < 0:
            return
        yield _ClassTable(one.title, [*map(str, columns)], rows, len(one.classes))


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 101.0


def _left_out(tables: Sequence[_ClassTable]) -> str:
    if any(table.of > len(table.rows) for table in tables):
        most = max(table.of for table in tables)
        return f"The {MOST_CLASSES} lowest of {most} classes; all are in classes.csv."
    return "With deviations they are in classes.csv."
