"""A program of torch.export (.pt2): runs where PyTorch does, without the code of the network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from da.errors import UserError
from da.exports.base import KEY, About, Exported, ExportFormat, about_of, refusing
from da.exports.plain_network import PlainClassifier, fold_all_batch_norms
from da.networks.network import Network
from da.ops.log_output import without_warnings
from da.ops.tensor_files import refuse_unsafe_loading

ABOUT = f"{KEY}.json"
"""The extra file of the archive that says what it is."""


class TorchExport(ExportFormat):
    """A .pt2 file with a free batch size."""

    name: ClassVar[str] = "torch-export"
    suffix: ClassVar[str] = ".pt2"

    def write(self, network: Network, about: About, path: Path) -> None:
        """See :meth:`ExportFormat.write`."""
        fold_all_batch_norms(network)
        side = about.preparation.image_size
        with refusing(self, "onnx"):
            program = torch.export.export(
                PlainClassifier(network).eval(),
                (torch.zeros(2, 3, side, side),),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                strict=False,
            )
            torch.export.save(program, str(path), extra_files={ABOUT: about.as_json()})

    def read(self, path: Path) -> Exported:
        """See :meth:`ExportFormat.read`."""
        extra: dict[str, Any] = {ABOUT: ""}
        try:
            with _tensors_only(), without_warnings():
                program = torch.export.load(str(path), extra_files=extra)
        except UserError:
            raise
        except Exception as error:  # whatever a broken file provokes
            reason = " ".join(str(error).split())
            raise UserError(f"'{path}' can't be read as a .pt2 file: {reason}") from error
        text = extra[ABOUT]
        about = about_of(text if isinstance(text, str) else bytes(text).decode(), str(path))
        module: Any = program.module()

        def logits(images: Tensor) -> Tensor:
            with torch.no_grad():
                return module(images.float())

        return Exported(logits, about)


@contextmanager
def _tensors_only() -> Iterator[None]:
    """Has torch.load refuse what runs code: torch.export.load falls back to it otherwise."""
    refuse_unsafe_loading("network")
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
