"""How far a grid is, how long it still takes, and where its time went."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from da.engine.result import Seconds
from da.engine.spec import RunSpec
from da.grids.executors.local import Outcome, Running

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

SECONDS_PER_STEP = 0.004
SECONDS_PER_SAMPLE = 0.0005
SECONDS_PER_EVALUATION = 0.4
"""One core, the digits network: what is assumed before a cell of it has finished."""

MEASURED = (("default", "cpu"), ("digits_resnet", "cpu"))
"""Backbones and devices that these constants hold for; of others nothing is assumed."""

STARTUP = 10.0
"""Seconds until the workers have imported their libraries."""

PLAIN_EVERY = 5.0
"""Seconds between two lines where output is piped."""


def steps(cell: RunSpec) -> int:
    """Training steps; a hundred per epoch where only the data knows."""
    return cell.epochs * (cell.steps_per_epoch if isinstance(cell.steps_per_epoch, int) else 100)


def assumed(cell: RunSpec) -> float:
    """Seconds of a cell, from constants."""
    step = SECONDS_PER_STEP + SECONDS_PER_SAMPLE * cell.batch_size
    return steps(cell) * step + cell.epochs * SECONDS_PER_EVALUATION


class Estimate:
    """Seconds of cells to come, from those that have finished.

    A cell is expected to take what its like took (method, normaliser, backbone, batch size); where
    none of these has finished, the constants are scaled by how far off they were for others of the
    backbone. Before any has, the time is known of the network alone that they were measured on.
    """

    def __init__(self) -> None:
        self._likes: dict[tuple[object, ...], list[float]] = {}
        self._ratios: dict[tuple[str, str], list[float]] = {}

    def add(self, cell: RunSpec, seconds: float) -> None:
        """Learns from a finished cell."""
        self._likes.setdefault(_like(cell), []).append(seconds)
        self._ratios.setdefault(_network(cell), []).append(seconds / assumed(cell))

    @property
    def measured(self) -> bool:
        """Some cell has finished."""
        return bool(self._ratios)

    def seconds(self, cell: RunSpec) -> float | None:
        """The expected time of a cell, None where there is nothing to expect it from."""
        if like := self._likes.get(_like(cell)):
            return sum(like) / len(like)
        if ratios := self._ratios.get(_network(cell)):
            return sum(ratios) / len(ratios) * assumed(cell)
        return assumed(cell) if _network(cell) in MEASURED else None

    def unknown(self, cells: Iterable[RunSpec]) -> list[str]:
        """The backbones, with the device, of cells whose time nothing is known of."""
        missing = (_network(cell) for cell in cells if self.seconds(cell) is None)
        return [" on ".join(network) for network in dict.fromkeys(missing)]

    def left(
        self, pending: Iterable[RunSpec], running: Iterable[Running], workers: int, now: float
    ) -> float | None:
        """Seconds until all is done: no less than the longest cell takes."""
        each = [*(self._rest(item, now) for item in running), *map(self.seconds, pending)]
        known = [seconds for seconds in each if seconds is not None]
        return max([0.0, sum(known) / workers, *known]) if len(known) == len(each) else None

    def _rest(self, item: Running, now: float) -> float | None:
        elapsed = now - item.started
        if item.fraction > 0.1:
            return elapsed * (1 - item.fraction) / item.fraction
        expected = self.seconds(item.cell)
        return None if expected is None else max(0.0, expected - elapsed)


def _network(cell: RunSpec) -> tuple[str, str]:
    return cell.backbone, cell.device


def _like(cell: RunSpec) -> tuple[object, ...]:
    return (cell.method, cell.norm, cell.backbone, cell.batch_size, steps(cell))


def duration(seconds: float) -> str:
    """Time in words.

    >>> duration(42.3), duration(754), duration(7260)
    ('42 s', '12 min 34 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def split(seconds: Iterable[Seconds], wall: float, workers: int) -> str:
    """The split of the wall time of this run over training, evaluation and everything else."""
    known = list(seconds)
    whole = max(wall * workers, 1e-9)
    training = sum(item.training for item in known) / whole
    evaluation = sum(item.evaluation for item in known) / whole
    other = max(0.0, 1 - training - evaluation)
    return (
        f"wall time {duration(wall)} x {workers} workers: training steps {training:.0%}, "
        f"evaluations {evaluation:.0%}, everything else {other:.0%}"
    )


class Display:
    """Shows an :class:`Outcome`: live on a terminal, a plain line now and then in a pipe.

    Args:
        console: where to.
        workers: how many cells run at a time.
        before: cells of the grid that had finished before.
        diverged: those that had diverged before.
        estimate: knows what has been learnt from them.
    """

    def __init__(
        self,
        console: Console,
        workers: int,
        before: int = 0,
        diverged: int = 0,
        estimate: Estimate | None = None,
    ) -> None:
        self._console, self._workers = console, workers
        self._before, self._diverged = before, diverged
        self._estimate = estimate or Estimate()
        self._seen: set[str] = set()
        self._last = time.monotonic()
        self._live: Any = None

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(console=self._console, refresh_per_second=5, transient=True)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, outcome: Outcome) -> None:
        """Learns from what has finished and shows the state."""
        self._learn(outcome)
        now = time.monotonic()
        if self._live is not None:
            self._live.update(self._render(outcome, now))
        elif now - self._last >= PLAIN_EVERY:
            self._last = now
            self._print(f"{self.line(outcome, now)}; {_cells(outcome)}")

    def line(self, outcome: Outcome, now: float) -> str:
        """The state in one line."""
        done = self._before + len(outcome.finished)
        diverged = self._diverged + len(outcome.diverged)
        left = self._estimate.left(outcome.pending, outcome.running.values(), self._workers, now)
        parts = [
            f"{done} of {self._before + self._diverged + outcome.total} finished",
            f"{len(outcome.running)} running",
            f"{len(outcome.failed)} failed",
        ]
        if diverged:
            parts.append(f"{diverged} diverged")
        time_left = "time left unknown yet" if left is None else f"about {duration(left)} left"
        return ", ".join([*parts, time_left])

    def _learn(self, outcome: Outcome) -> None:
        states = (("failed", outcome.failed), ("diverged", outcome.diverged))
        for key, seconds in outcome.finished.items():
            if key not in self._seen:
                self._seen.add(key)
                self._estimate.add(outcome.cells[key], seconds.total)
        for state, found in states:
            for key, reason in found.items():
                if key not in self._seen:
                    self._seen.add(key)
                    self._print(f"{state}: {outcome.cells[key]}: {reason}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)
        if not self._console.is_terminal:
            sys.stdout.flush()

    def _render(self, outcome: Outcome, now: float) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        ended = len(outcome.finished) + len(outcome.diverged) + len(outcome.failed)
        fractions = sum(item.fraction for item in outcome.running.values())
        bar = ProgressBar(total=max(outcome.total, 1), completed=ended + fractions, width=40)
        table = Table.grid(padding=(0, 1))
        table.add_row(bar, Text(self.line(outcome, now)))
        for item in list(outcome.running.values())[:8]:
            small = ProgressBar(total=1, completed=item.fraction, width=40)
            table.add_row(small, Text(str(item.cell)))
        return Group(table)


def _cells(outcome: Outcome) -> str:
    running = [f"{item.cell} {item.fraction:.0%}" for item in outcome.running.values()]
    return "running: " + "; ".join(running) if running else "starting the workers"
