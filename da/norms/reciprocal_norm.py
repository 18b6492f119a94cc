"""Reciprocal normalisation (Huang et al. 2021): a domain's statistics, completed by the other's."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from da.norms.base import DOMAINS
from da.norms.domain_statistics import (
    CrossDomainNormaliser,
    DomainStatistics,
    Moments,
    to_float,
)


def compensate(own: Tensor, other: Tensor) -> Tensor:
    """For each channel of a domain, the mean of the other domain's channels, nearest ones first.

    Channel i gets Σ_j p_ij · other_j with p_i = softmax_j(-(own_i - other_j)²): the channels of two
    domains need not correspond.

    Args:
        own: ``(C,)`` float, a statistic of one domain.
        other: ``(C,)`` float, that of the other.
    """
    nearness = -(own[:, None] - other[None, :]).square()
    return nearness.softmax(dim=1) @ other


class ReciprocalNormLayer(DomainStatistics):
    """Statistics that are aggregated with their compensation (Huang et al. 2021, 2112.10474).

    For domain d, μ = g · μ_d + (1 - g) · c(μ_d, μ_o) and σ² likewise with a gate of its own, where
    c is :func:`compensate` (the paper's reciprocal compensation) and g the gate of a channel
    (reciprocal aggregation). Gates are free and start at 1: at the domain's own statistics.

    Attributes:
        source_mean_gate, source_var_gate, target_mean_gate, target_var_gate: ``(C,)`` parameters.
    """

    title: ClassVar[str] = "reciprocal normalisation (rn)"

    def __init__(self, norm: nn.Module):
        super().__init__(norm)
        for domain in DOMAINS:
            for statistic in ("mean", "var"):
                gate = nn.Parameter(torch.ones_like(self.weight), self.weight.requires_grad)
                self.register_parameter(f"{domain}_{statistic}_gate", gate)

    def scale_and_shift(self, domain: str, own: Moments, other: Moments) -> tuple[Tensor, Tensor]:
        """See :meth:`DomainStatistics.scale_and_shift`."""
        gate = to_float(self.get_parameter(f"{domain}_mean_gate"))
        mean = torch.lerp(compensate(own.mean, other.mean), own.mean, gate)
        gate = to_float(self.get_parameter(f"{domain}_var_gate"))
        variance = torch.lerp(compensate(own.variance, other.variance), own.variance, gate)
        # A gate beyond [0, 1] may lead below 0, which no variance is.
        scale = self.weight * torch.rsqrt(variance.clamp(min=0) + self.eps)
        return scale, self.bias - mean * scale

    @torch.no_grad()
    def start_target_from_source(self) -> None:
        """Copies the source's running statistics and gates to the target."""
        super().start_target_from_source()
        for statistic in ("mean", "var"):
            gate = self.get_parameter(f"source_{statistic}_gate")
            self.get_parameter(f"target_{statistic}_gate").copy_(gate)


class ReciprocalNorm(CrossDomainNormaliser):
    """Batch norm by statistics of a domain that are completed by like channels of the other.

    Statistics: in training, a sample is normalised by mean and variance of its own domain's part of
    the batch, aggregated by learnt gates with the average of the other domain's channels that are
    most like it; in evaluation, by the same of the running averages of both domains.

    It follows the authors' code with its default measure of likeness, the negative squared
    difference, but for three things: the running averages kept are those of the domains and
    aggregated where they are used (the code averages aggregated ones, by which either domain could
    not stand in for a part of a batch that is missing), variances are biased as batch norm's, and
    channels beyond 512 are compared one by one and not in groups. Scale and shift are one for both
    domains. Options: see :class:`ActivationNormaliser`.
    """

    name: ClassVar[str] = "rn"
    composes: ClassVar[bool] = False

    def layer(self, norm: nn.Module) -> DomainStatistics:
        """See :meth:`CrossDomainNormaliser.layer`."""
        return ReciprocalNormLayer(norm)
