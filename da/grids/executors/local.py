"""Runs cells in warm worker processes; whatever one cell does costs that cell alone."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol

from da.engine.result import Seconds
from da.engine.spec import RunSpec
from da.errors import UserError
from da.grids.executors.worker import serve
from da.grids.store import ResultStore
from da.ops.process_groups import end_group

ATTEMPTS = 2
"""How often a cell may take its worker down before it counts as failed."""

TICK = 0.2
"""Seconds between two looks at the display and at signals."""


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM: the driver stops its workers and keeps what is finished."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Signals:
    """Turns SIGINT and SIGTERM into :class:`Interrupted` at points where nothing is half done.

    A second signal has its ordinary effect, so an impatient user is never locked in.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> Signals:
        self._before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        for number in self._before:
            signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def check(self) -> None:
        """Raises :class:`Interrupted` if a signal came."""
        if self.received is not None:
            raise Interrupted(self.received)


@dataclass
class Running:
    """A cell at work."""

    cell: RunSpec
    started: float
    fraction: float = 0.0


@dataclass
class Outcome:
    """How a run of the executor went, and so far goes."""

    total: int
    finished: dict[str, Seconds] = field(default_factory=dict)
    diverged: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    cells: dict[str, RunSpec] = field(default_factory=dict)
    running: dict[int, Running] = field(default_factory=dict)
    pending: deque[RunSpec] = field(default_factory=deque)


class Watcher(Protocol):
    """Shows a run to somebody."""

    def update(self, outcome: Outcome) -> None:
        """Called several times a second."""


class _Worker:
    """The driver's end of one worker process."""

    def __init__(self, function: str, threads: int, options: dict[str, Any]) -> None:
        self.connection: Connection
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=serve, args=(theirs, function, threads, options), name="da-worker"
        )
        with _sigint_ignored():  # inherited, so Ctrl-C in the first instants prints no traceback
            self.process.start()
        theirs.close()
        self.ready = False
        self.drained = False
        self.cell: RunSpec | None = None

    def send(self, *message: Any) -> None:
        """A worker that died is noticed by its sentinel, not here."""
        with contextlib.suppress(OSError):
            self.connection.send(message)

    def messages(self) -> Iterator[tuple[Any, ...]]:
        """What has come, without waiting; also what a dead worker said last."""
        try:
            while not self.drained and self.connection.poll():
                yield self.connection.recv()
        except (EOFError, OSError):
            self.drained = True

    def dead(self) -> bool:
        """The process is gone and everything that it said has been heard."""
        return not self.process.is_alive() and (self.drained or not self.connection.poll())

    def death(self) -> str:
        """How the process ended, in words."""
        self.process.join(1)
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            memory = " (out of memory?)" if name == "SIGKILL" else ""
            return f"its process was killed by {name}{memory}"
        return f"its process ended with exit code {code}"

    def kill(self) -> None:
        """Ends the process and all its children."""
        if self.process.pid is not None:
            end_group(self.process.pid)
        self.process.kill()
        self.process.join(5)
        self.connection.close()


