"""LAME: Laplacian adjusted maximum-likelihood estimation (Boudiaf et al. 2022, CVPR)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from da.adapters.base import Adapter
from da.errors import UserError, unknown
from da.networks.network import Network

Affinity = Literal["knn", "rbf", "linear"]

ITERATIONS = 100
TOLERANCE = 1e-8
"""The steps end where the bound changes by less, relative to itself, as in the authors' code."""


def affinities(features: Tensor, kind: Affinity = "knn", neighbours: int = 5) -> Tensor:
    """How alike samples are, ``(B, B)``, from their features scaled to unit length.

    ``knn``: 1 for the nearest others of a sample, 0 else, not made symmetric. ``rbf``:
    exp(-d² / 2σ²), σ the mean distance to the neighbour of that number, the sample itself being the
    first. ``linear``: the cosine. As in the authors' code.

    Args:
        features: ``(B, F)`` float.
        kind: which.
        neighbours: how many; all others where there are fewer.
    """
    z = F.normalize(features, dim=1)
    if kind == "linear":
        return z @ z.T
    distances = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist")
    if kind == "rbf":
        near = distances.topk(min(neighbours, len(z)), dim=1, largest=False).values
        width = near[:, -1].mean().clamp(min=1e-6)
        return torch.exp(-distances.square() / (2 * width.square()))
    near = distances.fill_diagonal_(torch.inf)
    places = near.topk(min(neighbours, len(z) - 1), dim=1, largest=False).indices
    return torch.zeros_like(near).scatter_(1, places, 1.0)


def adjusted_log_probabilities(logits: Tensor, affinity: Tensor) -> Tensor:
    """Predictions near the network's that agree with those of alike samples, ``(B, K)``, as logs.

    log y_i ← log_softmax(log p_i + Σ_j w_ij y_j), from y = p on (Boudiaf et al. 2022, the
    concave-convex procedure, as in the authors' code: at most 100 steps). Where w is symmetric and
    positive semi-definite, no step raises Σ_i KL(y_i ‖ p_i) - ½ Σ_ij w_ij y_i · y_j.

    Args:
        logits: ``(B, K)`` float; p is their softmax.
        affinity: ``(B, B)`` float, w.
    """
    log_p = logits.log_softmax(dim=1)
    log_y, before = log_p, torch.inf
    for step in range(ITERATIONS):
        adjusted = log_p + affinity @ log_y.exp()
        normaliser = adjusted.logsumexp(dim=1, keepdim=True)
        log_y = adjusted - normaliser
        bound = -normaliser.double().sum().item()  # its value at its minimum
        if step > 1 and abs(bound - before) <= TOLERANCE * abs(before):
            break
        before = bound
    return log_y


class LAME(Adapter):
    """Predictions of a batch that agree where features are alike; the network stays as it is.

    Nothing is learnt, no parameter or statistic changes, and no normaliser is needed: with batch
    norm, the statistics are those of the training. What comes out depends on the size of the
    batches and on what is in them together: its authors made it for streams in which neighbours
    are often of one class.

    The features are those before the classifier, the logits the logarithms of the new predictions.

    Args:
        affinity: ``knn``, ``rbf`` or ``linear``; see :func:`affinities`. The authors choose among
            the three, and 1, 3 and 5 neighbours, by validation.
        neighbours: of ``knn`` from 1, and of ``rbf`` from 2, as the first one is the sample itself;
            5 by default. ``linear`` has none.
    """

    online = False

    def __init__(self, affinity: Affinity = "knn", neighbours: int | None = None):
        if affinity not in get_args(Affinity):
            raise unknown("affinity", affinity, get_args(Affinity))
        if affinity == "linear" and neighbours is not None:
            raise UserError(
                f"LAME: neighbours {neighbours} with affinity linear, which looks at all samples; "
                "leave neighbours out, or take knn or rbf"
            )
        least = 2 if affinity == "rbf" else 1
        if neighbours is not None and neighbours < least:
            raise UserError(
                f"LAME: neighbours: expected a whole number from {least} with affinity {affinity}, "
                f"got {neighbours}"
            )
        self.affinity = affinity
        self.neighbours = 5 if neighbours is None else neighbours

    def predict(
        self, network: Network, batches: Iterable[Tensor], domain: str = "target"
    ) -> Iterator[Tensor]:
        """See :meth:`Adapter.predict`."""
        network.eval()
        for images in batches:
            with torch.no_grad():
                out = network(images, domain)
                affinity = affinities(out.features, self.affinity, self.neighbours)
                logits = adjusted_log_probabilities(out.logits, affinity)
            yield logits
