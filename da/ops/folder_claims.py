"""Which process a folder belongs to: claimed once for ever, or held as long as a process lives."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from da.errors import UserError

CLAIM = ".claimed"
"""The file in a claimed folder that says who claimed it; it stays."""
_LOCK = ".lock"
_HOLDER = ".holder"


def claim_folder(folder: Path) -> Path:
    """Makes a folder, or takes an empty one, for this process alone.

    Of several processes that want the same folder, on one machine or on several, exactly one gets
    it: who makes the file :data:`CLAIM` in it. That stays, also after a kill; what the run wrote is
    then resumed (see :func:`hold_folder`) or left alone, but never mixed with another run's.

    Returns:
        The folder.

    Raises:
        FileExistsError: there is something in it; :func:`claimed_by` may know whose.
        OSError: it can't be made.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FileExistsError(f"{folder} is not empty")
        try:
            with (folder / CLAIM).open("x", encoding="utf-8") as file:
                file.write(_this_process())
        except FileNotFoundError:  # another process gave it up just now
            continue
        return folder


def claim_new_folder(root: Path, name: str) -> Path:
    """Claims the first of ``root/name``, ``root/name-2``, ``root/name-3``, … that is free.

    Raises:
        OSError: no folder can be made in ``root``.
    """
    root.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        with suppress(FileExistsError):
            return claim_folder(root / (name if number == 1 else f"{name}-{number}"))
    raise AssertionError("there is always a next number")


def give_up_folder(folder: Path) -> None:
    """Undoes :func:`claim_folder` where nothing was written to the folder since.

    For a run that is refused before it begins, so that the corrected one can have the folder.
    """
    with suppress(OSError):
        names = {path.name for path in folder.iterdir()}
        if CLAIM in names and names <= {CLAIM, _LOCK}:
            for name in (_LOCK, CLAIM):  # the claim last: until then it is nobody else's
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()


def claimed_by(folder: Path) -> str | None:
    """``"process 12 on host"``, who claimed the folder; None where nobody did."""
    return _text(folder / CLAIM)


@contextmanager
def hold_folder(folder: Path, advice: str) -> Iterator[None]:
    """Holds a folder for this process; a second one is refused with the holder's name.

    The lock belongs to the process, so the kernel frees it even after SIGKILL: there is no stale
    lock to clear and no clock to trust. It keeps out only those who hold the folder, too.

    Args:
        folder: made where it is missing.
        advice: how to name another folder, ``"name another folder with --out"``; ends the error.

    Raises:
        UserError: another process holds the folder, or it can't be written to.
    """
    from filelock import FileLock, Timeout

    holder = folder / _HOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK)
        lock.acquire(blocking=False)
    except Timeout:
        who = _text(holder) or "another process"
        raise UserError(
            f"{folder} is in use by {who}; wait until it ends, stop it, or {advice}"
        ) from None
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}); {advice}") from None
    try:
        # Beside the lock and not in it: who only tries to lock may cut that file to nothing.
        with suppress(OSError):
            holder.write_text(_this_process(), encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            holder.unlink(missing_ok=True)
        lock.release()


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
