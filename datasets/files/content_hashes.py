"""SHA-256 of what data consist of: names and numbers, and files by their content."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from da.ops.files import cache_folder
from da.ops.sealed_json import parse_sealed, write_sealed

from ..files.decoding import unreadable
from ..files.parallel import in_parallel

log = logging.getLogger(__name__)


def digest(*parts: object) -> str:
    """A SHA-256 over names, numbers and arrays; arrays count with their shape and type."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            total.update(f"{part.dtype.str}{part.shape}".encode())
            total.update(np.ascontiguousarray(part).data)
        else:
            total.update(repr(part).encode())
    return total.hexdigest()


def content_hashes(root: Path, paths: Sequence[str], workers: int | None = None) -> list[str]:
    """The SHA-256 of every file, in order; read again only where something of a file changed.

    What is known is kept in the user's cache folder, by path, size, and the times of the last
    change of content and of anything: the former can be set back, as copies do. A file that was
    written less than two seconds before it was hashed is hashed again: it may change within the
    resolution of its time.

    Args:
        root: folder that the paths are relative to.
        paths: of N files.
        workers: processes; one per core where not given.

    Raises:
        UnreadableImage: names the first file that can't be read.
    """
    index = cache_folder() / "hashes" / f"{digest(str(root.resolve()), tuple(paths))[:16]}.json"
    known = _read(index)
    now = _now(index)  # of before: what changes while others are hashed must not be kept
    states = [_state(root / path) for path in paths]
    old = [known.get(path, [None])[:-1] == state for path, state in zip(paths, states, strict=True)]
    jobs = [(root, path) for path, same in zip(paths, old, strict=True) if not same]
    fresh = iter(in_parallel(_hash, jobs, workers, "hashing images", show=len(jobs) > 5000))
    hashes = [
        known[path][-1] if same else next(fresh) for path, same in zip(paths, old, strict=True)
    ]
    if jobs and now is not None:
        kept = {
            path: [*state, value]
            for path, state, value in zip(paths, states, hashes, strict=True)
            if now - max(state[1:]) > 2 * 10**9
        }
        with contextlib.suppress(OSError):
            write_sealed(index, {"files": kept}, indent=None)
    return hashes


def _read(index: Path) -> dict[str, list]:
    """Size, two times and SHA-256 of files as they were, by path; empty where nothing is kept.

    One wrong hash would let a changed image pass for what it was, or the other way round.
    """
    try:
        content, sealed = parse_sealed(index.read_bytes())
        if not sealed:
            raise ValueError("it has no checksum")
        return content["files"]
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError) as error:
        log.warning("%s is broken (%s): hashing the images again", index, error)
    return {}


def _state(path: Path) -> list[int]:
    try:
        state = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns]


def _now(index: Path) -> int | None:
    """The time by the clock of a file system, which may be another machine's.

    None where nothing can be written, and so nothing be kept: files are hashed each time then.
    """
    probe = index.with_name(f".{index.stem}.{os.getpid()}.now")
    try:
        index.parent.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        now = probe.stat().st_mtime_ns
        probe.unlink()
    except OSError:
        return None
    return now


def _hash(root: Path, path: str) -> str:
    try:
        with (root / path).open("rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        raise unreadable(root / path, error) from error
