"""Weight normalisation (Salimans & Kingma 2016, 1602.07868): a length and a direction each."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from da.norms.base import Normaliser, checked_example
from da.norms.identity import NoNormaliser
from da.norms.joined_layers import on_split_layers
from da.norms.surgery import (
    refuse_other_normalisers,
    refuse_tied_weights,
    replace_modules,
    scalable_layers,
)
from da.norms.weight_align.layers import ComputedWeight, rebuild_layer


class WeightNormed(ComputedWeight):
    """Acts with ŵ_j = g_j · w_j / ‖w_j‖ (eq. 2) by PyTorch's fused kernel, forward and backward.

    torch.nn.utils' weight norm computes the same as a parametrisation, which can't be pickled.
    """

    g: nn.Parameter

    def aligned_weight(self) -> Tensor:
        """ŵ, of the shape and dtype of ``weight``."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        g = self.g.to(dtype).view(-1, *(1 for _ in self.weight.shape[1:]))
        return torch._weight_norm(self.weight.to(dtype), g, 0).to(self.weight.dtype)


class WeightNormedConv1d(WeightNormed, nn.Conv1d):
    """A 1d convolution with weight-normalised filters."""

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, L)`` to ``(B, O, L')``."""
        return self._conv_forward(input, self.acting_weight(), self.bias)


class WeightNormedConv2d(WeightNormed, nn.Conv2d):
    """A 2d convolution with weight-normalised filters."""

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, O, H', W')``."""
        return self._conv_forward(input, self.acting_weight(), self.bias)


class WeightNormedConv3d(WeightNormed, nn.Conv3d):
    """A 3d convolution with weight-normalised filters."""

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, D, H, W)`` to ``(B, O, D', H', W')``."""
        return self._conv_forward(input, self.acting_weight(), self.bias)


class WeightNormedLinear(WeightNormed, nn.Linear):
    """A linear layer with weight-normalised rows."""

    def forward(self, input: Tensor) -> Tensor:
        """``(..., in_features)`` to ``(..., out_features)``."""
        return F.linear(input, self.acting_weight(), self.bias)


KINDS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: WeightNormedConv1d,
    nn.Conv2d: WeightNormedConv2d,
    nn.Conv3d: WeightNormedConv3d,
    nn.Linear: WeightNormedLinear,
}


class WeightNorm(Normaliser):
    """Removes batch norms and gives each layer a length for each filter beside its direction.

    Batch norms go as under ``none``: scale and shift become the layer's. Then g_j is ‖w_j‖, so that
    a network starts from what it computes under ``none``, with residual branches that start at 0. A
    filter that a scale of 0 has emptied keeps its direction, with a length of 0; one that was empty
    before gets one.
    The paper sets g and the bias by the activations of a first batch instead (section 3), which
    surgery on a network has none of.

    Statistics: in training and in evaluation alike, the norms of the filters; no image and no
    domain enters.

    Args:
        example: an input of the model, for networks that can't be traced.
    """

    name: ClassVar[str] = "wn"

    def __init__(self, *, example: Tensor | None = None):
        self.example = checked_example(example)

    @on_split_layers
    def apply(self, model: nn.Module) -> nn.Module:
        """See :meth:`Normaliser.apply`."""
        refuse_other_normalisers(model, self.name)
        layers = [m for m in scalable_layers(model) if type(m) in KINDS]
        refuse_tied_weights(model, layers, "weight normalisation changes")
        before = {layer: cast(Tensor, layer.weight).detach().clone() for layer in layers}
        model = NoNormaliser(example=self.example).apply(model)
        return replace_modules(model, {x: _normalise_weight(x, before[x]) for x in layers})


def _normalise_weight(layer: Any, before: Tensor) -> nn.Module:
    """The layer with weight normalisation that computes what a plain one does.

    Args:
        layer: with the scale of a batch norm in its weight.
        before: its weight without.
    """
    new: Any = rebuild_layer(layer, KINDS[type(layer)], bias=layer.bias is not None)
    weight = layer.weight
    new.weight, new.bias = weight, layer.bias
    norms = weight.detach().flatten(1).norm(dim=1)
    new.g = nn.Parameter(norms, requires_grad=weight.requires_grad)
    with torch.no_grad():  # 0 / ‖0‖ is no number
        for direction in (before, torch.ones_like(before)):
            empty = weight.flatten(1).norm(dim=1) == 0
            weight[empty] = direction[empty]
    return cast(nn.Module, new)
