"""One function over many images, in processes, with a progress bar."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

_FEW = 64
"""Images below which processes cost more than they gain."""
_CHUNK = 16


def in_parallel(
    call: Callable[..., T],
    jobs: Sequence[tuple[Any, ...]],
    workers: int | None = None,
    title: str = "",
    show: bool = True,
) -> Iterator[T]:
    """Results of a function in the order of its jobs; the first error is raised as it came.

    Memory stays flat: only a few chunks are under way at a time. On a terminal there is a bar with
    an estimate, elsewhere a line at the end of every tenth.

    Args:
        call: of a module, so that processes can import it.
        jobs: arguments of each call. The first of them is the same object in all, sent once.
        workers: processes; one per core where not given.
        title: of the bar.
        show: whether there is one.
    """
    count = workers or os.cpu_count() or 1
    results = (
        (call(*job) for job in jobs)
        if count < 2 or len(jobs) < _FEW or multiprocessing.current_process().daemon
        else _spread(call, jobs, count)
    )
    return _shown(results, len(jobs), title) if show else results


def _spread(call: Callable[..., T], jobs: Sequence[tuple[Any, ...]], count: int) -> Iterator[T]:
    shared = jobs[0][0]
    chunks = ([job[1:] for job in jobs[i : i + _CHUNK]] for i in range(0, len(jobs), _CHUNK))
    # A fork costs next to nothing, but is safe on Linux alone.
    context = multiprocessing.get_context("spawn" if sys.platform != "linux" else "fork")
    pool = ProcessPoolExecutor(count, context, _start, (call, shared))
    waiting: list[Future[list[T]]] = []

    def submit(number: int) -> None:
        with _interrupted_afterwards():  # it is here that processes are forked
            waiting.extend(pool.submit(_run, chunk) for chunk in islice(chunks, number))

    try:
        submit(2 * count)
        while waiting:
            done = waiting.pop(0).result()
            submit(1)
            yield from done
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupted_afterwards() -> Iterator[None]:
    """Ctrl-C waits until the end: in the moment of a fork Python passes over an exception."""
    before = signal.getsignal(signal.SIGINT)
    if before is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(signal.SIGINT)


_task: tuple[Callable[..., Any], Any]


def _start(call: Callable[..., Any], shared: Any) -> None:
    global _task
    _task = (call, shared)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """Ends this process soon after its parent: one that is killed can't tell it to."""
    if sys.platform == "win32" and (process := multiprocessing.parent_process()):
        process.join()  # there a process keeps its parent's number, also when that is gone
    else:
        while os.getppid() == parent:
            time.sleep(0.5)
    os._exit(1)


def _run(chunk: list[tuple[Any, ...]]) -> list[Any]:
    call, shared = _task
    return [call(shared, *rest) for rest in chunk]


def _shown(results: Iterator[T], total: int, title: str) -> Iterator[T]:
    if not sys.stderr.isatty():
        yield from _lines(results, total, title)
        return
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        for result in results:
            yield result
            bar.advance(task)


def _lines(results: Iterator[T], total: int, title: str) -> Iterator[T]:
    step = max(1000, -(-total // 10))
    for i, result in enumerate(results, 1):
        yield result
        if i % step == 0:
            log.info("%s: %s of %s", title, f"{i:,}", f"{total:,}")
