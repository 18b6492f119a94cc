"""Deep embedded validation: the target's risk, from source images weighted by their density."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from da.ops.domain_classifier import domain_classifier
from da.selection.base import Evidence, Score
from da.types import Split

Array = NDArray[np.float64]

FOLDS = 5

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths of the regularisation that the domain classifier is chosen from."""


class DEV(Score):
    """Minus the risk on the target as source validation images give it (You et al. 2019, ICML).

    The cross-entropy of each source validation image is weighted by the density ratio of target
    and source at its features (eq. 5), which a domain classifier on training features gives; a
    control variate lowers the variance of the mean (eq. 9 and algorithm 1). The domain classifier
    is a logistic regression on standardised features, its regularisation chosen by the likelihood
    in five-fold cross-validation. The authors' code trains a small network and chooses its weight
    decay by accuracy, which tells no two of them apart where the domains don't overlap.

    Where the source has no images apart from those that it is trained on, the weighted loss would
    be that of training images, and too small: a training refuses the score there.
    """

    needs: ClassVar[tuple[Split, ...]] = ("train", "validation")

    def __call__(self, evidence: Evidence) -> float:
        """The score, in nats; at most 0 but for what the control variate adds.

        NaN where either domain has fewer images than there are folds: nothing tells their
        densities.
        """
        train, validation = evidence.source["train"], evidence.source["validation"]
        if min(len(train.features), len(evidence.target.features)) < FOLDS:
            return math.nan
        source, target, at = (
            p.features.double().numpy() for p in (train, evidence.target, validation)
        )
        weights = density_ratios(source, target, at, evidence.seed)
        assert validation.labels is not None  # the source has labels
        labels = validation.labels.numpy()
        log_p = log_softmax(validation.logits.double().numpy(), axis=1)
        losses = -log_p[np.arange(len(labels)), labels]
        return -dev_risk(weights, losses)


def density_ratios(source: Array, target: Array, at: Array, seed: int = 0) -> Array:
    """p_target / p_source at some features, ``(N,)``, from a classifier of the two domains.

    w = n_source / n_target · P(target | f) / P(source | f) (You et al. 2019, eq. 5).

    Args:
        source: ``(S, F)`` features.
        target: ``(T, F)`` features; at least :data:`FOLDS` of either domain.
        at: ``(N, F)`` features.
        seed: of the folds by which the regularisation is chosen.
    """
    features = np.concatenate([source, target])
    is_target = np.repeat([0, 1], [len(source), len(target)])
    model = domain_classifier(STRENGTHS, FOLDS, seed, "neg_log_loss").fit(features, is_target)
    log_p = model.predict_log_proba(at)
    ratios: Array = np.exp(log_p[:, 1] - log_p[:, 0]) * len(source) / len(target)
    return ratios


def dev_risk(weights: Array, losses: Array) -> float:
    """mean(L) + η · mean(W) − η with L = w · ℓ and η = −Cov(L, W) / Var(W) (algorithm 1).

    Args:
        weights: ``(N,)`` density ratios, whose expectation is 1.
        losses: ``(N,)`` of the same images.
    """
    weighted = weights * losses
    variance = weights.var(ddof=1) if len(weights) > 1 else 0.0
    eta = -np.cov(weighted, weights)[0, 1] / variance if variance > 0 else 0.0
    return float(weighted.mean() + eta * weights.mean() - eta)
