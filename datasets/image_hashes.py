"""SHA-256 of files by their content, read again only where size or time of change differ."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from da.ops.files import write_bytes_atomically
from datasets.decoding import unreadable
from datasets.images import FileImages, digest
from datasets.parallel import in_parallel


def content_hashes(files: FileImages, place: Path, workers: int | None = None) -> list[str]:
    """The SHA-256 of every file, in order.

    What is known is kept in ``place`` by path, size and time of the last change. A file that was
    written less than two seconds before it was hashed is hashed again: it may change within the
    resolution of its time.
    """
    index = place / f"{digest(str(files.root.resolve()), files.paths)[:16]}.hashes.json"
    try:
        known: dict[str, list] = json.loads(index.read_bytes())
    except (OSError, ValueError):
        known = {}
    states = [_state(files.root / path) for path in files.paths]
    old = [
        known.get(path, [None])[:-1] == state
        for path, state in zip(files.paths, states, strict=True)
    ]
    jobs = [(files, i) for i, same in enumerate(old) if not same]
    fresh = iter(in_parallel(_hash, jobs, workers, "hashing images", show=len(jobs) > 5000))
    hashes = [
        known[path][-1] if same else next(fresh)
        for path, same in zip(files.paths, old, strict=True)
    ]
    if jobs:
        now = _now(place)
        kept = {
            path: [*state, value]
            for path, state, value in zip(files.paths, states, hashes, strict=True)
            if now - state[1] > 2 * 10**9
        }
        write_bytes_atomically(index, json.dumps(kept).encode())
    return hashes


def _state(path: Path) -> list[int]:
    try:
        state = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    return [state.st_size, state.st_mtime_ns]


def _now(place: Path) -> int:
    """The time by the clock of the file system, which may be another machine's."""
    probe = place / f".{os.getpid()}.now"
    probe.write_bytes(b"")
    try:
        return probe.stat().st_mtime_ns
    finally:
        probe.unlink()


def _hash(files: FileImages, i: int) -> str:
    path = files.root / files.paths[i]
    try:
        with path.open("rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error
