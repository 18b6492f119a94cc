"""One run of a list of cells in a folder: lock, workers, display, and how it ended."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from da.engine.spec import RunSpec
from da.grids.executors.local import Interrupted, Outcome, Pool, Watcher, cores
from da.grids.grid import Grid
from da.grids.progress import STARTUP, Estimate, duration, time_shares
from da.grids.store import PLAN, ResultStore, size
from da.installation import program

if TYPE_CHECKING:
    from da.grids.validation import Known

TRAIN = "da.engine.training:train"
CHECK = "da.grids.validation:check"
READY = "da.grids.validation:ready"
DATA = "da.grids.validation:refuse_absent_data"

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""How the system says that a disk takes no more."""

BYTES_PER_CELL = 60_000
BYTES_PER_CHECKPOINT = 10_000_000
"""What is assumed before a cell has finished."""


Watch = Callable[[int, int, int, Estimate], AbstractContextManager[Watcher]]
"""Makes a display from the number of workers, the cells that are done and that diverged before,
and what finished cells have taught."""


class _Unwatched:
    """A display that shows nothing."""

    def update(self, outcome: Outcome) -> None:
        """Shows nothing."""


@dataclass
class Session:
    """How cells are run.

    Args:
        store: the output folder.
        say: told what happens, a line at a time; nothing is printed here.
        watch: makes the display of progress.
        workers: processes; by default one per core, less where a cell uses several threads.
        threads: of one cell.
        keep: leave checkpoints of finished cells where they are.
        train: ``"module:name"`` of the function that trains a cell.
        check: ``"module:name"`` of the function that checks a grid.
        loggers: names of what records the curves of each training.
        options: other arguments of that function that are no part of a cell.
    """

    store: ResultStore[Any]
    say: Callable[[str], None]
    watch: Watch = lambda *_: nullcontext(_Unwatched())
    workers: int | None = None
    threads: int = 1
    keep: bool = False
    train: str = TRAIN
    check: str = CHECK
    loggers: Sequence[str] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.began = time.monotonic()
        self.size = self.workers or max(1, cores() // self.threads)
        self.outcome = Outcome(0)

    @contextlib.contextmanager
    def pool(self) -> Iterator[Pool]:
        """Workers, warm while names are checked."""
        loggers = {"loggers": list(self.loggers)} if self.loggers else {}
        options = {**self.options, **loggers}
        with Pool(self.train, self.size, self.threads, options) as pool:
            yield pool

    def check_grid(self, pool: Pool, grid: Grid) -> tuple[Grid, Known]:
        """Checks the grid's names in a worker, since that needs torch and the driver does not.

        Returns:
            The grid by short names, and what else the driver must know.
        """
        settings = grid.model_dump(mode="json")
        known: Known = pool.ask(self.check, settings)
        if self.check == CHECK:
            pool.ask(READY, settings, known["tasks"])
        return grid.renamed(known["names"]), known

    def run(self, pool: Pool, cells: list[RunSpec]) -> Outcome:
        """Runs those cells that have no result, did not diverge and did not fail in this session.

        Returns:
            What came of them; :attr:`outcome` has that of all runs of this session.
        """
        waiting = [cell for cell in self.pending(cells) if cell.id not in self.outcome.failed]
        done = sum(self.store.result(cell) is not None for cell in cells)
        diverged = len(cells) - len(waiting) - done
        with self.watch(self.size, done, diverged, self.estimate(cells)) as display:
            outcome = pool.run(waiting, self.store, display, self.keep)
        for name in ("finished", "diverged", "failed", "cells"):
            getattr(self.outcome, name).update(getattr(outcome, name))
        return outcome

    def pending(self, cells: list[RunSpec]) -> list[RunSpec]:
        """Cells to run: neither done nor known to diverge."""
        return [c for c in cells if self.store.state(c) not in ("done", "diverged")]

    def estimate(self, cells: list[RunSpec]) -> Estimate:
        """What the finished cells of this folder teach."""
        estimate = Estimate()
        for cell in cells:
            if result := self.store.result(cell):
                estimate.add(cell, result.seconds.total)
        return estimate

    def costs(self, cells: list[RunSpec]) -> str:
        """The time and the disk that the cells without a result will take."""
        waiting = self.pending(cells)
        estimate = self.estimate(cells)
        finished = [c for c in cells if self.store.result(c) is not None]
        sizes = [size(self.store.directory(cell)) for cell in finished]
        each = sum(sizes) / len(sizes) if sizes else BYTES_PER_CELL
        number = f"{len(waiting)} of {len(cells)} cells to run"
        if networks := estimate.unknown(waiting):
            kept = " and their checkpoints" if self.keep and not sizes else ""
            return (
                f"{number}: time unknown for {', '.join(networks)} until a cell of each has "
                f"finished; about {each * len(waiting) / 1e6:.1f} MB of results{kept}"
            )
        each += BYTES_PER_CHECKPOINT if self.keep and not sizes else 0
        seconds = (estimate.left(waiting, [], self.size, 0.0) or 0.0) + (STARTUP if waiting else 0)
        source = (
            f"from {len(finished)} finished cells"
            if estimate.measured
            else "from stated constants, which are those of the small digits network"
        )
        return (
            f"{number}: about {duration(seconds)} with {self.size} workers, "
            f"about {each * len(waiting) / 1e6:.1f} MB ({source})"
        )

    def time_shares(self) -> str:
        """Where the wall time of this session went."""
        return time_shares(self.outcome.finished.values(), time.monotonic() - self.began, self.size)

    def failures(self) -> list[str]:
        """The cells that failed, with their logs."""
        return [
            f"failed: {(cell := self.outcome.cells[key])}: {reason}; log: {self.store.log(cell)}"
            for key, reason in self.outcome.failed.items()
        ]


def interruptible(
    session: Session, cells: Callable[[], list[RunSpec]], again: str, body: Callable[[], int]
) -> int:
    """Runs a command's body; what stops it from outside ends in a line that says how to go on."""
    try:
        return body()
    except Interrupted as signal:
        what, code = f"interrupted ({signal})", signal.exit_code
    except OSError as error:
        if error.errno not in FULL:
            raise
        what, code = f"cannot write to {session.store.root} ({error.strerror})", 1
    planned = cells()
    done = sum(session.store.result(cell) is not None for cell in planned)
    session.say(f"{what}: {done} of {len(planned)} cells are finished and stay; to go on: {again}")
    if done and (session.store.root / PLAN).is_file():
        session.say(f"what there is, as a partial report: {program()} report {session.store.root}")
    return code
