"""Tensors that are costly to make, kept in a file: written atomically, verified on every load."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from da.ops.files import exclusive_lock, write_atomically

log = logging.getLogger(__name__)


class CachedTensors(NamedTuple):
    """What is in a file.

    Attributes:
        tensors: by name.
        report: what is said of them, as JSON can hold it.
    """

    tensors: dict[str, Tensor]
    report: dict[str, Any]


def read_or_make(
    path: Path, shapes: Mapping[str, torch.Size], make: Callable[[], CachedTensors]
) -> tuple[CachedTensors, bool]:
    """Reads tensors, or makes and writes them; also says whether they were read.

    Of several processes that need the same file one makes it while the others wait, and it appears
    whole. A broken file is made again with one line of notice; where nothing can be written, there
    is one too.

    Args:
        path: a .safetensors file; the report and a checksum are in its header.
        shapes: of the tensors that are expected, by name.
        make: makes them.
    """
    with ExitStack() as held:
        with suppress(OSError):  # a folder that can't be written to: everyone makes what it needs
            held.enter_context(exclusive_lock(path.with_suffix(".lock")))
        return _read_or_make_unlocked(path, shapes, make)


def _read_or_make_unlocked(
    path: Path, shapes: Mapping[str, torch.Size], make: Callable[[], CachedTensors]
) -> tuple[CachedTensors, bool]:
    try:
        return _read_verified(path, shapes), True
    except FileNotFoundError:
        pass
    except Exception as error:  # whatever a damaged file provokes in safetensors and JSON
        log.warning("%s is broken (%s): making it again", path, " ".join(str(error).split()))
    cached = make()
    try:
        write_atomically(path, _serialise(cached))
    except OSError as error:
        log.warning("%s can't be written (%s): it is not kept", path, error.strerror)
    return cached, False


def digest_tensors(tensors: Mapping[str, Tensor], *settings: Any) -> str:
    """SHA-256 of names, types, shapes and bits, and of settings as JSON writes them.

    >>> digest_tensors({"a": torch.zeros(2)}) == digest_tensors({"a": -torch.zeros(2)})
    False
    """
    hasher = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        hasher.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        hasher.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def _serialise(cached: CachedTensors) -> bytes:
    # Copies: a tensor that shares its memory with another is refused by safetensors.
    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in cached.tensors.items()
    }
    report = json.dumps(cached.report)
    return save(tensors, {"report": report, "sha256": digest_tensors(tensors, report)})


def _read_verified(path: Path, shapes: Mapping[str, torch.Size]) -> CachedTensors:
    if not path.is_file():
        raise FileNotFoundError(path)
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if digest_tensors(tensors, header["report"]) != header["sha256"]:
        raise ValueError("its checksum does not match")
    if {name: value.shape for name, value in tensors.items()} != dict(shapes):
        raise ValueError("it is of another network")
    return CachedTensors(tensors, json.loads(header["report"]))
