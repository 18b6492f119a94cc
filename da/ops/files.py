"""Where this project keeps what it makes for later, and files that are never half written."""

from __future__ import annotations

import errno
import glob
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CHOICE = "::"
"""Between a file and the part of it that is meant."""
SPARE = 2**28
"""Bytes that are left free on a disk by what fills it on purpose."""
_STALE = 3600.0
"""Seconds after which a temporary file is what a killed process left behind."""


def cache_folder() -> Path:
    """The project's folder in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "da"


def split_choice(path: str) -> tuple[str, str | None]:
    """A file and the part of it that is meant, ``None`` for whichever it is about.

    >>> split_choice("timm.pth.tar::state_dict_ema")
    ('timm.pth.tar', 'state_dict_ema')
    """
    if CHOICE not in path or Path(path).expanduser().exists():
        return path, None
    file, _, part = path.rpartition(CHOICE)
    return file, part


def chosen_file(path: str | None) -> Path | None:
    """The file of such a name, without the part of it; None where there is no file of that name.

    >>> chosen_file("imagenet") is chosen_file(None) is None
    True
    """
    file = Path(split_choice(path)[0]).expanduser() if path else None
    return file if file is not None and file.is_file() else None


@contextmanager
def exclusive_lock(lock: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Waits until no other process is in such a block for the same file, where locks work.

    The kernel frees the lock of a process that ends in any way.

    Args:
        lock: made where it is missing, with its folder; nothing is ever read from it.
        waiting: called once where another process is first.

    Raises:
        OSError: where it can't be made.
    """
    from filelock import FileLock, Timeout

    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.open("ab").close()
    held = FileLock(lock)
    with suppress(OSError, NotImplementedError):  # a file system without locks
        try:
            held.acquire(blocking=False)
        except Timeout:
            if waiting is not None:
                waiting()
            held.acquire()
    try:
        yield
    finally:
        held.release()


def write_atomically(path: Path, content: str | bytes | memoryview) -> None:
    """Writes a file that is absent, old or whole after a crash at any moment, or on a full disk.

    The temporary file lies in the same folder, so that the rename never crosses file systems.

    Args:
        path: its folder is made where it is missing.
        content: text is written as UTF-8.

    Raises:
        OSError: where it can't be written; the old file and nothing else is there then.
    """
    if isinstance(content, str):
        content = content.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    descriptor, name = tempfile.mkstemp(".tmp", f".{path.name}.", path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def path_from(folder: Path, path: Path) -> str:
    """The path that leads to a file from a folder, with forward slashes.

    Where none does, as to another drive of Windows, it is the whole path.

    >>> path_from(Path("runs/report"), Path("runs/cells/a"))
    '../cells/a'
    """
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return path.resolve().as_posix()


def _remove_leftovers(path: Path) -> None:
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError):  # its writer, or another process that cleans up, removed it first
            if time.time() - left.stat().st_mtime > _STALE:
                left.unlink()


def _sync_folder(folder: Path) -> None:
    """Makes a rename last through a power failure, where folders can be synced."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folder, and some may be written to but not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF):
            raise
    finally:
        os.close(descriptor)
