"""Arrays that are made once and kept in a file: written atomically, verified on every load."""

from __future__ import annotations

import logging
import os
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from da.ops.files import cache_folder

from ..files.content_hashes import digest

log = logging.getLogger(__name__)
Arrays = dict[str, NDArray]
_STALE = 3600.0
"""Seconds after which a temporary file is the leftover of a killed process."""


def folder(root: str | None) -> Path:
    """Where data that the project makes itself is kept: ``root``, or the user's cache folder."""
    if root is not None:
        return Path(root).expanduser()
    return cache_folder()


def kept(path: Path, make: Callable[[], Arrays]) -> tuple[Arrays, str]:
    """Reads the arrays of a file, or makes and writes them; returns them with their SHA-256.

    Several processes may do this at once: each writes a file of its own and renames it, and since
    ``make`` is deterministic it doesn't matter who is last. A broken file is made again with one
    line of notice; where nothing can be written, the arrays are made in memory, with one too.
    """
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s is broken (%s): making it again", path, " ".join(str(error).split()))
    arrays = make()
    checksum = digest(sorted(arrays), *(arrays[name] for name in sorted(arrays)))
    try:
        _write(path, arrays, checksum)
    except OSError as error:
        log.warning("%s can't be written (%s): the data are made in memory", path, error.strerror)
    return arrays, checksum


def _read(path: Path) -> tuple[Arrays, str]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files if name != "checksum"}
        checksum = str(stored["checksum"])
    if digest(sorted(arrays), *(arrays[name] for name in sorted(arrays))) != checksum:
        raise ValueError("its checksum does not match")
    return arrays, checksum


def _write(path: Path, arrays: Arrays, checksum: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f"{path.name}.*.tmp"):
        if time.time() - left.stat().st_mtime > _STALE:
            left.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            content: dict[str, Any] = {**arrays, "checksum": np.array(checksum)}
            np.savez(file, **content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        parent = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
