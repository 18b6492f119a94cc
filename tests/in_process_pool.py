"""Workers of a grid within the process of the test, where those of its own are not what is tested.

Each real worker loads PyTorch anew, which takes longer than the few steps that it then trains.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from da.engine.spec import RunSpec
from da.grids.executors.local import Outcome, Watcher
from da.grids.executors.worker import _train, load
from da.grids.session import Session
from da.grids.store import ResultStore

NOBODY: Any = SimpleNamespace(send=lambda message: None)
"""In place of the pipe to a driver, which hears how far a cell has come."""


class InProcessPool:
    """As much of a pool as a session asks for, one cell after the other."""

    def __init__(self, function: str) -> None:
        self._function = function

    def ask(self, function: str, *arguments: Any) -> Any:
        return load(function)(*arguments)

    def run(
        self,
        cells: Sequence[RunSpec],
        store: ResultStore[Any],
        watcher: Watcher,
        keep: bool = False,
    ) -> Outcome:
        outcome = Outcome(total=len(cells))
        for cell in cells:
            settings, directory = cell.model_dump(mode="json"), str(store.begin(cell))
            state, said = _train(NOBODY, load(self._function), settings, directory)
            assert state == "done", said
            result = store.parse(said)
            store.finish(cell, result, keep)
            outcome.finished[cell.id] = result.seconds
            outcome.cells[cell.id] = cell
        return outcome


@contextmanager
def in_process(session: Session) -> Iterator[InProcessPool]:
    """Stands in for :meth:`da.grids.session.Session.pool`."""
    yield InProcessPool(session.train)
