"""Runs a study of target statistics: trains what no grid has kept, then measures, then reports."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from da.engine.run_folder import RESULT
from da.engine.spec import RunSpec
from da.errors import UserError
from da.grids import plan as plans
from da.grids.grid import Grid
from da.grids.plan import Plan
from da.grids.session import CHECK, Session, interruptible
from da.grids.statistics_study import Measurements, Questions, Study
from da.grids.store import ResultStore, Store
from da.ops.sealed_json import read_sealed, write_sealed

MEASURE = "da.analysis.target_statistics:measure"
CHECK_QUESTIONS = "da.grids.statistics_study:check_questions"

STUDY = "study.json"
"""The file that says what the measurements of an output folder belong to."""

CHECKPOINT = "last.ckpt"


class MeasurementStore(ResultStore[Measurements]):
    """The measurements of a study: ``OUT/measurements/<id of the cell>-<id of the questions>/``."""

    folder = "measurements"
    redo = "measure"

    def __init__(self, root: Path, asked: str) -> None:
        super().__init__(root)
        self.asked = asked

    def directory(self, cell: RunSpec) -> Path:
        """Of a cell, for these questions: others of before stay beside them."""
        return self.root / self.folder / f"{cell.id}-{self.asked}"

    def parse(self, text: str) -> Measurements:
        """See :meth:`ResultStore.parse`."""
        return Measurements.model_validate_json(text)

    def read(self, directory: Path) -> Measurements:
        """See :meth:`ResultStore.read`."""
        path = directory / RESULT
        advice = "remove that file to measure again"
        content = read_sealed(path, "measurements", advice).content
        try:
            return Measurements.model_validate(content)
        except ValidationError as error:
            reason = plans.first_problem(error)
            raise UserError(f"measurements: '{path}' is not valid ({reason}); {advice}") from None

    def write(self, directory: Path, result: Measurements) -> None:
        """See :meth:`ResultStore.write`."""
        write_sealed(directory / RESULT, result.model_dump(mode="json"))


class StudyPlan(BaseModel):
    """A study that was checked and resolved: ``OUT/study.json``."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    questions: Questions
    trained: str
    """The folder of the grid whose kept checkpoints were used."""
    plan: Plan


def write(out: Path, study: StudyPlan) -> None:
    """Records what the measurements in a folder belong to."""
    write_sealed(out / STUDY, study.model_dump(mode="json"))


def read(out: Path) -> StudyPlan:
    """The plan of a study's output folder.

    Raises:
        UserError: it is damaged.
    """
    advice = "run the ablate command again"
    content = read_sealed(out / STUDY, "study", advice).content
    try:
        return StudyPlan.model_validate(content)
    except ValidationError as error:
        reason = plans.first_problem(error)
        raise UserError(f"study: '{out / STUDY}' is not valid ({reason}); {advice}") from None


Show = Callable[[Session, StudyPlan], str]
"""Writes and shows what the measurements say; gives the files in words."""


@dataclass
class StudyRun:
    """What a study's commands share.

    Attributes:
        session: of the trainings, in the study's own folder, with checkpoints kept.
        study: what is asked.
        grid: of whom.
        command: what the user typed.
        tune: the command that makes missing learning rates.
        trained: the grid's output folder.
        measure: ``"module:name"`` of the function that measures a cell.
    """

    session: Session
    study: Study
    grid: Grid
    command: str
    tune: str
    trained: Path
    measure: str = MEASURE

    def asked(self) -> tuple[dict[str, Any], str, dict[str, Any]]:
        """The arguments of :func:`da.grids.statistics_study.check_questions`."""
        questions = self.study.questions().model_dump(mode="json")
        return questions, self.grid.data, self.grid.data_args

    def checkpoints(self, cells: list[RunSpec]) -> dict[str, str]:
        """Files of finished trainings by identity: the grid's, or else the study's own."""
        stores = Store(self.trained), Store(self.session.store.root)
        kept: dict[str, str] = {}
        for cell in cells:
            for store in stores:
                path = store.directory(cell) / CHECKPOINT
                if cell.id not in kept and path.is_file() and store.result(cell) is not None:
                    kept[cell.id] = str(path)
        return kept

    def missing(self, cells: list[RunSpec], kept: Collection[str]) -> list[RunSpec]:
        """Cells that must be trained: without a checkpoint, and not known to diverge."""
        lost = self.diverged(cells, kept)
        return [cell for cell in cells if cell.id not in kept and cell.id not in lost]

    def diverged(self, cells: list[RunSpec], kept: Collection[str]) -> set[str]:
        """Identities of trainings that are known to diverge: there is nothing to measure.

        Args:
            cells: of the study.
            kept: identities of those that have a checkpoint, and so did not.
        """
        stores = Store(self.trained), Store(self.session.store.root)
        rest = [cell for cell in cells if cell.id not in kept]
        return {c.id for c in rest if any(store.state(c) == "diverged" for store in stores)}

    def forget_results(self, missing: list[RunSpec]) -> None:
        """Removes results of the study's own whose checkpoints are gone: to be trained again."""
        own = Store(self.session.store.root)
        for cell in missing:
            (own.directory(cell) / RESULT).unlink(missing_ok=True)

    def lines(self, cells: list[RunSpec]) -> Iterator[str]:
        """What is used, and what is trained why."""
        kept = self.checkpoints(cells)
        lost = self.diverged(cells, kept)
        missing = self.missing(cells, kept)
        theirs = sum(Path(path).is_relative_to(self.trained) for path in kept.values())
        yield (
            f"{len(cells)} networks: {theirs} with a checkpoint in {self.trained}, "
            f"{len(kept) - theirs} in {self.session.store.root}, {len(missing)} to train"
            + (f", {len(lost)} known to diverge" if lost else "")
        )
        grid = Store(self.trained)
        bare = [cell for cell in missing if (grid.directory(cell) / RESULT).is_file()]
        if bare:
            yield (
                f"{len(bare)} of those to train have a result in {self.trained} and no checkpoint: "
                "give that ablate command --keep, and nothing is trained twice"
            )

    def measuring(self, cells: list[RunSpec]) -> Session:
        """The session of the measurements."""
        questions = self.study.questions()
        return replace(
            self.session,
            store=MeasurementStore(self.session.store.root, questions.id),
            train=self.measure,
            loggers=(),
            options={
                "questions": questions.model_dump(mode="json"),
                "checkpoints": self.checkpoints(cells),
            },
        )


