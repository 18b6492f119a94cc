"""Adaptive batch norm (Li et al. 2016): statistics of each domain, everything else shared."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from da.norms.batch_norm import BatchNorm
from da.norms.dsbn import DomainBatchNorm, DomainSpecificBatchNorm


class AdaptiveBatchNormLayer(DomainBatchNorm):
    """A batch norm whose statistics are those of a sample's domain (Li et al. 2016, algorithm 1).

    y = gamma · (x - μ_d) / √(σ_d² + ε) + beta, where μ_d and σ_d² are of domain d and gamma and
    beta are one for both, the same parameters in :attr:`source` and :attr:`target`.

    Args:
        norm: the batch norm that it replaces; see :class:`DomainBatchNorm`.
    """

    title: ClassVar[str] = "adaptive batch norm (adabn)"

    def __init__(self, norm: nn.Module):
        super().__init__(norm)
        for name in self.source._parameters:
            self.target.register_parameter(name, self.source._parameters[name])


class AdaptiveBatchNorm(DomainSpecificBatchNorm):
    """Batch norm with running statistics of each domain; weights, scale and shift are shared.

    Statistics: in training, each domain's part of a batch is normalised by its own mean and
    variance, whether the domains pass jointly or one after another; in evaluation, a sample by the
    running averages of its domain, so that a single target image is normalised as the target is.

    As published, a network is trained on the source alone and the target's statistics are computed
    once, afterwards, on all of its images. That is batch norm (``bn``), evaluated in its form
    ``target-stats``: it is part of every evaluation of ``bn``, so trainings that never forward the
    target are refused here. This normaliser estimates both as training goes.

    The critic keeps batch norm, as under ``dsbn``. Options: see :class:`ActivationNormaliser`.
    """

    name: ClassVar[str] = "adabn"
    needs_target: ClassVar[bool] = True
    composes: ClassVar[bool] = False  # its weights are free: under WA they would be centred as well

    def build(self, channels: int, dimensions: int) -> nn.Module:
        """See :meth:`ActivationNormaliser.build`."""
        return AdaptiveBatchNormLayer(BatchNorm().build(channels, dimensions))

    def replacement_for(self, norm: nn.Module) -> nn.Module:
        """Two batch norms that start as ``norm`` is and share its scale and shift."""
        return AdaptiveBatchNormLayer(norm)
