"""Batch norms with their running statistics, folded into the layers that feed them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from da.errors import UserError
from da.norms.flow import Flow
from da.norms.joined_layers import split_joined_layers
from da.norms.surgery import (
    Affine,
    affine_parameters,
    fold_affine,
    replace_modules,
    sole_feeders,
    title_of_model,
)
from da.norms.weight_align.layers import Aligned, plain_layers


def fold_batch_norms(model: nn.Module, converted: nn.Module, example: Tensor | None) -> nn.Module:
    """The original network with every batch norm that ``converted`` lacks folded away.

    Those that a layer takes over go into its weight and bias, which ``converted`` is given where
    the layer is plain there too; the others become the affine that they compute, and so they do in
    ``converted``.

    Args:
        model: changed in place.
        converted: its affines are.
        example: see :meth:`da.norms.flow.Flow.of`.
    """
    model = split_joined_layers(model).eval()
    flow = Flow.of(model, example)
    names = {name: (m, converted.get_submodule(name)) for name, m in model.named_modules()}
    layers = plain_layers(model) | {o for o, new in names.values() if isinstance(new, Aligned)}
    gone: dict[nn.Module, tuple[Tensor, Tensor]] = {
        old: _scale_and_shift(old, name, model)
        for name, (old, new) in names.items()
        if isinstance(old, nn.modules.batchnorm._BatchNorm) and type(new) is not type(old)
    }
    fed = sole_feeders(flow, gone, layers)
    for layer, norm in fed.items():
        fold_affine(layer, *gone[norm])
    for old, new in names.values():
        if old in fed and type(new) is type(old):
            new.load_state_dict(old.state_dict())
    swaps: dict[nn.Module, nn.Module] = {}
    for old, new in names.values():
        if old in gone and isinstance(new, Affine):
            scale, shift = gone[old]
            new.weight.copy_(scale)
            new.bias.copy_(shift)
            swaps[old] = Affine(nn.Parameter(scale), nn.Parameter(shift))
        elif old in gone:
            swaps[old] = nn.Identity()
    return replace_modules(model, swaps)


def _scale_and_shift(
    norm: nn.modules.batchnorm._BatchNorm, name: str, model: nn.Module
) -> tuple[Tensor, Tensor]:
    """Scale and shift, ``(C,)`` each, that a batch norm computes with its running statistics."""
    if norm.running_mean is None or norm.running_var is None:
        raise UserError(
            f"'{name}' of {title_of_model(model)} has no running statistics, so what it computes"
            " depends on the batch and can't be converted; train it with track_running_stats=True"
        )
    weight, bias = affine_parameters(norm)
    scale = weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale, bias - norm.running_mean * scale
