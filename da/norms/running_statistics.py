"""Batch norm's running statistics, re-estimated for the length of a block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from da.errors import UserError
from da.norms.base import DomainLayer
from da.norms.batch_renorm import BatchRenormLayer
from da.norms.domain_statistics import DomainStatistics
from da.ops.acceleration import uncompiled


def batch_norms(
    model: nn.Module, within_domain_layers: bool = False
) -> dict[str, nn.modules.batchnorm._BatchNorm]:
    """The layers of a model that use statistics of the batch, by name.

    Args:
        model: any network.
        within_domain_layers: also those of a layer that keeps one per domain. Their statistics are
            of their domain already, so that re-estimating them on another is not defined.
    """
    kind = nn.modules.batchnorm._BatchNorm
    layers = {name: m for name, m in model.named_modules() if isinstance(m, kind)}
    if within_domain_layers:
        return layers
    holders = [m for m in model.modules() if isinstance(m, DomainLayer)]
    kept_per_domain = {part for holder in holders for part in holder.modules()}
    return {name: m for name, m in layers.items() if m not in kept_per_domain}


def layers_of_batch_statistics(model: nn.Module) -> dict[str, nn.Module]:
    """All layers of a model that normalise by statistics of a batch in training, by name."""
    layers: dict[str, nn.Module] = dict(batch_norms(model, within_domain_layers=True))
    own = {n: m for n, m in model.named_modules() if isinstance(m, DomainStatistics)}
    return layers | own


@contextmanager
def reestimated(
    model: nn.Module,
    batches: Iterable[Tensor | tuple[Tensor, Any]],
    single_image: bool = False,
) -> Iterator[nn.Module]:
    """Runs a block with batch norm's running statistics re-estimated on other images.

    They are the cumulative averages of the batches' statistics, each batch weighted by its size
    (AdaBN, Li et al. 2017, with the images of the target). Nothing is trained, dropout is off, and
    the block sees the model in evaluation mode. Statistics and modes are restored afterwards,
    exactly.

    Args:
        model: called with each batch.
        batches: ``(B, C, H, W)`` images on the model's device, B at least 2; or pairs of them and
            what the model is told of their domains, ``model(images, domains)``.
        single_image: also take a batch of one image. Layers on maps then have the statistics of
            that image; one that gets a single value per channel, as after global pooling, has
            none and keeps those that it had.
    """
    norms = [m for m in batch_norms(model).values() if m.track_running_stats]
    corrected = [m for m in norms if isinstance(m, BatchRenormLayer) and m.corrects]
    modes = {module: module.training for module in model.modules()}
    saved = [({k: b.clone() for k, b in m.named_buffers(recurse=False)}, m.momentum) for m in norms]
    try:
        for module in modes:
            module.training = module in norms
        for layer in corrected:
            layer.corrects = False
        if single_image:  # nothing to reset: the first batch replaces what a layer had, or nothing
            with keeping_without_statistics(norms):
                _accumulate_statistics(model, norms, batches, smallest=1)
        else:
            for norm in norms:
                norm.reset_running_stats()
            _accumulate_statistics(model, norms, batches)
        for module in modes:
            module.training = False
        yield model
    finally:
        for layer in corrected:
            layer.corrects = True
        for norm, (buffers, momentum) in zip(norms, saved, strict=True):
            norm.momentum = momentum
            for name, buffer in buffers.items():
                norm.get_buffer(name).copy_(buffer)
        for module, mode in modes.items():
            module.training = mode


def _accumulate_statistics(
    model: nn.Module,
    norms: list[nn.modules.batchnorm._BatchNorm],
    batches: Iterable[Tensor | tuple[Tensor, Any]],
    smallest: int = 2,
) -> None:
    seen = 0
    # The momentum is a constant of a compiled graph, and here it changes with every batch.
    with torch.no_grad(), uncompiled(model):
        for batch in batches if norms else ():
            arguments = batch if isinstance(batch, tuple) else (batch,)
            size = len(arguments[0])
            if size < smallest:
                raise UserError(
                    "batch norm's statistics are re-estimated on batches of 2 images or more, and"
                    f" one of {size} came; choose another evaluation batch size"
                )
            seen += size
            for norm in norms:
                norm.momentum = size / seen
            model(*arguments)
    if norms and not seen:
        raise UserError("no images came to re-estimate batch norm's statistics on; give some")


@contextmanager
def keeping_without_statistics(
    norms: Iterable[nn.modules.batchnorm._BatchNorm],
) -> Iterator[None]:
    """Within it, batch norms that get one value per channel use their running statistics.

    A single value has no variance: in training mode PyTorch refuses it. All other inputs are
    normalised with their own statistics, a single image's map, too.

    Args:
        norms: in training mode wherever they can be.
    """

    def choose_mode(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        norm.training = inputs[0].numel() > inputs[0].shape[1]

    hooks = [norm.register_forward_pre_hook(choose_mode) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
