"""The results of a grid on disk. A file is absent or whole, and is validated before it counts."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

from da.engine.result import Failure, Result, Seconds
from da.engine.run_folder import (
    RESULT,
    read_failure,
    read_result,
    write_failure,
    write_result,
    write_spec,
)
from da.engine.spec import RunSpec
from da.errors import UserError
from da.ops.folder_claims import hold_folder

PLAN = "grid.json"
"""The file that says what the results of an output folder belong to."""

LOGS = "logs"
"""The folder of a training's loggers."""

State = Literal["done", "diverged", "failed", "pending"]


class Finished(Protocol):
    """What every kind of result says: of which cell it is, and what it took."""

    run: str
    seconds: Seconds


R = TypeVar("R", bound=Finished)


class ResultStore(ABC, Generic[R]):
    """One output folder: ``OUT/<folder>/<id>/`` holds ``result.json`` or ``failure.json``, a log.

    Only the driver writes results, and only while it holds :meth:`lock`; so a worker that
    outlives its driver for a moment can change nothing.

    Attributes:
        folder: where the folders of the cells lie.
        redo: what removing a wrong result leads to, for its message.
    """

    folder: ClassVar[str]
    redo: ClassVar[str]

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def parse(self, text: str) -> R:
        """The result that a worker sent as JSON.

        Raises:
            ValueError: it is none.
        """

    @abstractmethod
    def read(self, directory: Path) -> R:
        """The result in a cell's folder.

        Raises:
            UserError: it is damaged or of another version.
        """

    @abstractmethod
    def write(self, directory: Path, result: R) -> None:
        """Writes a result into a cell's folder, whole or not at all."""

    def directory(self, cell: RunSpec) -> Path:
        """The folder of a cell."""
        return self.root / self.folder / cell.id

    def log(self, cell: RunSpec) -> Path:
        """What the cell printed."""
        return self.directory(cell) / "log.txt"

    def result(self, cell: RunSpec) -> R | None:
        """The cell's result, or None where it has none yet: run it.

        Raises:
            UserError: where the result is damaged, or of another cell or version. It is not run
                again in silence.
        """
        directory = self.directory(cell)
        if not (directory / RESULT).exists():
            return None
        result = self.read(directory)
        if result.run != cell.id:
            raise UserError(
                f"result: '{directory / RESULT}' is of another cell ({result.run}); remove that "
                f"file to {self.redo} the cell again"
            )
        return result

    def failure(self, cell: RunSpec) -> Failure | None:
        """Why the cell's last attempt left no result, where that is known."""
        failure = read_failure(self.directory(cell))
        return failure if failure and failure.run == cell.id else None

    def state(self, cell: RunSpec) -> State:
        """Done only where the result validates."""
        if self.result(cell) is not None:
            return "done"
        failure = self.failure(cell)
        return failure.state if failure else "pending"

    def begin(self, cell: RunSpec) -> Path:
        """Clears what an earlier attempt left and returns the cell's folder."""
        directory = self.directory(cell)
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True, exist_ok=True)
        write_spec(directory, cell)
        return directory

    def finish(self, cell: RunSpec, result: R, keep: bool) -> None:
        """Removes everything but logs unless told to keep it, then writes the result.

        In this order no checkpoint outlives a kill between the two, and a full disk has room.
        """
        if not keep:
            for path in self.directory(cell).iterdir():
                if path.name not in ("log.txt", LOGS):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.write(self.directory(cell), result)

    def fail(self, cell: RunSpec, state: Literal["failed", "diverged"], reason: str) -> None:
        """Records why there is no result."""
        write_failure(self.directory(cell), cell, state, reason)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the folder for one driver; see :func:`da.ops.folder_claims.hold_folder`.

        Raises:
            UserError: another driver holds it, or an earlier version filled it.
        """
        with hold_folder(self.root, "name another folder with --out"):
            refuse_earlier_version(self.root)
            yield


class Store(ResultStore[Result]):
    """The trainings of a grid: ``OUT/cells/<id>/``."""

    folder = "cells"
    redo = "train"

    def parse(self, text: str) -> Result:
        """See :meth:`ResultStore.parse`."""
        return Result.model_validate_json(text)

    def read(self, directory: Path) -> Result:
        """See :meth:`ResultStore.read`."""
        return read_result(directory)

    def write(self, directory: Path, result: Result) -> None:
        """See :meth:`ResultStore.write`."""
        write_result(directory, result)


def refuse_earlier_version(root: Path) -> None:
    """Refuses an output folder whose grid or results are of schema 1, which is not read any more.

    What is damaged is passed over: whoever reads it names it.
    """
    for path in (root / PLAN, *sorted(root.glob(f"cells/*/{RESULT}"))):
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(content, dict) and _is_earlier(content):
            raise UserError(
                f"'{path}' was written by an earlier version (schema 1), which this one does not "
                "read; name another folder with --out and train again, or use the version that "
                "wrote it"
            )


def _is_earlier(content: dict[str, Any]) -> bool:
    # Results of the very first version had no number.
    return content.get("schema_version") == 1 or {"cell", "settings"} <= content.keys()


def size(path: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
