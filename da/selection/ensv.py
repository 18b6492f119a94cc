"""EnsV: which network of a set agrees best with all of them together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from da.selection.base import Evidence, SetScore


class EnsV(SetScore):
    """How many target images each network classifies as the average of all does.

    Hu et al. 2024, NeurIPS Datasets and Benchmarks. The authors choose among trainings with
    different settings; the score takes any networks that saw the same images. In a training they
    are its evaluations.
    """

    def __call__(self, evidence: Sequence[Evidence]) -> list[float]:
        """The scores, in [0, 1]; 1 of a single network."""
        return agreement_with_average([one.target.logits for one in evidence])


def agreement_with_average(logits: Sequence[Tensor]) -> list[float]:
    """The share of images whose class is that of the mean of all softmax outputs.

    Args:
        logits: ``(N, K)`` float of each network, for the same images in the same order.
    """
    together = torch.zeros(logits[0].shape, dtype=torch.float64)
    for one in logits:
        together += torch.softmax(one.double(), dim=1)
    classes = together.argmax(dim=1)
    return [float((one.argmax(dim=1) == classes).double().mean()) for one in logits]
