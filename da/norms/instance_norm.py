"""Instance norm (Ulyanov, Vedaldi, Lempitsky 2016): the statistics of each map of one sample."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from da.norms.base import ActivationNormaliser
from da.norms.surgery import Affine


class InstanceNormLayer(Affine):
    """Instance norm of maps with a scale and shift per channel; of a vector, those alone.

    A single position has no deviation: torch's InstanceNorm1d reads a batch of vectors as one
    sequence without a word, and InstanceNorm2d raises on a 1 x 1 map. Here vectors and maps of
    one position pass unnormalised.

    Args:
        channels: C of ``(B, C, ...)``.
    """

    def __init__(self, channels: int):
        super().__init__(nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels)))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, ...)`` to the same shape."""
        if x.shape[2:].numel() == 1:
            return super().forward(x)
        return F.instance_norm(x, weight=self.weight, bias=self.bias)


class InstanceNorm(ActivationNormaliser):
    """Instance norm in the place of batch norm.

    Statistics: in training and in evaluation alike, mean and variance of each channel of the one
    image; no other image and no domain enters.

    It is undefined for vectors (bottleneck, critic), where a scale and shift per channel remain;
    see :class:`InstanceNormLayer`. Options: see :class:`ActivationNormaliser`.
    """

    name: ClassVar[str] = "in"

    def build(self, channels: int, dimensions: int) -> nn.Module:
        """See :meth:`ActivationNormaliser.build`."""
        return InstanceNormLayer(channels)
