"""Batch norms with their running statistics, folded into the layers that feed them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import cast

import torch
from torch import Tensor, nn

from da.errors import UserError
from da.norms.flow import Flow
from da.norms.joined_layers import split_joined_layers
from da.norms.surgery import (
    Affine,
    affine_parameters,
    fold_affine,
    refuse_tied_weights,
    replace_modules,
    scalable_layers,
    sole_feeders,
    title_of_model,
)
from da.norms.weight_align.layers import Aligned


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
    plain = scalable_layers(model)
    gone = [
        old
        for old, new in names.values()
        if isinstance(old, nn.modules.batchnorm._BatchNorm) and type(new) is not type(old)
    ]
    aligned = {old for old, new in names.values() if isinstance(new, Aligned)}
    swaps = fold_into_layers(model, flow, gone, plain | aligned)
    for old, new in names.values():
        if old in plain and type(new) is type(old):
            new.load_state_dict(old.state_dict())
    for old, new in names.values():
        if isinstance(new, Affine) and old in swaps:
            new.load_state_dict(swaps[old].state_dict())
    return replace_modules(model, swaps)


@torch.no_grad()
def fold_into_layers(
    model: nn.Module,
    flow: Flow,
    norms: Iterable[nn.Module],
    layers: Collection[nn.Module],
) -> dict[nn.Module, nn.Module]:
    """Multiplies batch norms, as they act in evaluation mode, into the layers that feed them.

    Args:
        model: that they are of; weights and biases of its layers are changed in place.
        flow: of the model.
        norms: torch.nn's batch norms.
        layers: those that may take one over.

    Returns:
        What stands where each batch norm was, for :func:`da.norms.surgery.replace_modules`: nothing
        where layers took it over, elsewhere the affine that it computes.

    Raises:
        UserError: where one has no running statistics, or a layer shares its weight with another;
            nothing is changed then.
    """
    norms = list(norms)
    refuse_without_statistics(model, norms)
    affines = {norm: _scale_and_shift(norm) for norm in norms}
    fed = sole_feeders(flow, norms, layers)
    refuse_tied_weights(model, fed, "folding a batch norm changes")
    for layer, norm in fed.items():
        fold_affine(layer, *affines[norm])
    taken_over = set(fed.values())
    return {
        norm: nn.Identity() if norm in taken_over else _affine_layer(norm, *affine)
        for norm, affine in affines.items()
    }


def _affine_layer(norm: nn.Module, scale: Tensor, shift: Tensor) -> Affine:
    """What a batch norm computes, trained where its own scale and shift are."""
    trained = [parameter.requires_grad for parameter in affine_parameters(norm)]
    pairs = zip((scale, shift), trained, strict=True)
    return Affine(*(nn.Parameter(value, requires_grad=grad) for value, grad in pairs))


def refuse_without_statistics(model: nn.Module, norms: Collection[nn.Module]) -> None:
    """Refuses batch norms of a model that keep no running statistics."""
    for name, norm in model.named_modules():
        if norm in norms and (norm.running_mean is None or norm.running_var is None):
            raise UserError(
                f"'{name}' of {title_of_model(model)} has no running statistics, so what it"
                " computes depends on the batch and can't be kept; train it with"
                " track_running_stats=True"
            )


def _scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift, ``(C,)`` each, that a batch norm computes with its running statistics."""
    weight, bias = affine_parameters(norm)
    mean, var = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale = weight * torch.rsqrt(var + cast(float, norm.eps))
    return scale, bias - mean * scale
