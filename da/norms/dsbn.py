"""Domain-specific batch norm (Chang et al. 2019): one for each domain, the weights shared."""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
from torch import Tensor, nn

from da.errors import UserError
from da.norms.base import ActivationNormaliser, DomainLayer, Normaliser
from da.norms.batch_norm import BatchNorm

DOMAINS = ("source", "target")


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

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.source = norm
        self.target = copy.deepcopy(norm)
        self.training = norm.training

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, ...)`` to the same shape, B being that of the domains that it was told.

        Raises:
            UserError: where it was told no domains, others than its own, or another number of
                samples.
        """
        domains = self.domains
        if not domains:
            raise UserError(
                "a batch norm of each domain (dsbn) was not told which samples are of which; call "
                "the da.networks.network.Network that it is part of with domains, or "
                "da.norms.base.tell_domains before each batch"
            )
        for domain, _ in domains:
            if domain not in DOMAINS:
                raise UserError(
                    f"a batch norm of each domain (dsbn) knows {' and '.join(DOMAINS)}, not "
                    f"'{domain}'"
                )
        sizes = [size for _, size in domains]
        if sum(sizes) != x.shape[0]:
            told = " + ".join(f"{size} of {domain}" for domain, size in domains)
            raise UserError(
                f"a batch norm of each domain (dsbn) was told of {told} samples, and {x.shape[0]} "
                "came; tell it the domains of every batch"
            )
        if len(domains) == 1:
            return self._of(domains[0].domain, x)
        parts = x.split(sizes)
        return torch.cat(
            [self._of(segment.domain, part) for segment, part in zip(domains, parts, strict=True)]
        )

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
