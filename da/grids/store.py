"""The results of a grid on disk. A file is absent or whole, and is validated before it counts."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from da.engine.result import Result
from da.engine.spec import RunSpec
from da.errors import UserError
from da.ops.files import write_atomically

State = Literal["done", "diverged", "failed", "pending"]


class Failure(BaseModel):
    """Why a cell has no result. Divergence is final; anything else is tried again by a new run."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["failed", "diverged"]
    cell: str
    reason: str


class Store:
    """One output folder: ``OUT/cells/<id>/`` holds ``result.json`` or ``failure.json``, a log.

    Only the driver writes results, and only while it holds :meth:`lock`; so a worker that
    outlives its driver for a moment can change nothing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def directory(self, cell: RunSpec) -> Path:
        """The folder of a cell."""
        return self.root / "cells" / cell.id

    def log(self, cell: RunSpec) -> Path:
        """What the cell printed."""
        return self.directory(cell) / "log.txt"

    def result(self, cell: RunSpec) -> Result | None:
        """The cell's result, or None where it is absent, cut, of another cell or of an old schema.

        None means: run it again.
        """
        try:
            text = (self.directory(cell) / "result.json").read_text(encoding="utf-8")
            result = Result.model_validate_json(text)
        except (OSError, UnicodeDecodeError, ValidationError):
            return None
        return result if result.cell == cell.id else None

    def failure(self, cell: RunSpec) -> Failure | None:
        """Why the cell's last attempt left no result, where that is known."""
        try:
            text = (self.directory(cell) / "failure.json").read_text(encoding="utf-8")
            failure = Failure.model_validate_json(text)
        except (OSError, UnicodeDecodeError, ValidationError):
            return None
        return failure if failure.cell == cell.id else None

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
        return directory

    def finish(self, cell: RunSpec, result: Result, keep: bool) -> None:
        """Removes everything but the log unless told to keep it, then writes the result.

        In this order no checkpoint outlives a kill between the two, and a full disk has room.
        """
        if not keep:
            for path in self.directory(cell).iterdir():
                if path.name != "log.txt":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_atomically(self.directory(cell) / "result.json", result.model_dump_json(indent=1))

    def fail(self, cell: RunSpec, state: Literal["failed", "diverged"], reason: str) -> None:
        """Records why there is no result."""
        failure = Failure(state=state, cell=cell.id, reason=reason)
        write_atomically(self.directory(cell) / "failure.json", failure.model_dump_json(indent=1))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the folder for one driver; a second one is refused with the holder's name.

        The lock belongs to the process, so the kernel frees it even after SIGKILL: there is no
        stale lock to clear and no clock to trust.
        """
        import fcntl  # only on POSIX, and only for those who run a grid

        path = self.root / ".lock"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"cannot write to {self.root} ({error.strerror}); name a folder with --out"
            ) from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                raise UserError(
                    f"{self.root} is in use by {file.read().strip() or 'another process'}; wait "
                    "until it ends, stop it, or name another folder with --out"
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            yield
            file.truncate(0)


def size(path: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
