"""Runs the cells of a tuning and writes its table."""

from __future__ import annotations

from pathlib import Path

from da.engine.spec import RunSpec
from da.errors import UserError
from da.grids import rate_table
from da.grids.grid import Grid
from da.grids.session import Session, interruptible


def _task(grid: Grid, development: str | None) -> str:
    task = grid.tune.task or development
    if task is None:
        raise UserError(f"{grid.data} names no development task; set tune.task in the YAML")
    return task


def dry_run(session: Session, grid: Grid) -> int:
    """Prints the trials and what they cost."""
    from da.grids.executors.worker import load as resolve

    known = resolve(session.check)(_with_task(grid))
    cells = rate_table.trials(grid, _task(grid, known["development"]), known["version"])
    for cell in cells:
        session.console.print(str(cell), markup=False, soft_wrap=True)
    session.console.print(session.costs(cells), markup=False, soft_wrap=True)
    return 0


def _with_task(grid: Grid) -> dict[str, object]:
    """The grid's settings, so that its development task is checked like the others."""
    settings = grid.model_dump(mode="json")
    return {**settings, "tasks": [grid.tune.task]} if grid.tune.task else settings


def run(session: Session, grid: Grid, path: Path, command: str) -> int:
    """Runs the trials that have no result, then writes the table.

    Returns:
        0 when every trial ended, 1 when one failed, 130 or 143 when interrupted. The table is
        written in both cases: a trial that fails leaves no rate until the command is given again.
        A rate that diverges is a finding, not a failure, and so is a key that no rate works for.
    """
    cells: list[RunSpec] = []

    def body() -> int:
        with session.store.lock(), session.pool() as pool:
            known = pool.ask(session.check, _with_task(grid))
            task = _task(grid, known["development"])
            before = rate_table.previous(path, grid, task)
            cells.extend(rate_table.trials(grid, task, known["version"]))
            session.run(pool, cells)
            outcomes: rate_table.Outcomes = [
                (c, session.store.result(c) or session.store.state(c)) for c in cells
            ]
            rate_table.write(path, table := rate_table.build(grid, task, command, outcomes, before))
            _show(session, table, path)
            return _failed(session)

    return interruptible(session, lambda: cells, command, body)


def _show(session: Session, table: rate_table.Table, path: Path) -> None:
    console = session.console
    for entry in table.entries:
        rate = "none" if entry.lr is None else f"{entry.lr:g}"
        console.print(
            f"{entry.method:20} {entry.norm:8} batch {entry.batch_size:<4} lr {rate}"
            f"  {rate_table.warning(entry)}".rstrip(),
            markup=False,
        )
    console.print(f"written: {path}", markup=False, soft_wrap=True)
    if session.outcome.finished:
        console.print(session.split(), markup=False, soft_wrap=True)


def _failed(session: Session) -> int:
    """Names the trials that failed, if any; the exit code."""
    for line in session.failures():
        session.console.print(line, markup=False, soft_wrap=True)
    if failed := len(session.outcome.failed):
        session.console.print(
            f"{failed} trials failed, and without them no rate is chosen; the same command tries "
            "them again",
            markup=False,
        )
    return 1 if failed else 0
