"""`ablate` with the file of a study: what its networks say with other statistics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from da.cli._options import check_workers, command_line, overrides, say_where_from, session
from da.errors import UserError

if TYPE_CHECKING:
    from da.grids.grid import Grid
    from da.grids.session import Session
    from da.grids.statistics_run import StudyPlan


def run_study(
    options: Any, argv: list[str], train: str | None, check: str | None, measure: str | None
) -> int:
    """Runs the command and returns its exit code, see :func:`da.grids.statistics_run.run`.

    Args:
        options: of the command line.
        argv: the command line after ``ablate``.
        train: see :func:`da.cli.ablate.main`; so are the two that follow.
        check: of the grid.
        measure: of a trained cell.
    """
    from da.grids import statistics_run
    from da.grids.grid_file import find_config
    from da.grids.statistics_study import read_study

    check_workers(options)
    config = find_config(options.config)
    say_where_from(options.config, config)
    study, file, grid = read_study(config, overrides(options))
    named = options.trained or study.trained
    trained = Path(named or Path("runs") / file.stem)
    where = replace(session(options, config.stem, grid, train, check), keep=True)
    if where.store.root.resolve() == trained.resolve():
        raise UserError(
            f"--out: '{where.store.root}' is the folder of the grid, whose results stay as they "
            "are; name another"
        )
    if named and not trained.is_dir():
        raise UserError(
            f"--trained: no folder '{trained}', which was to hold the grid's networks; where it is "
            "left out, what is missing is trained in the study's own folder"
        )
    grid = _with_seeds(grid, trained, options.seeds or study.seeds)
    names = ["--methods", ",".join(grid.methods), "--norms", ",".join(grid.norms)]
    work = statistics_run.StudyRun(
        session=where,
        study=study,
        grid=grid,
        command=command_line("ablate", argv),
        tune=command_line("tune", [str(file), *names]),
        trained=trained,
        measure=measure or statistics_run.MEASURE,
    )
    return statistics_run.dry_run(work) if options.dry_run else statistics_run.run(work, show_study)


def _with_seeds(grid: Grid, trained: Path, chosen: Any) -> Grid:
    """The grid with the seeds that it has trained, where it stops by itself and none were chosen.

    Raises:
        UserError: nothing says which these are.
    """
    from da.grids import plan
    from da.grids.store import PLAN

    if grid.stop_at is None:
        return grid
    if chosen:
        return grid.model_copy(update={"stop_at": None})
    if not (trained / PLAN).is_file():
        raise UserError(
            f"seeds: the grid stops by itself (stop_at), and {trained} holds no {PLAN} that says "
            "after which one; name its folder (--trained), or the seeds (--seeds)"
        )
    seeds = plan.read(trained).grid.seeds
    return grid.model_copy(update={"seeds": seeds, "stop_at": None})


def show_study(session: Session, study: StudyPlan) -> str:
    """Writes the report and prints where statistics fail; gives the files in words."""
    from da.reports.target_statistics import TITLES, axis, flips, write_report

    answers, files = write_report(session.store.root, study)
    for question, other, values in study.questions.series() if answers.columns else ():
        session.say(f"{TITLES[question]}, {axis(question, other)}: {', '.join(values)}")
        for line in flips(answers, question, other, values):
            session.say(f"  {line}")
    for answer in answers.all:
        if answer.missing:
            session.say(f"missing: {answer.entry.cell}: {answer.missing}")
    return files
