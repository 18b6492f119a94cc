"""Domain-specific batch norm (Chang et al. 2019): one for each domain, the weights shared."""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
from torch import Tensor, nn

from da.norms.base import ActivationNormaliser, DomainLayer, Normaliser
from da.norms.batch_norm import BatchNorm


class DomainBatchNorm(DomainLayer):
    """A batch norm of the source and one of the target (Chang et al. 2019, eq. 5-7).

    DSBN_d(x) = gamma_d · (x - μ_d) / √(σ_d² + ε) + beta_d, where μ_d and σ_d² are those of the
    samples of domain d in the batch, and in evaluation their running averages. Each segment of a
    batch is normalised as if it came alone, as in the authors' code, which forwards the domains one
    after another: a joint forward gives what separate ones give.

    Args:
        norm: the batch norm that it replaces. Both domains start from its scale, shift and running
            statistics.

    Attributes:
        source, target: the batch norms.
    """

    title: ClassVar[str] = "a batch norm of each domain (dsbn)"

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.source = norm
        self.target = copy.deepcopy(norm)
        self.training = norm.training

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, ...)`` to the same shape, B being that of the domains that it was told.

        Raises:
            UserError: see :meth:`DomainLayer.split_domains`.
        """
        parts = [self._of(domain, part) for domain, part in self.split_domains(x)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def start_target_from_source(self) -> None:
        """Copies the source's scale, shift and running statistics to the target."""
        self.target.load_state_dict(self.source.state_dict())

    def of_domain(self, domain: str) -> nn.Module:
        """The batch norm of one domain."""
        return self.source if domain == "source" else self.target

    def _of(self, domain: str, x: Tensor) -> Tensor:
        normalised: Tensor = self.of_domain(domain)(x)
        return normalised


class DomainSpecificBatchNorm(ActivationNormaliser):
    """A batch norm of each domain in the place of each batch norm.

    Statistics: in training, each domain's part of a batch is normalised by its own mean and
    variance; in evaluation, a sample by the running averages of its domain, a single image of the
    target by the target's.

    Weights are shared, scale, shift and statistics are not: a network is told of every batch which
    samples are of which domain. With it, joint and separate forwards are the same training.

    A domain that training never shows keeps the scale, shift and statistics that it started with:
    source-only training leaves those of the target as they were.

    Args:
        insert: put one after each convolution that has no normaliser (LeNet, plain VGG).
        example: see :class:`ActivationNormaliser`.
    """

    name: ClassVar[str] = "dsbn"
    needs_target: ClassVar[bool] = True
    composes: ClassVar[bool] = False  # the domains differ in what it learns, not in the weights

    def for_part(self, part: str) -> Normaliser | None:
        """All but the critic, which keeps batch norm.

        It is to tell the domains apart by the features. A scale and shift of its own for each
        domain would tell it the domain whatever the features are, and these would get no gradient.
        """
        return None if part == "critic" else self

    def build(self, channels: int, dimensions: int) -> nn.Module:
        """See :meth:`ActivationNormaliser.build`; scale and shift are those of each domain."""
        return DomainBatchNorm(BatchNorm().build(channels, dimensions))

    def replacement_for(self, norm: nn.Module) -> nn.Module:
        """Two batch norms that start as ``norm`` is, in every setting and statistic."""
        return DomainBatchNorm(norm)