class Pool:
    """Warm workers. Use as a context manager; on exit no process is left.

    One is started at once, to be asked; the others where there are cells for them, since each start
    loads PyTorch: a grid that is refused or has finished needs no second.

    Args:
        function: ``"module:name"`` of the function that trains a cell.
        workers: how many.
        threads: of each.
        options: arguments of that function that are no part of a cell.
    """

    def __init__(
        self,
        function: str,
        workers: int,
        threads: int = 1,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.signals = Signals()
        self._options = options or {}
        self._function, self._size, self._threads = function, workers, threads
        self._workers: list[_Worker] = []
        self._stillborn = 0

    def __enter__(self) -> Pool:
        self.signals.__enter__()
        try:
            self._fill(1)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers.clear()
        self.signals.__exit__()

    def ask(self, function: str, *arguments: Any) -> Any:
        """Calls ``"module:name"`` in a worker, so that the driver need not import what it needs."""
        worker = self._workers[0]
        worker.send("call", function, arguments)
        while True:
            self.signals.check()
            wait([worker.connection, worker.process.sentinel], TICK)
            for kind, *rest in worker.messages():
                if kind == "ready":
                    worker.ready = True
                elif kind == "refused":
                    raise UserError(rest[0])
                elif kind == "unusable":
                    raise RuntimeError(rest[0])
                elif kind == "answer":
                    return rest[0]
            if worker.dead():
                raise RuntimeError(f"a worker could not start: {worker.death()}")

    def run(
        self,
        cells: Sequence[RunSpec],
        store: ResultStore[Any],
        watcher: Watcher,
        keep: bool = False,
    ) -> Outcome:
        """Runs cells until each is done, diverged or failed.

        Raises:
            Interrupted: on Ctrl-C and SIGTERM; results that are written stay.
        """
        outcome = Outcome(total=len(cells), pending=deque(cells))
        attempts: dict[str, int] = {}
        self._fill(min(self._size, len(cells)))
        while outcome.pending or outcome.running:
            self.signals.check()
            for worker in self._workers:
                if worker.ready and worker.cell is None and outcome.pending:
                    self._start(worker, outcome, attempts, store)
            handles: list[Any] = [worker.connection for worker in self._workers]
            wait([*handles, *(worker.process.sentinel for worker in self._workers)], TICK)
            for worker in list(self._workers):
                for message in worker.messages():
                    self._receive(worker, message, outcome, store, keep)
                if worker.dead():
                    self._bury(worker, outcome, attempts, store)
            watcher.update(outcome)
        return outcome

    def _fill(self, size: int) -> None:
        while len(self._workers) < size:
            self._workers.append(_Worker(self._function, self._threads, self._options))

    def _start(
        self, worker: _Worker, outcome: Outcome, attempts: dict[str, int], store: ResultStore[Any]
    ) -> None:
        cell = outcome.pending.popleft()
        attempts[cell.id] = attempts.get(cell.id, 0) + 1
        directory = store.begin(cell) if attempts[cell.id] == 1 else store.directory(cell)
        worker.cell = cell
        outcome.running[id(worker)] = Running(cell, time.monotonic())
        worker.send("run", cell.model_dump(mode="json"), str(directory))

    def _receive(
        self,
        worker: _Worker,
        message: tuple[Any, ...],
        outcome: Outcome,
        store: ResultStore[Any],
        keep: bool,
    ) -> None:
        kind, *rest = message
        if kind == "ready":
            worker.ready, self._stillborn = True, 0
        elif kind == "unusable":
            raise RuntimeError(rest[0])
        elif kind == "progress":
            if running := outcome.running.get(id(worker)):
                running.fraction = rest[0]
        elif kind == "done":
            self._done(worker, rest[0], outcome, store, keep)
        else:
            self._close(worker, kind, rest[0], outcome, store)

    def _done(
        self, worker: _Worker, text: str, outcome: Outcome, store: ResultStore[Any], keep: bool
    ) -> None:
        cell = worker.cell
        assert cell is not None  # for mypy: only a worker with a cell says "done"
        try:
            result = store.parse(text)
            if result.run != cell.id:
                raise ValueError(f"the result is of cell {result.run}")
        except ValueError as error:  # pydantic's is one, too
            reason = "invalid result: " + "; ".join(str(error).splitlines())
            self._close(worker, "failed", reason, outcome, store)
            return
        store.finish(cell, result, keep)
        outcome.finished[cell.id] = result.seconds
        outcome.cells[cell.id] = cell
        self._free(worker, outcome)

    def _close(
        self,
        worker: _Worker,
        state: Literal["failed", "diverged"],
        reason: str,
        outcome: Outcome,
        store: ResultStore[Any],
    ) -> None:
        cell = worker.cell
        assert cell is not None  # for mypy, as above
        store.fail(cell, state, reason)
        (outcome.diverged if state == "diverged" else outcome.failed)[cell.id] = reason
        outcome.cells[cell.id] = cell
        self._free(worker, outcome)

    def _free(self, worker: _Worker, outcome: Outcome) -> None:
        outcome.running.pop(id(worker), None)
        worker.cell = None

    def _bury(
        self, worker: _Worker, outcome: Outcome, attempts: dict[str, int], store: ResultStore[Any]
    ) -> None:
        """Replaces a worker that died; its cell is tried once more."""
        reason = worker.death()
        if not worker.ready:
            self._stillborn += 1
            if self._stillborn > ATTEMPTS:
                raise RuntimeError(f"workers cannot start: {reason}")
        cell = worker.cell
        if cell is not None and attempts[cell.id] < ATTEMPTS:
            outcome.pending.appendleft(cell)
            self._free(worker, outcome)
        elif cell is not None:
            self._close(worker, "failed", f"{reason}, {ATTEMPTS} times", outcome, store)
        worker.kill()
        self._workers.remove(worker)
        if outcome.pending:
            self._fill(min(self._size, len(self._workers) + 1))


def cores() -> int:
    """Cores that this process may use: its affinity, and its share where a container sets one."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        allowed = os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            allowed = min(allowed, max(1, int(quota) // int(period)))
    return allowed


@contextlib.contextmanager
def _sigint_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
