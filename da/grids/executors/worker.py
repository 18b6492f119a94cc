"""The process in which cells run, one after the other. It imports the heavy libraries once."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from da.data_sets import PACKAGE
from da.engine.spec import RunSpec
from da.errors import Diverged, UserError
from da.ops.log_output import show_log
from da.ops.process_groups import end_group, lead_group

POOLS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
"""Environment variables that libraries read once, when they are loaded."""

REPORT_EVERY = 0.2
"""Seconds between two reports of a cell's progress."""


def load(path: str) -> Any:
    """The object that ``"package.module:name"`` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def serve(connection: Connection, function: str, threads: int, options: dict[str, Any]) -> None:
    """Answers the driver's messages until it closes the connection or dies.

    Args:
        connection: the pipe to the driver.
        function: ``"module:name"`` of the function that trains a cell; imported at once, so that
            the worker is warm when the first cell comes.
        threads: how many threads numerical libraries may use here.
        options: arguments of that function that are no part of a cell.
    """
    lead_group()  # Ctrl-C reaches the driver alone, and it can end us with all our children
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_the_driver, daemon=True).start()
    show_log(PACKAGE)  # what a cell says goes into its log
    for name in POOLS:
        os.environ[name] = str(threads)
    try:
        train = partial(load(function), **options)
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(threads)
    except BaseException:
        connection.send(("unusable", f"cannot load {function}: {traceback.format_exc()}"))
        return
    connection.send(("ready",))
    with contextlib.suppress(EOFError, OSError):  # the driver is gone
        while True:
            kind, *rest = connection.recv()
            if kind == "call":
                connection.send(_answer(*rest))
            else:
                connection.send(_train(connection, train, *rest))
                gc.collect()  # a trainer is full of cycles: without, a worker grows by the cell


def _die_with_the_driver() -> None:
    driver = parent_process()
    if driver is not None:
        driver.join()  # a pipe that the kernel closes, even after SIGKILL
        end_group(os.getpid())
        os._exit(1)  # whatever became of the others


def _answer(function: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    try:
        return ("answer", load(function)(*arguments))
    except UserError as error:
        return ("refused", str(error))
    except Exception:
        return ("unusable", traceback.format_exc())


def _train(
    connection: Connection,
    train: Callable[..., Any],
    settings: dict[str, Any],
    directory: str,
) -> tuple[Any, ...]:
    last = 0.0

    def progress(fraction: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= REPORT_EVERY:
            last = now
            connection.send(("progress", float(fraction)))

    with _output_to(Path(directory) / "log.txt"):
        try:
            result = train(RunSpec(**settings), Path(directory), progress)
            return ("done", result.model_dump_json())
        except Diverged as error:
            reason = str(error).removeprefix("diverged: ")  # the state says so
            print(f"diverged: {reason}")
            return ("diverged", reason)
        except UserError as error:
            print(f"error: {error}")
            return ("failed", str(error))
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            lines = str(error).strip().splitlines()
            return ("failed", f"{type(error).__name__}: {lines[0] if lines else ''}")


@contextlib.contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Sends file descriptors 1 and 2 to a file: what C libraries and children print, too."""
    saved = os.dup(1), os.dup(2)
    with log.open("ab", buffering=0) as file:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a log is UTF-8, whatever a terminal was
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, target in zip(saved, (1, 2), strict=True):
            os.dup2(descriptor, target)
            os.close(descriptor)
