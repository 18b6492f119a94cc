"""Mean and deviation per channel, streamed over batches, and how far two domains are apart."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Spread(NamedTuple):
    """Mean and biased standard deviation of each channel, ``(C,)`` float64 each."""

    mean: Tensor
    std: Tensor


class ChannelMoments:
    """Mean and deviation of each channel over samples and positions, batch by batch.

    Batches are merged in float64 by the update of Chan, Golub and LeVeque (1983), which
    never subtracts large numbers of nearly the same size.

    Attributes:
        count: values of each channel so far.
        mean: ``(C,)`` float64 on the CPU.
        squares: ``(C,)`` float64 on the CPU, the sum of squared differences from the mean.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros((), dtype=torch.float64)
        self.squares = torch.zeros((), dtype=torch.float64)

    def update(self, x: Tensor, channels: int = 1) -> None:
        """Adds the values of a batch.

        Args:
            x: ``(B, …)`` float with at least one value; its own moments are taken in float32 or
                better.
            channels: the dimension of the channels.
        """
        other = [d for d in range(x.dim()) if d != channels % x.dim()]
        exact = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        parts = torch.var_mean(exact, dim=other, correction=0)
        variance, mean = (part.cpu().double() for part in parts)
        added = x.numel() // len(mean)
        total = self.count + added
        step = mean - self.mean
        self.mean = self.mean + step * (added / total)
        self.squares = self.squares + variance * added + step**2 * (self.count * added / total)
        self.count = total

    @property
    def spread(self) -> Spread:
        """What has been found so far."""
        return Spread(self.mean, (self.squares / self.count).sqrt())


def domain_gap(source: Spread, target: Spread) -> float:
    """The mean over channels of |μ_s − μ_t| / σ, see :func:`channel_distance`.

    >>> one, two = torch.ones(3), 2 * torch.ones(3)
    >>> domain_gap(Spread(one, one), Spread(two, one))
    1.0
    """
    return channel_distance(source.mean, target.mean, source, target)


def channel_distance(one: Tensor, other: Tensor, source: Spread, target: Spread) -> float:
    """The mean over channels of |one − other| / σ with σ² = (σ_s² + σ_t²) / 2.

    Channels that vary in neither domain are left out; nan where none is left.

    Args:
        one, other: ``(C,)``, means.
        source, target: of the same place, for σ.
    """
    steps = _standardised(other - one, source, target).abs()
    return steps.mean().item() if len(steps) else math.nan


def deviation_ratio(std: Tensor, reference: Tensor) -> float:
    """The geometric mean over channels of one deviation over another, ``(C,)`` each.

    Channels in which either is 0 are left out; nan where none is left.

    >>> round(deviation_ratio(torch.tensor([2.0, 8.0]), torch.tensor([1.0, 1.0])), 4)
    4.0
    """
    vary = (std > 0) & (reference > 0)
    ratios = (std[vary] / reference[vary]).log()
    return ratios.mean().exp().item() if len(ratios) else math.nan


def mixing_share(mean: Tensor, source: Spread, target: Spread) -> float:
    """The t with which (1 − t) μ_s + t μ_t comes nearest to a mean, over channels in units of σ.

    0 is the source's own mean, 1 the target's, ½ the mean of both; below 0 and above 1 it is
    neither's. nan where the domains have the same means.

    Args:
        mean: ``(C,)``, which a normaliser subtracts.
        source, target: of what it is subtracted from; σ as in :func:`domain_gap`.

    >>> zero, one = torch.zeros(3), torch.ones(3)
    >>> mixing_share(0.25 * one, Spread(zero, one), Spread(one, one))
    0.25
    """
    way = _standardised(target.mean - source.mean, source, target)
    moved = _standardised(mean - source.mean, source, target)
    length = way.square().sum().item()
    return (moved * way).sum().item() / length if length > 0 else math.nan


def _standardised(difference: Tensor, source: Spread, target: Spread) -> Tensor:
    """A difference of means in units of σ, without the channels where σ is 0."""
    sigma = ((source.std**2 + target.std**2) / 2).sqrt()
    return difference[sigma > 0] / sigma[sigma > 0]
