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

from da.ops.files import alone, write_atomically

log = logging.getLogger(__name__)


class Kept(NamedTuple):
    """What is in a file.

    Attributes:
        tensors: by name.
        report: what is said of them, as JSON can hold it.
    """

    tensors: dict[str, Tensor]
    report: dict[str, Any]


def kept(
    path: Path, shapes: Mapping[str, torch.Size], make: Callable[[], Kept]
) -> tuple[Kept, bool]:
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
            held.enter_context(alone(path.with_suffix(".lock")))
        return _read_or_made(path, shapes, make)


def _read_or_made(
    path: Path, shapes: Mapping[str, torch.Size], make: Callable[[], Kept]
) -> tuple[Kept, bool]:
    try:
        return _read(path, shapes), True
    except FileNotFoundError:
        pass
    except Exception as error:  # whatever a damaged file provokes in safetensors and JSON
        log.warning("%s is broken (%s): making it again", path, " ".join(str(error).split()))
    made = make()
    try:
        write_atomically(path, _content(made))
    except OSError as error:
        log.warning("%s can't be written (%s): it is not kept", path, error.strerror)
    return made, False


def digest(tensors: Mapping[str, Tensor], *settings: Any) -> str:
    """SHA-256 of names, types, shapes and bits, and of settings as JSON writes them.

    >>> digest({"a": torch.zeros(2)}) == digest({"a": -torch.zeros(2)})
    False
    """
    found = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _content(made: Kept) -> bytes:
    # Copies: a tensor that shares its memory with another is refused by safetensors.
    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in made.tensors.items()
    }
    report = json.dumps(made.report)
    return save(tensors, {"report": report, "sha256": digest(tensors, report)})


def _read(path: Path, shapes: Mapping[str, torch.Size]) -> Kept:
    if not path.is_file():
        raise FileNotFoundError(path)
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if digest(tensors, header["report"]) != header["sha256"]:
        raise ValueError("its checksum does not match")
    if {name: value.shape for name, value in tensors.items()} != dict(shapes):
        raise ValueError("it is of another network")
    return Kept(tensors, json.loads(header["report"]))
