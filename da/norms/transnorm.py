"""Transferable normalisation (Wang et al. 2019): channels weigh by how near their domains are."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from da.norms.domain_statistics import CrossDomainNormaliser, DomainStatistics, Moments


class TransNormLayer(DomainStatistics):
    """Statistics of each domain, and a weight α of each channel (Wang et al. 2019).

    d = |μ_s / √(σ_s² + ε) - μ_t / √(σ_t² + ε)|, the distance between the domains in a channel;
    α = C · (1 + d)⁻¹ / Σ (1 + d)⁻¹, a weight with mean 1 over the C channels, without gradient;
    y = (1 + α) · (gamma · (x - μ_d) / √(σ_d² + ε) + beta) for a sample of domain d.

    The distance takes unbiased variances, as the authors' code does.
    """

    title: ClassVar[str] = "transferable normalisation (transnorm)"

    def scale_and_shift(self, domain: str, own: Moments, other: Moments) -> tuple[Tensor, Tensor]:
        """See :meth:`DomainStatistics.scale_and_shift`."""
        factor = 1 + self.channel_weights(own, other)
        scale = self.weight * torch.rsqrt(own.variance + self.eps)
        return factor * scale, factor * (self.bias - own.mean * scale)

    @torch.no_grad()
    def channel_weights(self, one: Moments, other: Moments) -> Tensor:
        """α of every channel, ``(C,)`` float; the order of the domains is of no account."""
        ratios = [m.mean * torch.rsqrt(m.unbiased + self.eps) for m in (one, other)]
        nearness = 1 / (1 + (ratios[0] - ratios[1]).abs())
        return len(nearness) * nearness / nearness.sum()


class TransNorm(CrossDomainNormaliser):
    """Batch norm with statistics of each domain and weights of channels that transfer.

    Statistics: in training, each domain's part of a batch is normalised by its own mean and
    variance, and the weights of channels compare the two; in evaluation, a sample is normalised by
    the running averages of its domain, and the weights compare the running averages of both. The
    authors' code evaluates every image by the target's; here the source has its own.

    A running average keeps 1 - 0.1 of itself and takes 0.1 of the batch, batch norm's momentum, as
    in the authors' code; a well-known copy of the layer has the two the other way round, so that
    its averages are nearly the last batch. Scale and shift are one for both domains. On average
    over channels a layer puts out twice what batch norm does (α has mean 1), at the start from
    pretrained weights as well. Options: see :class:`ActivationNormaliser`.
    """

    name: ClassVar[str] = "transnorm"
    composes: ClassVar[bool] = False

    def layer(self, norm: nn.Module) -> DomainStatistics:
        """See :meth:`CrossDomainNormaliser.layer`."""
        return TransNormLayer(norm)
