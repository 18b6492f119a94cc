"""AutoDIAL (Carlucci et al. 2017): layers that learn how far they keep the domains apart."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from da.norms.domain_statistics import (
    CrossDomainNormaliser,
    DomainStatistics,
    Moments,
    to_float,
)

LEAST, MOST = 0.5, 1.0


class AutoDialLayer(DomainStatistics):
    """Normalises each domain by a mixture of both (Carlucci et al. 2017, section 3.1).

    A sample of domain d is normalised by mean and variance of α · q_d + (1 - α) · q_o, where q_d is
    the distribution of its own domain and q_o that of the other:

    μ = α · μ_d + (1 - α) · μ_o,  σ² = α · σ_d² + (1 - α) · σ_o² + α · (1 - α) · (μ_d - μ_o)².

    At α = 1 the domains are normalised apart, at α = ½ together, as a batch norm of equally many
    samples of both does.

    Attributes:
        alpha: ``(1,)`` float parameter, one for the layer. A step that leads out of [0.5, 1] is
            taken back to the bound before the next pass.
    """

    title: ClassVar[str] = "a domain alignment layer (autodial)"

    def __init__(self, norm: nn.Module):
        super().__init__(norm)
        self.alpha = nn.Parameter(self.weight.new_ones(1), self.weight.requires_grad)

    def forward(self, x: Tensor) -> Tensor:
        """See :meth:`DomainStatistics.forward`."""
        if self.training:
            # A clip of what acts would have no gradient beyond the bounds, and never come back.
            # Nothing is computed of it yet in this pass, and in a second one before the backward it
            # is in range.
            self.alpha.data.clamp_(LEAST, MOST)
        return super().forward(x)

    @torch.no_grad()
    def of_domain(self, domain: str) -> nn.Module:
        """See :meth:`DomainStatistics.of_domain`; right after a step, too."""
        self.alpha.clamp_(LEAST, MOST)
        return super().of_domain(domain)

    def scale_and_shift(self, domain: str, own: Moments, other: Moments) -> tuple[Tensor, Tensor]:
        """See :meth:`DomainStatistics.scale_and_shift`."""
        alpha = to_float(self.alpha if self.training else self.alpha.clamp(LEAST, MOST))
        gap = own.mean - other.mean
        mean = own.mean - (1 - alpha) * gap
        variance = torch.lerp(other.variance, own.variance, alpha) + alpha * (1 - alpha) * gap**2
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return scale, self.bias - mean * scale


class AutoDial(CrossDomainNormaliser):
    """Batch norm by a mixture of both domains' statistics, mixed as each layer learns to.

    Statistics: in training, a sample is normalised by mean and variance of the mixture in which its
    own domain's part of the batch has the share α and the other's 1 - α; in evaluation, by the same
    mixture of the running averages of both. α is learnt, begins at 1 and stays in [0.5, 1].

    Scale and shift are one for both domains. The paper trains with the entropy of target
    predictions beside the task loss: that is method ``EntropyMinimisation``. That the running
    averages are those of each domain, mixed when they are used, and that α begins at 1 could not be
    checked against code of the authors. Options: see :class:`ActivationNormaliser`.
    """

    name: ClassVar[str] = "autodial"
    composes: ClassVar[bool] = False

    def layer(self, norm: nn.Module) -> DomainStatistics:
        """See :meth:`CrossDomainNormaliser.layer`."""
        return AutoDialLayer(norm)
