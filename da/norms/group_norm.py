"""Group norm (Wu, He 2018): the statistics of groups of channels of one sample."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from da.errors import UserError
from da.norms.base import ActivationNormaliser


def groups_for(channels: int, groups: int) -> int:
    """The largest divisor of ``channels`` that is at most ``groups`` and leaves two channels or
    more in a group: a single one would be instance norm, and on a vector nothing at all.

    >>> [groups_for(channels, 32) for channels in (256, 48, 32, 7, 1)]
    [32, 24, 16, 1, 1]
    """
    fitting = (g for g in range(min(groups, channels // 2), 0, -1) if channels % g == 0)
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
        return nn.GroupNorm(groups_for(channels, self.groups), channels)
