"""Trains a grid in a folder, and ends in the comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from da.errors import UserError
from da.grids import plan as plans
from da.grids.grid import Grid
from da.grids.plan import Plan
from da.grids.session import CHECK, DATA, Session, interruptible
from da.grids.store import Store, refuse_earlier_version
from da.reports import foresight
from da.reports.runs import Run, load_runs, tidy
from da.reports.runs_file import RUNS, read_runs
from da.reports.stopping import first_look, half_widths, may_stop
from da.reports.tables import has_accuracy

if TYPE_CHECKING:
    from da.grids.validation import Known

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
                for seeds in rounds(short, len(known["tasks"])):
                    made.append(_plan(short, seeds, known, command, tune))
                    plans.write(session.store.root, made[-1])
                    session.run(pool, made[-1].cells)
                    if short.stop_at is not None and _stops(session, made[-1], short):
                        break
                if short.stop_at is not None:
                    whole = _plan(short, short.seeds, known, command, tune)
                    _say_what_is_beyond(session, whole, made[-1])
            return _end(session, made[-1], show)

    return interruptible(session, lambda: made[-1].cells if made else [], command, body)


def _plan(grid: Grid, seeds: Sequence[int], known: Known, command: str, tune: str) -> Plan:
    return plans.plan(
        grid.model_copy(update={"seeds": tuple(seeds)}),
        known["tasks"],
        command,
        tune,
        known["version"],
        known["images"],
        known["data_path"],
        known["scored_images"],
    )


def rounds(grid: Grid, tasks: int) -> list[tuple[int, ...]]:
    """The seeds after which a grid may stop: all of them, or from the first look on each.

    Raises:
        UserError: it is to stop early, and has no more seeds than are needed for a first look, or
            nothing is compared.
    """
    if grid.stop_at is None:
        return [grid.seeds]
    refuse_without_comparison("stop_at", grid)
    first = first_look(tasks)
    if len(grid.seeds) <= first:
        raise UserError(
            f"stop_at: expected more than {first} seeds, which the first look takes with "
            f"{tasks} task{'s' * (tasks > 1)}, got {len(grid.seeds)}; give --seeds 0-19, say"
        )
    return [grid.seeds[:count] for count in range(first, len(grid.seeds) + 1)]


def compares(grid: Grid) -> bool:
    """Whether the challenger and one of its baselines are among the normalisers."""
    challenger, *baselines = (
        name.partition("@")[0] for name in (grid.comparison[0], *grid.comparison[1])
    )
    return challenger in grid.norms and any(baseline in grid.norms for baseline in baselines)


def refuse_without_comparison(option: str, grid: Grid) -> None:
    """Refuses an option about differences where the grid has none.

    Raises:
        UserError: with what would be compared.
    """
    if not compares(grid):
        challenger, baselines = grid.comparison
        raise UserError(
            f"{option}: nothing is compared: expected {challenger} and one of "
            f"{', '.join(baselines)} among the norms, got {', '.join(grid.norms)}; add them, name "
            "others under challenger and baselines, or leave it out"
        )


def _stops(session: Session, plan: Plan, grid: Grid) -> bool:
    """Looks at what has finished, and says what follows.

    Raises:
        UserError: the target has no labels, so that there never is anything to look at.
    """
    assert grid.stop_at is not None  # for mypy: the caller asked
    runs = load_runs(Store(session.store.root), plan)
    results = [run.result for run in runs if run.result is not None]
    if results and not any(has_accuracy(result, "target/test") for result in results):
        raise UserError(
            "stop_at: the target has no labels, so no difference is known and nothing says when to "
            f"stop; leave it out: the {len(results)} runs that have finished stay"
        )
    widths = half_widths(tidy(runs), grid)
    enough, words = may_stop(widths, grid.stop_at)
    count, most = len(plan.grid.seeds), len(grid.seeds)
    ends = "enough" if enough else "no more seeds" if count == most else "on to the next seed"
    session.say(f"{count} of at most {most} seeds: {words}: {ends}")
    return enough


def _say_what_is_beyond(session: Session, whole: Plan, stopped: Plan) -> None:
    """Names results of earlier runs with seeds that the rule did not come to."""
    beyond = [
        cell
        for cell in whole.cells
        if cell.seed not in stopped.grid.seeds and session.store.result(cell) is not None
    ]
    if beyond:
        seeds = ", ".join(map(str, sorted({cell.seed for cell in beyond})))
        session.say(
            f"{len(beyond)} runs beyond the stop have results from before (seeds {seeds}); the "
            "report is without them, as the rule says; leave --stop-at out to show all"
        )


def _end(session: Session, plan: Plan, show: Show) -> int:
    runs, files = show(session, plan)
    states = {run.state for run in runs}
    session.say(f"written: {files}")
    if session.outcome.finished:
        session.say(session.time_shares())
    if states - {"done", "diverged"} or plan.refused:
        return 1
    return 3 if "diverged" in states else 0


def dry_run(
    session: Session, grid: Grid, command: str, tune: str, deviation: str | None = None
) -> int:
    """Says which cells there are, what they cost and what they could detect.

    Args:
        session: where and how.
        grid: what.
        command: what the user typed.
        tune: the command that makes missing learning rates.
        deviation: of paired differences, see :func:`da.reports.foresight.parse_deviation`; by
            default that of the results in the output folder, if there are any.
    """
    from da.grids.executors.worker import load as resolve

    settings = grid.model_dump(mode="json")
    known = resolve(session.check)(settings)
    if session.check == CHECK and has_files(grid.data_args.get("root")):
        resolve(DATA)(settings, known["tasks"])
    refuse_earlier_version(session.store.root)
    short = grid.renamed(known["names"])
    rounds(short, len(known["tasks"]))  # whether it can stop as it says
    plan = _plan(short, short.seeds, known, command, tune)
    if deviation is not None:
        refuse_without_comparison("--deviation", short)
    costs = session.costs(plan.cells)  # reads the results, which may be damaged
    could = _foresight(session, plan, deviation)
    for line in cell_lines(plan):
        session.say(line)
    for text in plan.refused:
        session.say(f"refused: {text}")
    if short.stop_at is not None:
        first = first_look(len(plan.tasks))
        session.say(
            f"at most these: a first look at ± {short.stop_at:g} points is taken after {first} of "
            f"{len(short.seeds)} seeds, then after each"
        )
        costs = f"at most {costs}"
    session.say(costs)
    for line in could:
        session.say(line)
    return 0


def has_files(root: str | None) -> bool:
    """Whether there are data to be right or wrong; who has none yet asks for the plan alone."""
    if root is None:
        return False
    path = Path(root).expanduser()
    return not path.is_dir() or any(path.iterdir())


def _foresight(session: Session, plan: Plan, deviation: str | None) -> list[str]:
    """What the grid could detect; how to ask where nothing is known of its deviation."""
    tasks, seeds, points = len(plan.tasks), len(plan.grid.seeds), len(plan.grid.points())
    if deviation is not None:
        expected = foresight.parse_deviation(deviation, plan.grid)
    elif (session.store.root / RUNS).is_file():
        expected = foresight.estimated(read_runs(session.store.root), plan.grid)
    else:
        expected = []
    if not compares(plan.grid):
        return []
    if not expected:
        return ["what it could detect: give the deviation of differences with --deviation"]
    return foresight.foresight(expected, tasks, seeds, points)


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