def run(study: StudyRun, show: Show) -> int:
    """Trains the cells that no grid has kept, measures those without answers, has it reported.

    Returns:
        0 when every network was measured, 1 when a training or a measurement failed, 3 when a
        training diverged and none failed, 130 or 143 when interrupted.
    """
    session = study.session
    resolved: list[StudyPlan] = []

    def cells() -> list[RunSpec]:
        return resolved[0].plan.cells if resolved else []

    def body() -> int:
        with session.store.lock():
            with session.pool() as pool:
                plan = _check(study, pool)
                questions, trained = study.study.questions(), str(study.trained)
                resolved.append(StudyPlan(questions=questions, trained=trained, plan=plan))
                write(session.store.root, resolved[0])
                for line in study.lines(plan.cells):
                    session.say(line)
                missing = study.missing(plan.cells, study.checkpoints(plan.cells))
                study.forget_results(missing)
                if missing:
                    session.run(pool, missing)
            measuring = study.measuring(plan.cells)
            return interruptible(
                measuring,
                cells,
                study.command,
                lambda: _measure(study, measuring, resolved[0], show),
            )

    return interruptible(session, cells, study.command, body)


def _measure(study: StudyRun, measuring: Session, resolved: StudyPlan, show: Show) -> int:
    """Measures what has a checkpoint and no answers, and has all answers shown."""
    kept = measuring.options["checkpoints"]
    trained = [cell for cell in resolved.plan.cells if cell.id in kept]
    if waiting := measuring.pending(trained):
        measuring.say(f"{len(waiting)} of {len(resolved.plan.cells)} networks to measure")
        with measuring.pool() as pool:
            measuring.run(pool, trained)
    measuring.say(f"written: {show(measuring, resolved)}")
    return _exit_code(study, measuring, resolved.plan)


def _check(study: StudyRun, pool: Any) -> Plan:
    """Checks the grid and the questions, and resolves the grid."""
    short, known = study.session.check_grid(pool, study.grid)
    if study.session.check == CHECK:
        pool.ask(CHECK_QUESTIONS, *study.asked())
    return plans.plan(
        short,
        known["tasks"],
        study.command,
        study.tune,
        known["version"],
        known["images"],
        known["data_path"],
    )


def _exit_code(study: StudyRun, measuring: Session, plan: Plan) -> int:
    stores = Store(study.trained), Store(study.session.store.root)
    states = {measuring.store.state(cell) for cell in plan.cells}
    if states == {"done"} and not plan.refused:
        return 0
    for line in (*study.session.failures(), *measuring.failures()):
        measuring.say(line)
    absent = [c for c in plan.cells if measuring.store.state(c) != "done"]
    diverged = all(any(s.state(cell) == "diverged" for s in stores) for cell in absent)
    return 3 if diverged and not plan.refused else 1


def dry_run(study: StudyRun) -> int:
    """Says which networks there are, what is trained, and what that costs."""
    from da.grids.executors.worker import load as resolve

    session = study.session
    known = resolve(session.check)(study.grid.model_dump(mode="json"))
    if session.check == CHECK:
        resolve(CHECK_QUESTIONS)(*study.asked())
    short = study.grid.renamed(known["names"])
    plan = plans.plan(
        short, known["tasks"], study.command, study.tune, known["version"],
        data_path=known["data_path"],
    )  # fmt: skip
    for cell in plan.cells:
        session.say(str(cell))
    for line in study.lines(plan.cells):
        session.say(line)
    kept = study.checkpoints(plan.cells)
    waiting, lost = study.missing(plan.cells, kept), study.diverged(plan.cells, kept)
    if waiting:
        session.say(f"to train: {session.costs(waiting)}")
    questions = study.study.questions()
    store = MeasurementStore(session.store.root, questions.id)
    left = [c for c in plan.cells if c.id not in lost and store.result(c) is None]
    values = sum(len(values) for _, _, values in questions.series())
    session.say(
        f"to measure: {len(left)} of {len(plan.cells)} networks, each with {values} "
        f"values x {len(questions.ways)} ways x {questions.draws} draws"
    )
    return 0
