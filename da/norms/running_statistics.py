"""Batch norm's running statistics, re-estimated for the length of a block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from da.errors import UserError
from da.ops.acceleration import uncompiled


def batch_norms(model: nn.Module) -> dict[str, nn.modules.batchnorm._BatchNorm]:
    """The layers of a model that use statistics of the batch, by name."""
    kind = nn.modules.batchnorm._BatchNorm
    return {name: m for name, m in model.named_modules() if isinstance(m, kind)}


@contextmanager
def reestimated(model: nn.Module, batches: Iterable[Tensor]) -> Iterator[nn.Module]:
    """Runs a block with batch norm's running statistics re-estimated on other images.

    They are the cumulative averages of the batches' statistics, each batch weighted by its size
    (AdaBN, Li et al. 2017, with the images of the target). Nothing is trained, dropout is off, and
    the block sees the model in evaluation mode. Statistics and modes are restored afterwards,
    exactly.

    Args:
        model: called with each batch.
        batches: ``(B, C, H, W)`` images on the model's device, B at least 2.
    """
    norms = [m for m in batch_norms(model).values() if m.track_running_stats]
    modes = {module: module.training for module in model.modules()}
    saved = [({k: b.clone() for k, b in m.named_buffers(recurse=False)}, m.momentum) for m in norms]
    try:
        for module in modes:
            module.training = module in norms
        for norm in norms:
            norm.reset_running_stats()
        _accumulate(model, norms, batches)
        for module in modes:
            module.training = False
        yield model
    finally:
        for norm, (buffers, momentum) in zip(norms, saved, strict=True):
            norm.momentum = momentum
            for name, buffer in buffers.items():
                norm.get_buffer(name).copy_(buffer)
        for module, mode in modes.items():
            module.training = mode


def _accumulate(
    model: nn.Module, norms: list[nn.modules.batchnorm._BatchNorm], batches: Iterable[Tensor]
) -> None:
    seen = 0
    # The momentum is a constant of a compiled graph, and here it changes with every batch.
    with torch.no_grad(), uncompiled(model):
        for batch in batches if norms else ():
            if len(batch) < 2:
                raise UserError(
                    "batch norm's statistics are re-estimated on batches of 2 images or more, and"
                    f" one of {len(batch)} came; choose another evaluation batch size"
                )
            seen += len(batch)
            for norm in norms:
                norm.momentum = len(batch) / seen
            model(batch)
    if norms and not seen:
        raise UserError("no images came to re-estimate batch norm's statistics on; give some")
