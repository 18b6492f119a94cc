"""A report as data: what it says, of which every format is a way to write it down."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from da.grids.plan import Plan
from da.reports.runs import Run
from da.reports.tables import Table, tables

if TYPE_CHECKING:
    from da.reports.costs import Costs


@dataclass(frozen=True)
class Section:
    """A part of a report with one table.

    Attributes:
        title: its heading.
        text: our own words in front of the table, in which ``*`` and ``**`` emphasise.
        header: titles of the columns; empty where there is no table.
        rows: fields as plain texts, :class:`.texts.Strong` ones in bold.
        left: numbers of the columns that hold words and no numbers.
    """

    title: str
    text: str
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    left: Collection[int] = (0,)


@dataclass(frozen=True)
class Fact:
    """One thing that has to be known of a grid, under its name; a command is shown as such."""

    name: str
    text: str
    is_command: bool = False


@dataclass(frozen=True)
class Report:
    """All that is known of a grid, at its end or before.

    Attributes:
        plan: what was to be trained.
        runs: every place of it, and what came of it.
        tables: of each row of rates and method: last, label-free by the grid's score, oracle, and
            the source's where something is swept.
        out: the folder that the report is written to.
        folders: of the results; several where grids were joined.
        costs: of each normaliser, where a benchmark was named.
    """

    plan: Plan
    runs: list[Run]
    tables: list[Table]
    out: Path = field(default_factory=Path)
    folders: tuple[Path, ...] = ()
    costs: Costs | None = None

    @cached_property
    def by_other_scores(self) -> list[Table]:
        """Label-free tables by the scores of the grid that do not pick its label-free epoch."""
        found = []
        for score in dict.fromkeys(self.plan.grid.scores):
            if score != self.plan.grid.score:
                grid = self.plan.grid.model_copy(update={"score": score})
                plan = self.plan.model_copy(update={"grid": grid})
                runs = [replace(run, score=score) for run in self.runs]
                found += [t for t in tables(plan, runs) if t.selection == "label-free"]
        return found

    @cached_property
    def facts(self) -> list[Fact]:
        """What stands at the head of the report."""
        from da.reports.facts import facts_of

        return facts_of(self.plan, self.runs)

    @cached_property
    def sections(self) -> list[Section]:
        """What follows the comparison: picks, normalisers, costs, trainings, alarms, rates."""
        from da.reports import (
            against_baseline,
            alarms,
            costs,
            rate_range,
            score_picks,
            setting_scores,
            stability,
            unlabelled_scores,
        )

        return [
            *chain(
                unlabelled_scores.sections(self.plan, self.runs),
                score_picks.sections(self.plan, self.tables, self.by_other_scores),
                against_baseline.sections(self.tables),
                costs.sections(self.tables, self.costs) if self.costs else (),
                stability.sections(stability.stabilities(self.runs)),
                alarms.sections(self.runs),
                setting_scores.sections(
                    setting_scores.setting_scores(self.plan, self.runs), self.plan.grid.score
                ),
                rate_range.sections(rate_range.rate_ranges(self.plan, self.tables)),
            )
        ]

    @property
    def has_overview(self) -> bool:
        """Whether there are several methods or rows of rates, or averages of a sweep."""
        grid = self.plan.grid
        several = len(grid.methods) * len(grid.rows) > 1
        return several or (len(grid.points()) > 1 and len(self.plan.tasks) > 1)

    @property
    def has_labels(self) -> bool:
        """Whether anything may be shown as an accuracy of the target."""
        return any(table.is_of_target for table in self.tables)


def rates(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Learning rates by method, normaliser and batch size: header and rows."""
    found: dict[tuple[str, ...], dict[str, None]] = {}
    for run in runs:
        cell = run.entry.cell
        key = (run.entry.row, cell.method, cell.norm, str(cell.batch_size))
        found.setdefault(key, {})[f"{cell.lr:g}"] = None  # by task, where overrides say so
    header = ["row", "method", "normaliser", "batch", "learning rate"]
    return header, [[*key, ", ".join(values)] for key, values in found.items()]
