"""Batch norm whose statistics are those of the batches of all GPUs: torch's SyncBatchNorm."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from da.norms.base import ActivationNormaliser


class SynchronisedBatchNorm(ActivationNormaliser):
    """``torch.nn.SyncBatchNorm`` in the place of batch norm.

    Statistics: in training, mean and variance of the batches of all processes together, of
    whichever domains are in them; in evaluation, their running averages, for either domain. In a
    single process it is batch norm.

    torch's kernel is for GPUs: trainings on a CPU are refused. Options: see
    :class:`ActivationNormaliser`.
    """

    name: ClassVar[str] = "bn-sync"
    composes: ClassVar[bool] = False  # wa+bn says what WA does beside batch norm
    mixes_domains = True
    needs_gpu: ClassVar[bool] = True

    def build(self, channels: int, dimensions: int) -> nn.Module:
        """See :meth:`ActivationNormaliser.build`."""
        return nn.SyncBatchNorm(channels)

    def replacement_for(self, norm: nn.Module) -> nn.Module:
        """The same batch norm, synchronised: its parameters and statistics are taken."""
        old: Any = norm
        new = nn.SyncBatchNorm(
            *(old.num_features, old.eps, old.momentum, old.affine, old.track_running_stats),
            device="meta",
        )
        new._parameters.update(old._parameters)
        new._buffers.update(old._buffers)
        return new.train(old.training)
