"""Runs a grid in a folder and ends in the comparison."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import TYPE_CHECKING

from da.grids import plan as plans
from da.grids.grid import Grid
from da.grids.plan import Plan
from da.grids.session import Session, interruptible
from da.reports.runs import Run

if TYPE_CHECKING:
    from rich.console import Console

Show = Callable[[Session, Plan], tuple[list[Run], str]]


def run(session: Session, grid: Grid, command: str, tune: str, show: Show | None = None) -> int:
    """Trains the cells that have no result, then writes and prints the report.

    Args:
        session: where and how.
        grid: what.
        command: what the user typed, to go on after an interruption.
        tune: the command that makes missing learning rates.
        show: writes and shows what the results say; by default the report.

    Returns:
        0 when every cell is done, 1 when one failed or has no rate that works, 3 when one diverged
        and none failed, 130 or 143 when interrupted.
    """
    made: list[Plan] = []

    def body() -> int:
        with session.store.lock():
            # Also where every cell may be done: a worker knows whether the data are the same.
            with session.pool() as pool:
                known = session.known(pool, grid)
                made.append(
                    plans.plan(
                        grid, known["tasks"], command, tune, known["version"], known["images"]
                    )
                )
                plans.write(session.store.root, made[0])
                session.run(pool, made[0].cells)
            return _end(session, made[0], show or report_of)

    return interruptible(session, lambda: made[0].cells if made else [], command, body)


def report_of(session: Session, plan: Plan) -> tuple[list[Run], str]:
    """Writes and shows the report; gives the runs, and the files in words."""
    from da.reports import report, terminal

    out = session.store.root
    runs, tables = report.write(out, plan)
    terminal.show(session.console, out, plan, runs, tables)
    return runs, report.files(out)


def _end(session: Session, plan: Plan, show: Show) -> int:
    runs, files = show(session, plan)
    states = {run.state for run in runs}
    session.console.print(f"written: {files}", markup=False, soft_wrap=True)
    if session.outcome.finished:
        session.console.print(session.split(), markup=False, soft_wrap=True)
    if states - {"done", "diverged"} or plan.refused:
        return 1
    return 3 if "diverged" in states else 0


def dry_run(session: Session, grid: Grid, command: str, tune: str) -> int:
    """Prints the cells and what they cost."""
    from da.grids.executors.worker import load as resolve

    known = resolve(session.check)(grid.model_dump(mode="json"))
    plan = plans.plan(grid, known["tasks"], command, tune, known["version"])
    show_cells(session.console, plan)
    for text in plan.refused:
        session.console.print(f"refused: {text}", markup=False, soft_wrap=True)
    session.console.print(session.costs(plan.cells), markup=False, soft_wrap=True)
    return 0


def show_cells(console: Console, plan: Plan) -> None:
    """One line per row, task, method, normaliser and point, with its seeds."""
    entries = sorted(
        plan.entries,
        key=lambda e: (
            plan.grid.lr.index(e.row),
            plan.tasks.index(e.cell.task),
            list(plan.grid.methods).index(e.cell.method),
            plan.grid.points().index(e.point),
            list(plan.grid.norms).index(e.cell.norm),
        ),
    )

    def line(entry: plans.Entry) -> str:
        cell = entry.cell
        swept = {key: value for key, value in entry.point.items() if key != "batch_size"}
        text = f"{entry.row:9} {cell.task:24} {cell.method:20} {cell.norm:8} lr {cell.lr:<8g}"
        text += f" batch {cell.batch_size} steps {cell.epochs} x {cell.steps_per_epoch}"
        return text + "".join(f" {key} {value}" for key, value in swept.items())

    for text, group in groupby(entries, key=line):
        seeds = ",".join(str(entry.cell.seed) for entry in group)
        console.print(f"{text} seeds {seeds}", markup=False, soft_wrap=True)
