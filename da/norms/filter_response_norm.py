"""Filter response normalisation with its thresholded unit (Singh & Krishnan 2020, 1911.09737)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from da.norms.base import ActivationNormaliser
from da.norms.flow import Flow
from da.norms.joined_layers import on_split_layers
from da.norms.surgery import (
    BATCH_NORMS,
    Affine,
    removable_batch_norms,
    replace_modules,
)

EPS = 1e-6


class FilterResponseNormLayer(Affine):
    """y = gamma · x / √(ν² + ε) + beta, ν² being the mean of x² over a map (section 3).

    A single position would leave nothing but the sign of x, so vectors and maps of one position
    pass with the scale and shift alone, as under instance norm. The paper adds a learnt ε for maps
    of few positions (section 3.1), which is left out.

    Args:
        channels: C of ``(B, C, ...)``.
    """

    def __init__(self, channels: int):
        super().__init__(nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels)))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, ...)`` to the same shape."""
        if x.shape[2:].numel() == 1:
            return super().forward(x)
        axes = tuple(range(2, x.dim()))
        squares = x.to(torch.promote_types(x.dtype, torch.float32)).square().mean(axes, True)
        return super().forward(x * torch.rsqrt(squares + EPS).to(x.dtype))


class ThresholdedUnit(nn.Module):
    """max(y, τ) with a learnt threshold of each channel, which begins at 0 as a ReLU (section 3.2).

    Args:
        channels: C of ``(B, C, ...)``.
        like: a parameter of the normaliser, of whose dtype and device the threshold is, and trained
            where that is.
    """

    def __init__(self, channels: int, like: Tensor):
        super().__init__()
        self.threshold = nn.Parameter(like.new_zeros(channels), requires_grad=like.requires_grad)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, ...)`` to the same shape."""
        return torch.maximum(x, self.shaped(x))

    def shaped(self, x: Tensor) -> Tensor:
        """τ in the shape of a sample of ``x``, in its dtype."""
        return self.threshold.to(x.dtype).view(-1, *(1 for _ in range(x.dim() - 2)))


class RaisedThreshold(ThresholdedUnit):
    """What turns the ReLU before it into a thresholded unit: max(y, 0) + τ.

    With y = z - τ that is max(z, τ), and the shift before the ReLU has learnt to hold the - τ. It
    stands where a ReLU can't be replaced, since the network calls one module in several places.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, ...)`` to the same shape."""
        return x + self.shaped(x)


class FilterResponseNorm(ActivationNormaliser):
    """Filter response normalisation in the place of batch norm, a thresholded unit in that of ReLU.

    Statistics: in training and in evaluation alike, the mean square of each channel of the one
    image; no other image and no domain enters. On vectors (bottleneck, critic) a scale and shift
    per channel remain.

    A ReLU that follows directly becomes a unit with a learnt threshold. Where the network calls one
    ReLU in several places (torchvision's residual blocks), the threshold is added before the layer
    that reads it, which is then ``layer.1`` of a sequence; a ReLU whose output several layers read
    (after a sum) stays one.

    Args:
        insert: put one after each convolution that has no normaliser (LeNet, plain VGG).
        example: see :class:`ActivationNormaliser`.
    """

    name: ClassVar[str] = "frn"
    composes: ClassVar[bool] = False  # WA's factor is that of a ReLU, not of a unit that is learnt

    def build(self, channels: int, dimensions: int) -> nn.Module:
        """See :meth:`ActivationNormaliser.build`."""
        return FilterResponseNormLayer(channels)

    @on_split_layers
    def apply(self, model: nn.Module) -> nn.Module:
        """See :meth:`Normaliser.apply`."""
        norms = removable_batch_norms(model)
        flow = Flow.of(model, self.example)
        inserted = self.insertions(model, flow)
        if not norms and not inserted:
            raise self.nothing_to_replace(model)
        units = _thresholded_units(flow, [*norms, *inserted])
        swaps = self.replacements(norms) | inserted
        for module, unit in units.items():
            if module in swaps:  # it reads a ReLU, and is itself replaced
                unit = nn.Sequential(cast(nn.Sequential, unit)[0], swaps[module])
            swaps[module] = unit
        return replace_modules(model, swaps)


def _thresholded_units(flow: Flow, normalised: Iterable[Any]) -> dict[nn.Module, nn.Module]:
    """What takes the place of each ReLU, or of the layer that reads it.

    Args:
        flow: of the network with batch norms.
        normalised: batch norms that are to be replaced, and layers that are to get a normaliser.
    """
    swaps: dict[nn.Module, nn.Module] = {}
    for module in normalised:
        calls = flow.calls.get(module, [])
        relu = calls[0].users[0] if len(calls) == 1 and len(calls[0].users) == 1 else None
        if relu is None or not (isinstance(relu.module, nn.ReLU) or relu.name == "relu"):
            continue
        size = module.num_features if type(module) in BATCH_NORMS else module.out_channels
        like = next(module.parameters(), torch.ones((), requires_grad=True))
        if relu.module is not None and len(flow.calls[relu.module]) == 1:
            swaps[relu.module] = ThresholdedUnit(size, like)
            continue
        reader = relu.users[0].module if len(relu.users) == 1 else None
        if reader is not None and len(flow.calls[reader]) == 1 and reader not in swaps:
            swaps[reader] = nn.Sequential(RaisedThreshold(size, like), reader)
    return swaps
