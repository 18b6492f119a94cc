"""A report as CSV: its tables, one row per run, and every score; all unrounded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from da.ops.csv_text import csv_text
from da.reports.class_accuracies import class_accuracies
from da.reports.class_confusions import class_confusions
from da.reports.model import Report
from da.reports.renderer import Renderer
from da.reports.runs import scores, tidy
from da.reports.tables import Table


class Tables(Renderer):
    """``table.csv``: the tables."""

    file: ClassVar[str] = "table.csv"

    def render(self, report: Report) -> str:
        """See :class:`da.reports.renderer.Renderer`."""
        return csv_text(table_rows(report.tables))


class Runs(Renderer):
    """``runs.csv``: one row per run, with its folder."""

    file: ClassVar[str] = "runs.csv"

    def render(self, report: Report) -> str:
        """See :class:`da.reports.renderer.Renderer`."""
        return csv_text(tidy(report.runs))


class Scores(Renderer):
    """``scores.csv``: every score of every run, form and selection."""

    file: ClassVar[str] = "scores.csv"

    def render(self, report: Report) -> str:
        """See :class:`da.reports.renderer.Renderer`."""
        return csv_text(scores(report.runs))


class Classes(Renderer):
    """``classes.csv``: the accuracy of every class at the last epoch, over seeds, in percent."""

    file: ClassVar[str] = "classes.csv"

    def render(self, report: Report) -> str:
        """See :class:`da.reports.renderer.Renderer`."""
        return csv_text(
            [
                {
                    **one.keys,
                    **{"normaliser": str(column), "class": name},
                    **{"mean": _scaled(whole.mean), "std": _scaled(whole.std), "seeds": whole.n},
                }
                for one in class_accuracies(report.plan, report.runs)
                for name, by_column in one.classes.items()
                for column, whole in by_column.items()
            ],
            ["lr_row", "method", "task"],
        )


class Confusions(Renderer):
    """``confusion.csv``: what the classes are taken for at the last epoch, over seeds."""

    file: ClassVar[str] = "confusion.csv"

    def render(self, report: Report) -> str:
        """See :class:`da.reports.renderer.Renderer`."""
        return csv_text(
            [
                {
                    **one.keys,
                    **{"normaliser": str(column), "class": true, "predicted": predicted},
                    **{"images": images, "share": _scaled(confusion.share(true, predicted))},
                    "seeds": confusion.runs,
                }
                for one in class_confusions(report.plan, report.runs)
                for column, confusion in one.by_column.items()
                for true, row in confusion.images.items()
                for predicted, images in row.items()
            ],
            ["lr_row", "method", "task"],
        )


def table_rows(shown: Sequence[Table]) -> list[dict[str, Any]]:
    """The tables as rows of a CSV, accuracies and differences in percent, unrounded."""
    rows = []
    for table in shown:
        for line in table.lines:
            row: dict[str, Any] = {
                "lr_row": table.row,
                "method": table.method,
                "selection": table.selection,
                "stream": table.stream,
                "task": line.task or "average",
                **line.point,
                "tasks": len(line.tasks) if line.is_average else 1,
                "sampling_error": _scaled(line.sampling_error),
            }
            for column, field in line.fields.items():
                whole = field.summary
                row[f"{column} mean"] = _scaled(whole.mean if whole else None)
                row[f"{column} std"] = _scaled(whole.std if whole else None)
                row[f"{column} seeds"] = whole.n if whole else field.done
            for difference in line.differences:
                these = difference.these
                row[difference.name] = _scaled(these.difference if these else None)
                for question, paired in (
                    ("on these tasks", these),
                    ("on tasks like these", difference.like),
                ):
                    for key in ("low", "high", "detectable"):
                        value = getattr(paired, key) if paired else None
                        row[f"{difference.name} {question} {key}"] = _scaled(value)
            rows.append(row)
    return rows


def _scaled(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 4)
