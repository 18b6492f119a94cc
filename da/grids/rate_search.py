"""Runs the cells of a tuning and writes its table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from da.engine.spec import RunSpec
from da.errors import UserError
from da.grids import rate_table
from da.grids.grid import Grid
from da.grids.session import CHECK, Session, interruptible
from da.grids.store import refuse_earlier_version

IMAGES = "da.grids.tuning_validation:criterion_images"
Ask = Callable[..., Any]


def _task(grid: Grid, development: str | None) -> str:
    task = grid.tune.task or development
    if task is None:
        raise UserError(f"{grid.data} names no development task; set tune.task in the YAML")
    return task


def _images(session: Session, grid: Grid, cells: list[RunSpec], ask: Ask) -> str | None:
    """Which images the criterion is on, said to the user; refused where they are trained on."""
    if session.check != CHECK:  # of a data set that is none
        return None
    options = [dict(cell.data_args) for cell in cells]
    images: str = ask(IMAGES, grid.model_dump(mode="json"), options)
    what = grid.tune.criterion or "source validation accuracy"
    session.say(f"criterion: {what}, on {images}")
    return images


def dry_run(session: Session, grid: Grid) -> int:
    """Says which trials there are and what they cost."""
    from da.grids.executors.worker import load as resolve

    known = resolve(session.check)(_with_task(grid))
    refuse_earlier_version(session.store.root)
    task = _task(grid, known["development"])
    cells = rate_table.trials(grid.renamed(known["names"]), task, known["version"])
    _images(session, grid, cells, lambda name, *args: resolve(name)(*args))
    costs = session.costs(cells)  # reads the results, which may be damaged
    for cell in cells:
        session.say(str(cell))
    session.say(costs)
    return 0


def _with_task(grid: Grid) -> dict[str, object]:
    """The grid's settings, so that its development task is checked like the others."""
    settings = grid.model_dump(mode="json")
    return {**settings, "tasks": [grid.tune.task]} if grid.tune.task else settings


def run(session: Session, grid: Grid, path: Path, command: str, start: Path | None = None) -> int:
    """Runs the trials that have no result, then writes the table.

    Args:
        session: where and how.
        grid: what.
        path: of the table.
        command: what the user typed.
        start: the table whose entries are kept, by default that at ``path``.

    Returns:
        0 when every trial ended, 1 when one failed, 130 or 143 when interrupted. The table is
        written in both cases: a trial that fails leaves no rate until the command is given again.
        A rate that diverges is a finding, not a failure, and so is a key that no rate works for.
    """
    cells: list[RunSpec] = []

    def body() -> int:
        with session.store.lock(), session.pool() as pool:
            known = pool.ask(session.check, _with_task(grid))
            short, task = grid.renamed(known["names"]), _task(grid, known["development"])
            before = rate_table.previous(start or path, short, task, known["data_path"])
            cells.extend(rate_table.trials(short, task, known["version"]))
            images = _images(session, grid, cells, pool.ask)
            session.run(pool, cells)
            outcomes: rate_table.Outcomes = [
                (c, session.store.result(c) or session.store.state(c)) for c in cells
            ]
            table = rate_table.build(short, task, command, outcomes, before, images)
            rate_table.write(path, table)
            _say_rates(session, table, path)
            return _say_failures(session)

    return interruptible(session, lambda: cells, command, body)


def _say_rates(session: Session, table: rate_table.Table, path: Path) -> None:
    for entry in table.entries:
        rate = "none" if entry.lr is None else f"{entry.lr:g}"
        options = "".join(f" {name} {value}" for name, value in entry.options.items())
        session.say(
            f"{entry.method:20} {entry.norm:8} batch {entry.batch_size:<4} lr {rate}{options}"
            f"  {rate_table.warning(entry)}".rstrip()
        )
    session.say(f"written: {path}")
    if session.outcome.finished:
        session.say(session.time_shares())


def _say_failures(session: Session) -> int:
    """Names the trials that failed, if any; the exit code."""
    for line in session.failures():
        session.say(line)
    if failed := len(session.outcome.failed):
        session.say(
            f"{failed} trials failed, and without them no rate is chosen; the same command tries "
            "them again"
        )
    return 1 if failed else 0
