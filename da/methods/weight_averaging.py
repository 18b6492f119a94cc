"""Averages of a network's weights over its training, and methods that evaluate one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import nn

from da.methods.base import Method, Step
from da.networks.network import Network
from da.types import Batch


def rate_of_average(step: int, alpha: float) -> float:
    """The share of the teacher that an update keeps, min(1 - 1 / (step + 1), alpha).

    The true average of all students until that of the last ones is more correct (Tarvainen &
    Valpola's code, ``update_ema_variables``; the first update is step 1 there, too).

    >>> [round(rate_of_average(step, 0.75), 2) for step in (1, 2, 3, 4)]
    [0.5, 0.67, 0.75, 0.75]
    """
    return min(1.0 - 1.0 / (step + 1), alpha)


@torch.no_grad()
def update_average(teacher: nn.Module, student: nn.Module, alpha: float) -> None:
    """θ' ← alpha · θ' + (1 - alpha) · θ (Tarvainen & Valpola 2017, eq. 1), in place.

    Running statistics are averaged like parameters, as in French et al.'s corrected code
    (``EMAWeightOptimizer``; ``OldWeightEMA`` and Tarvainen & Valpola's code average parameters
    alone): what the teacher does not forward itself, a batch norm of the source, follows the
    student. Of its counters of batches the teacher has the larger of both: a domain that the
    student has seen is one whose statistics it holds. What is one tensor under two names (the scale
    of both domains) is averaged once.

    Args:
        teacher: θ', changed in place.
        student: θ, of the same architecture.
        alpha: the share that is kept.
    """
    pairs = zip(teacher.state_dict().items(), student.state_dict().values(), strict=True)
    averaged: set[int] = set()
    for (name, ours), theirs in pairs:
        if name.endswith(("batches", "num_batches_tracked")):
            ours.copy_(torch.maximum(ours, theirs))
        elif ours.is_floating_point() and ours.data_ptr() not in averaged:
            ours.lerp_(theirs, 1.0 - alpha)
            averaged.add(ours.data_ptr())


class AveragingMethod(Method):
    """A method whose evaluated network is the average of those that it trained so far.

    The average, :attr:`teacher`, begins as a copy of the network and takes no gradient.

    Attributes:
        teacher: the average.
    """

    @property
    @abstractmethod
    def average_decay(self) -> float:
        """How much of the average an update keeps, see :func:`rate_of_average`."""

    def build(self) -> None:
        """Makes the teacher, a copy of the network as it is now."""
        self.teacher = self.frozen_copy()

    def evaluated(self) -> Network:
        """The teacher; before it is made, the network that it will be a copy of."""
        return self.teacher if self.prepared else self.network

    def steps(self, batch: Batch) -> Iterator[Step]:
        """One update of the network, and then of the teacher."""
        yield Step(lambda: self.losses(batch))
        rate = rate_of_average(self.batches_done + 1, self.average_decay)
        update_average(self.teacher, self.network, rate)
