"""What a file of weights holds, as part of a cell's identity: its path is none."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from da.errors import UserError
from da.ops.files import chosen_file, split_choice


def hash_weights(weights: Any) -> str | None:
    """SHA-256 of a file of weights; None where the weights are no file (``imagenet``).

    Of a part of a file, ``FILE::state_dict_ema``, the part is in it, too; and of a checkpoint of
    this library that more is taken of it than a backbone, which earlier versions did not.
    """
    if not isinstance(weights, str):
        return None
    part, file = split_choice(weights)[1], chosen_file(weights)
    if file is None:
        return None
    state = file.stat()
    whole = _hash_file(file, state.st_mtime_ns, state.st_size)
    more = [] if part is None else [part]
    if _holds_heads(file, state.st_mtime_ns, state.st_size):
        more.append("heads")
    return hashlib.sha256(" ".join([whole, *more]).encode()).hexdigest() if more else whole


@cache
def _hash_file(file: Path, changed: int, size: int) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


@cache
def _holds_heads(file: Path, changed: int, size: int) -> bool:
    """Whether a training here wrote a file; one that can't be read is refused elsewhere."""
    from da.networks.weight_files import read_weight_file  # it imports torch

    try:
        return bool(read_weight_file(str(file)).classes)
    except UserError:
        return False
