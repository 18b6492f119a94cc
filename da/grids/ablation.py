"""Trains a grid in a folder, and ends in the comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby

from da.grids import plan as plans
from da.grids.grid import Grid
from da.grids.plan import Plan
from da.grids.session import Session, interruptible
from da.grids.store import refuse_earlier_version
from da.reports.runs import Run

Show = Callable[[Session, Plan], tuple[list[Run], str]]
"""Writes and shows what the results say; gives the runs, and the files in words."""


def run(session: Session, grid: Grid, command: str, tune: str, show: Show) -> int:
    """Trains the cells that have no result, then has the report written.

    Args:
        session: where and how.
        grid: what.
        command: what the user typed, to go on after an interruption.
        tune: the command that makes missing learning rates.
        show: writes and shows what the results say.

    Returns:
        0 when every cell is done, 1 when one failed or has no rate that works, 3 when one diverged
        and none failed, 130 or 143 when interrupted.
    """
    made: list[Plan] = []

    def body() -> int:
        with session.store.lock():
            # Also where every cell may be done: a worker knows whether the data are the same.
            with session.pool() as pool:
                short, known = session.check_grid(pool, grid)
                made.append(
                    plans.plan(
                        short,
                        known["tasks"],
                        command,
                        tune,
                        known["version"],
                        known["images"],
                        known["data_path"],
                    )
                )
                plans.write(session.store.root, made[0])
                session.run(pool, made[0].cells)
            return _end(session, made[0], show)

    return interruptible(session, lambda: made[0].cells if made else [], command, body)


def _end(session: Session, plan: Plan, show: Show) -> int:
    runs, files = show(session, plan)
    states = {run.state for run in runs}
    session.say(f"written: {files}")
    if session.outcome.finished:
        session.say(session.time_shares())
    if states - {"done", "diverged"} or plan.refused:
        return 1
    return 3 if "diverged" in states else 0


def dry_run(session: Session, grid: Grid, command: str, tune: str) -> int:
    """Says which cells there are and what they cost."""
    from da.grids.executors.worker import load as resolve

    known = resolve(session.check)(grid.model_dump(mode="json"))
    refuse_earlier_version(session.store.root)
    short = grid.renamed(known["names"])
    plan = plans.plan(
        short, known["tasks"], command, tune, known["version"], data_path=known["data_path"]
    )
    costs = session.costs(plan.cells)  # reads the results, which may be damaged
    for line in cell_lines(plan):
        session.say(line)
    for text in plan.refused:
        session.say(f"refused: {text}")
    session.say(costs)
    return 0


def cell_lines(plan: Plan) -> Iterator[str]:
    """One line per row, task, method, normaliser and point, with its seeds."""
    entries = sorted(
        plan.entries,
        key=lambda e: (
            plan.grid.rows.index(e.row),
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
        yield f"{text} seeds {seeds}"
