"""EnsV: which network of a set agrees best with all of them together."""

from __future__ import annotations

import torch

from da.selection.base import Evidence, SetScore, SetState


class EnsV(SetScore):
    """How many target images each network classifies as the average of all does.

    Hu et al. 2024, NeurIPS Datasets and Benchmarks. The authors choose among trainings with
    different settings; the score takes any networks that saw the same images. In a training they
    are its evaluations.

    The score of a network is the share of images whose class is that of the mean of all softmax
    outputs, in [0, 1]; 1 of a single network. Kept are the sum of these outputs, ``(N, K)``
    float64, and the classes that each network predicts, ``(N,)`` int32.
    """

    def extend(self, kept: SetState | None, evidence: Evidence) -> SetState:
        """See :meth:`da.selection.base.SetScore.extend`."""
        logits = evidence.target.logits
        softmax = torch.softmax(logits.double(), dim=1)
        predicted = logits.argmax(dim=1).int()
        if kept is None:
            return {"sum": softmax, "predicted": [predicted]}
        return {"sum": kept["sum"] + softmax, "predicted": [*kept["predicted"], predicted]}

    def values(self, kept: SetState) -> list[float]:
        """See :meth:`da.selection.base.SetScore.values`."""
        classes = kept["sum"].argmax(dim=1)
        return [float((one == classes).double().mean()) for one in kept["predicted"]]
