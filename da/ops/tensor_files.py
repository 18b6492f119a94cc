"""Reading files of tensors without running any code that they hold."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from da.errors import UserError

#: torch.load heeds these even where it is told ``weights_only=True``.
_UNSAFE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def read_tensors(kind: str, path: str, advice: str) -> Any:
    """What is in a file of torch.save or a .safetensors file, on the CPU.

    Args:
        kind: what the file is to the user, ``"weights"``; begins the error.
        path: the file.
        advice: what to give instead; ends the error.

    Raises:
        UserError: where there is no such file, or it is not one that tensors can be read from.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"{kind}: no file '{path}'; {advice}")
    refuse_unsafe(kind)
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch says how to load it all the same, which would run whatever is in it.
        reason = "it is no file of tensors"
        raise UserError(f"{kind}: '{path}' can't be read: {reason}; {advice}") from error
    except Exception as error:  # whatever a broken file provokes in zip, pickle or safetensors
        reason = f"it is cut short or no file of tensors ({type(error).__name__})"
        raise UserError(f"{kind}: '{path}' can't be read: {reason}; {advice}") from error


def refuse_unsafe(kind: str) -> None:
    """Refuses to read anything where torch.load was told to run what files hold.

    Args:
        kind: see :func:`read_tensors`.
    """
    if os.environ.get(_UNSAFE, "").lower() in ("1", "y", "yes", "true"):
        raise UserError(f"{kind}: the environment variable {_UNSAFE} lets files run code; unset it")
