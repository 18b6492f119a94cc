"""What a file of weights holds, as part of a cell's identity: its path is none."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from da.ops.files import split_choice


def hash_weights(weights: Any) -> str | None:
    """SHA-256 of a file of weights; None where the weights are no file (``imagenet``).

    Of a part of a file, ``FILE::state_dict_ema``, the part is in it, too.
    """
    if not isinstance(weights, str):
        return None
    name, part = split_choice(weights)
    file = Path(name).expanduser()
    if not file.is_file():
        return None
    state = file.stat()
    whole = _hash_file(file, state.st_mtime_ns, state.st_size)
    return whole if part is None else hashlib.sha256(f"{whole} {part}".encode()).hexdigest()


@cache
def _hash_file(file: Path, changed: int, size: int) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()
