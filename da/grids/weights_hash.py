"""What a file of weights holds, as part of a cell's identity: its path is none."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any


def hash_weights(weights: Any) -> str | None:
    """SHA-256 of a file of weights; None where the weights are no file (``imagenet``)."""
    if not isinstance(weights, str) or not (file := Path(weights).expanduser()).is_file():
        return None
    state = file.stat()
    return _hash_file(file, state.st_mtime_ns, state.st_size)


@cache
def _hash_file(file: Path, changed: int, size: int) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()
