"""timm's layers with scaled weight standardisation: WeightAlign with a g of their own.

They act with the weight of Brock et al. 2021 (2101.08692, section 4.1)

    W_j = gain_j · γ / sqrt(n) · (w_j − mean(w_j)) / sqrt(var(w_j) + eps)

which is WeightAlign's at g = gain · γ / sqrt(factor) and eps · n / factor in the place of its own
epsilon, ``factor`` being WA's factor of the variance (2 with gain "he"). So nothing is fitted or
lost: an aligned layer takes over weight, scale and bias and computes the same function.

timm is optional and is not imported here: its layers are told by their class.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from da.norms.joined_layers import SamePadding
from da.norms.weight_align.layers import AlignedConv2d, rebuild_layer

_MODULE = "timm.layers.std_conv"
_NAMES = ("ScaledStdConv2d", "ScaledStdConv2dSame")


def is_standardised(layer: nn.Module) -> bool:
    """Whether it is timm's convolution with scaled weight standardisation."""
    return type(layer).__module__ == _MODULE and type(layer).__name__ in _NAMES


def align_standardised(layer: Any, gain: float, scale: bool) -> AlignedConv2d:
    """The aligned convolution that computes what a standardised one does, padding aside.

    Args:
        layer: see :func:`is_standardised`. Its weight and bias are taken, not copied.
        gain: WA's factor of the variance.
        scale: whether there is a g; without, an activation normaliser follows and would cancel it.
    """
    weight: nn.Parameter = layer.weight
    n = weight[0].numel()
    new = rebuild_layer(
        layer, AlignedConv2d, bias=True, gain=gain, scale=scale, eps=layer.eps * n / gain
    )
    assert isinstance(new, AlignedConv2d)  # for the type checker
    new.weight = weight
    new.bias = layer.bias
    if new.bias is None:
        new.bias = nn.Parameter(weight.new_zeros(len(weight)), weight.requires_grad)
    if scale:
        with torch.no_grad():
            g = layer.gain.flatten() * (layer.scale * (n / gain) ** 0.5)
        new.g = nn.Parameter(g, requires_grad=layer.gain.requires_grad)
    return new


def wrap_in_padding(layer: Any, new: nn.Module) -> nn.Module:
    """What stands in the place of ``layer``: ``new``, behind the padding where that depends on the
    size of the maps."""
    return nn.Sequential(SamePadding(layer), new) if getattr(layer, "same_pad", False) else new
