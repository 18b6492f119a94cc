"""Layer norm (Ba, Kiros, Hinton 2016): the statistics of all channels of one sample."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from da.norms.base import ActivationNormaliser


class LayerNorm(ActivationNormaliser):
    """Layer norm in the place of batch norm.

    Statistics: in training and in evaluation alike, mean and variance of all channels of the one
    image; no other image and no domain enters.

    For maps it is group norm with one group, over channels and positions, with a scale and shift
    per channel (Wu, He 2018, section 3.1), so that the affine of a batch norm carries over; for
    vectors it is the usual layer norm. Options: see :class:`ActivationNormaliser`.
    """

    name: ClassVar[str] = "ln"

    def build(self, channels: int, dimensions: int) -> nn.Module:
        """See :meth:`ActivationNormaliser.build`."""
        return nn.GroupNorm(1, channels)
