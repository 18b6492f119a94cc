"""The answers of a study of target statistics: by network, and averaged over tasks and seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from da.grids.plan import Entry
from da.grids.statistics_run import MeasurementStore, StudyPlan
from da.grids.statistics_study import Measurements, Question
from da.grids.store import Store
from da.reports.statistics import Summary, summary


@dataclass(frozen=True)
class Answer:
    """One trained network of the plan, and its measurements where there are any."""

    entry: Entry
    measurements: Measurements | None
    missing: str = ""

    @property
    def trained(self) -> float:
        """Of the network as it was trained."""
        assert self.measurements is not None  # for mypy: only complete tasks are asked
        return self.measurements.trained

    def accuracy(self, question: Question, other: str, value: str, way: str) -> float | None:
        """The mean over the draws; as trained, of what changes nothing; None if not defined."""
        measured = self.measurements
        assert measured is not None  # for mypy: only complete tasks are asked
        values = [
            m.accuracy
            for m in measured.measured
            if (m.question, m.other, m.value, m.way) == (question, other, value, way)
        ]
        if values:
            return sum(values) / len(values)
        return None if measured.statistics else measured.trained


@dataclass(frozen=True)
class Answers:
    """All of a study: by column (normaliser), task and seed.

    Attributes:
        study: what was asked of whom.
        all: one per network, in the order of the plan.
        columns: those that are complete in a task at least.
        tasks: complete for all of these columns; averages are over them.
        left_out: columns that are complete in none.
    """

    study: StudyPlan
    all: list[Answer]
    columns: list[str]
    tasks: list[str]
    left_out: list[str]

    def column_of(self, entry: Entry) -> str:
        """The normaliser, with the method where there are several."""
        cell = entry.cell
        return cell.norm if len(self.study.plan.grid.methods) == 1 else f"{cell.method} {cell.norm}"

    def of(self, column: str, task: str) -> list[Answer]:
        """One answer per seed."""
        return [
            answer
            for answer in self.all
            if self.column_of(answer.entry) == column and answer.entry.cell.task == task
        ]

    def as_trained(self, column: str) -> Summary:
        """Over seeds, of the mean over tasks, of networks as they were trained."""
        whole = self._over_seeds(column, lambda answer: answer.trained)
        assert whole is not None  # for mypy: each network was measured as trained
        return whole

    def average(
        self, column: str, question: Question, other: str, value: str, way: str
    ) -> Summary | None:
        """Over seeds, of the mean over tasks; None where the way is not defined for a network."""
        return self._over_seeds(column, lambda answer: answer.accuracy(question, other, value, way))

    def _over_seeds(
        self, column: str, value_of: Callable[[Answer], float | None]
    ) -> Summary | None:
        by_seed: dict[int, list[float]] = {}
        for task in self.tasks:
            for answer in self.of(column, task):
                value = value_of(answer)
                if value is None:
                    return None
                by_seed.setdefault(answer.entry.cell.seed, []).append(value)
        return summary([sum(values) / len(values) for values in by_seed.values()])

    def is_defined(self, column: str, way: str) -> bool:
        """Whether a way can be asked of a network."""
        question, other, values = self.study.questions.series()[0]
        return self.average(column, question, other, values[0], way) is not None

    @property
    def with_statistics(self) -> list[str]:
        """Columns that have batch norm."""
        return [
            column
            for column in self.columns
            if any(
                a.measurements and a.measurements.statistics for a in self.of(column, self.tasks[0])
            )
        ]


def load(out: Path, study: StudyPlan) -> Answers:
    """Reads all measurements of a study."""
    store = MeasurementStore(out, study.questions.id)
    trainings = Store(out), Store(Path(study.trained))
    every = []
    for entry in study.plan.entries:
        measurements, why = store.result(entry.cell), ""
        if measurements is None:
            failures = [s.failure(entry.cell) for s in (store, *trainings)]
            reason = next((f for f in failures if f is not None), None)
            why = f"{reason.state}: {reason.reason}" if reason else "not measured"
        every.append(Answer(entry, measurements, why))
    answers = Answers(study, every, [], [], [])
    columns = list(dict.fromkeys(answers.column_of(answer.entry) for answer in every))
    complete = {
        column: [
            task
            for task in study.plan.tasks
            if all(answer.measurements for answer in answers.of(column, task))
        ]
        for column in columns
    }
    shown = [column for column in columns if complete[column]]
    tasks = [t for t in study.plan.tasks if shown and all(t in complete[c] for c in shown)]
    left_out = [column for column in columns if column not in shown]
    return Answers(study, every, shown if tasks else [], tasks, left_out)
