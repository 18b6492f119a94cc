"""Arrays that are made once and kept in a file: written atomically, verified on every load."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from da.ops.files import cache_folder, write_atomically

from ..files.content_hashes import digest

log = logging.getLogger(__name__)
Arrays = dict[str, NDArray]


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
        return read_arrays(path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        log.warning("%s is broken (%s): making it again", path, error)
    arrays = make()
    checksum = _checksum(arrays)
    try:
        write_arrays(path, arrays)
    except OSError as error:
        log.warning("%s can't be written (%s): the data are made in memory", path, error.strerror)
    return arrays, checksum


def read_arrays(path: Path) -> tuple[Arrays, str]:
    """What :func:`write_arrays` wrote, and its SHA-256.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it can't be read.
        ValueError: it is not as it was written; says so in one line.
    """
    content = path.read_bytes()
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files if name != "checksum"}
            checksum = str(stored["checksum"])
    except Exception as error:  # whatever a damaged archive provokes in zip, zlib and numpy
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(text) from error
    if _checksum(arrays) != checksum:
        raise ValueError("its checksum does not match")
    return arrays, checksum


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Writes arrays with a SHA-256 of their names, types, shapes and bits, atomically.

    Args:
        path: an .npz file.
        arrays: by name; none is called ``checksum``.

    Raises:
        OSError: it can't be written.
    """
    buffer = io.BytesIO()
    content: dict[str, Any] = {**arrays, "checksum": np.array(_checksum(arrays))}
    np.savez(buffer, **content)
    with buffer.getbuffer() as view:
        write_atomically(path, view)


def _checksum(arrays: Arrays) -> str:
    return digest(sorted(arrays), *(arrays[name] for name in sorted(arrays)))
