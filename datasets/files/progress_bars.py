"""What people see of long work on files: how far it is, and what it waits for."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from da.ops.files import exclusive_lock

log = logging.getLogger(__name__)

_LINE = 2**26
"""Bytes below which a line that says how far it is would be noise."""


@contextmanager
def shown_bytes(title: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A bar with an estimate on a terminal, elsewhere a line for every tenth of what is large.

    Args:
        title: what is done to which file.
        total: bytes in all, where that is known.
        done: bytes that were there before.

    Yields:
        A function to be called with the number of bytes that are done by then.
    """
    if not sys.stderr.isatty():
        yield _lines(title, total, done)
        return
    columns = (
        *(TextColumn("{task.description}", markup=False), BarColumn(20), DownloadColumn()),
        *(TransferSpeedColumn(), TimeRemainingColumn()),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total, completed=done)
        yield lambda now: bar.update(task, completed=now)


def _lines(title: str, total: int | None, done: int) -> Callable[[int], None]:
    step = max(_LINE, (total or 0) // 10)
    of = f" of {total / 2**20:,.0f}" if total else ""
    last = done // step

    def now(done: int) -> None:
        nonlocal last
        if done // step > last:
            last = done // step
            log.info("%s: %s%s MB", title, f"{done / 2**20:,.0f}", of)

    return now


@contextmanager
def in_turn(lock: Path, what: str) -> Iterator[None]:
    """As :func:`da.ops.files.exclusive_lock`, and says so where another process is first."""

    def say() -> None:
        log.warning("waiting for another process: %s", what)

    with exclusive_lock(lock, say):
        yield
