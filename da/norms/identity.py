"""No normaliser at all: the control that says what any normaliser is worth."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from da.norms.base import Normaliser
from da.norms.flow import Flow
from da.norms.joined_layers import on_split_layers
from da.norms.surgery import (
    affine_parameters,
    copy_parameter,
    refuse_other_normalisers,
    refuse_tied_weights,
    removable_batch_norms,
    replace_modules,
    replacements_of_removed,
    scalable_layers,
    sole_feeders,
)


class NoNormaliser(Normaliser):
    """Removes batch norms and puts nothing in their place.

    The network then computes γ · (w * x) + β where it had γ · norm(w * x) + β, so it is the same
    family of functions without the normalising. Where a single layer feeds the batch norm, γ is
    multiplied into its weight (a weight that is free in scale needs no scale beside it; at γ = 1,
    where networks start, the weight stays as it was) and β becomes its bias. Elsewhere (DenseNet,
    pre-activation) γ and β stay as a per-channel affine. The running statistics are dropped.

    Args:
        example: an input of the model, for networks that can't be traced.
    """

    name: ClassVar[str] = "none"

    def __init__(self, *, example: Tensor | None = None):
        self.example = example

    @on_split_layers
    def apply(self, model: nn.Module) -> nn.Module:
        """See :meth:`Normaliser.apply`."""
        refuse_other_normalisers(model, self.name)
        norms = removable_batch_norms(model)
        if not norms:
            return model
        flow = Flow.of(model, self.example)
        fed = sole_feeders(flow, norms, scalable_layers(model))
        refuse_tied_weights(model, fed, "folding a batch norm changes")
        for layer, norm in fed.items():
            scale, shift = affine_parameters(norm)
            weight = layer.get_parameter("weight")
            with torch.no_grad():
                weight.mul_(scale.to(weight).view(-1, *(1 for _ in weight.shape[1:])))
            layer.register_parameter("bias", copy_parameter(shift, weight))
        return replace_modules(model, replacements_of_removed(norms, set(fed.values())))
