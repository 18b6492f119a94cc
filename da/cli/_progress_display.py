"""How far a grid is: live on a terminal, lines in a pipe."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from da.grids.executors.local import Outcome
    from da.grids.progress import Estimate

PLAIN_EVERY = 5.0
"""Seconds between two lines where output is piped."""


class ProgressDisplay:
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
        from da.grids.progress import Estimate

        self._estimate = estimate or Estimate()
        self._seen: set[str] = set()
        self._last = time.monotonic()
        self._live: Any = None

    def __enter__(self) -> ProgressDisplay:
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
        from da.grids.progress import duration

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
        ended = (("failed", outcome.failed), ("diverged", outcome.diverged))
        for key, seconds in outcome.finished.items():
            if key not in self._seen:
                self._seen.add(key)
                self._estimate.add(outcome.cells[key], seconds.total)
        for state, reasons in ended:
            for key, reason in reasons.items():
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
