"""Group norm (Wu, He 2018): the statistics of groups of channels of one sample."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from da.errors import UserError
from da.norms.base import ActivationNormaliser

ON_MAPS, ON_VECTORS = 2, 8
"""The fewest channels of a group. One of a map would be instance norm; two of a vector become the
sign of their difference, and are ±1."""


def groups_for(channels: int, groups: int, least: int = ON_MAPS) -> int:
    """The largest divisor of ``channels`` that is at most ``groups`` and leaves ``least`` channels
    or more in a group; one group where none does.

    >>> [groups_for(channels, 32) for channels in (256, 48, 32, 7, 1)]
    [32, 24, 16, 1, 1]
    """
    fitting = (g for g in range(min(groups, channels // least), 0, -1) if channels % g == 0)
    return next(fitting, 1)


class GroupNorm(ActivationNormaliser):
    """Group norm in the place of batch norm.

    Statistics: in training and in evaluation alike, mean and variance of each group of channels of
    the one image; no other image and no domain enters.

    Args:
        groups: of channels; where they don't divide, see :func:`groups_for`.
        insert: put one after each convolution that has no normaliser (LeNet, plain VGG).
        example: see :class:`ActivationNormaliser`.
    """

    name: ClassVar[str] = "gn"

    def __init__(self, *, groups: int = 32, insert: bool = False, example: Tensor | None = None):
        super().__init__(insert=insert, example=example)
        if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
            raise UserError(f"groups is a whole number from 1, not {groups!r}")
        self.groups = groups

    def build(self, channels: int, dimensions: int) -> nn.Module:
        """See :meth:`ActivationNormaliser.build`."""
        least = ON_VECTORS if dimensions == 1 else ON_MAPS
        return nn.GroupNorm(groups_for(channels, self.groups, least), channels)
