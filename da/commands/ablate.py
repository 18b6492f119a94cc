"""``run.py ablate``: trains every cell of a grid and prints the comparison."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from da.commands._grid import command_line, load, parser
from da.errors import UserError
from da.experiments import plan as plans
from da.experiments.grid import Grid
from da.experiments.plan import Plan
from da.experiments.session import CHECK, TRAIN, Session, interruptible, output_folder
from da.experiments.store import Store

if TYPE_CHECKING:
    from rich.console import Console


def main(argv: list[str], train: str = TRAIN, check: str = CHECK) -> int:
    """Runs the command.

    Args:
        argv: the command line after ``ablate``.
        train: ``"module:name"`` of the function that trains a cell.
        check: ``"module:name"`` of the function that checks the names of a grid.

    Returns:
        0 when every cell is done, 1 when one failed, 3 when one diverged and none failed, 130 or
        143 when interrupted.
    """
    options_parser = parser("Train a grid of tasks x methods x normalisers x seeds and compare.")
    options_parser.add_argument("--seeds", type=str, help="0,1,2")
    options_parser.add_argument("--lr", type=str, help="tuned, published, or both: tuned,published")
    options = options_parser.parse_args(argv)
    config, grid = load(options)
    tune = f"python run.py tune {options.config}"
    out = output_folder(options.out, config)
    command = command_line("ablate", argv)
    from da.experiments.terminal import console

    session = Session(
        Store(out), console(), options.workers, grid.threads, options.keep, train, check
    )
    if options.dry_run:
        return _dry_run(session, grid, command, tune)
    return _run(session, grid, command, tune)


def _run(session: Session, grid: Grid, command: str, tune: str) -> int:
    made: list[Plan] = []

    def body() -> int:
        with session.store.lock():
            made.extend(_finished_plan(session, grid, command, tune))
            if not made:
                with session.pool() as pool:
                    tasks = session.known(pool, grid)["tasks"]
                    made.append(plans.plan(grid, tasks, command, tune))
                    plans.write(session.store.root, made[0])
                    session.run(pool, made[0].cells)
            return _end(session, made[0])

    return interruptible(session, lambda: made[0].cells if made else [], command, body)


def _finished_plan(session: Session, grid: Grid, command: str, tune: str) -> list[Plan]:
    """The plan of a grid that was run to its end before: no worker needs to start."""
    out = session.store.root
    try:
        tasks = plans.read(out).tasks if plans.read(out).grid == grid else None
    except UserError:
        return []
    if tasks is None:
        return []
    plan = plans.plan(grid, tasks, command, tune)
    if session.pending(plan.cells):
        return []
    plans.write(out, plan)
    return [plan]


def _end(session: Session, plan: Plan) -> int:
    from da.experiments import report, terminal

    out = session.store.root
    runs, tables = report.write(out, plan)
    terminal.show(session.console, plan, runs, tables)
    for line in session.endings():
        session.console.print(line, markup=False, soft_wrap=True)
    states = {run.state for run in runs}
    files = f"{out}/report.md, table.csv, runs.csv, figure.png, figure.svg"
    session.console.print(f"written: {files}", markup=False, soft_wrap=True)
    session.console.print(session.split(), markup=False, soft_wrap=True)
    if states - {"done", "diverged"}:
        return 1
    return 3 if "diverged" in states else 0


def _dry_run(session: Session, grid: Grid, command: str, tune: str) -> int:
    from da.experiments.worker import load as resolve

    tasks = resolve(session.check)(grid.model_dump(mode="json"))["tasks"]
    plan = plans.plan(grid, tasks, command, tune)
    show_cells(session.console, plan)
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
