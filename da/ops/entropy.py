"""Entropies of predictions, from logits, in nats."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sample_entropies(logits: Tensor) -> Tensor:
    """The entropy of each prediction, ``(B,)`` in [0, log K].

    H_i = -Σ_k p_ik log p_ik.

    Args:
        logits: ``(B, K)`` float.
    """
    log_p = torch.log_softmax(logits, dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)


def certainty_weights(entropies: Tensor) -> Tensor:
    """Weights of samples by how sure their predictions are, ``(B,)`` with mean 1.

    w_i = B · (1 + e^-H_i) / Σ_j (1 + e^-H_j): the entropy conditioning of CDAN+E (Long et al. 2018,
    section on entropy conditioning) and the uncertainty reweighting of MCC (Jin et al. 2020). The
    sum takes no gradient, as in CDAN's code, so every sample's weight can grow; MCC detaches all.

    Args:
        entropies: ``(B,)`` float in nats, B at least 1, see :func:`sample_entropies`.
    """
    weights = 1.0 + torch.exp(-entropies)
    return weights / weights.detach().mean()


def conditional_entropy(logits: Tensor) -> Tensor:
    """Mean over the samples of the entropy of each prediction, a scalar in [0, log K].

    H(Y|X) = -1/B Σ_i Σ_k p_ik log p_ik (Grandvalet & Bengio 2005, Semi-supervised Learning by
    Entropy Minimization, eq. 6 without its sign).

    Args:
        logits: ``(B, K)`` float, B at least 1.
    """
    return sample_entropies(logits).mean()


def marginal_entropy(logits: Tensor) -> Tensor:
    """Entropy of the mean prediction, a scalar in [0, log K]: how evenly the classes are used.

    H(Y) = -Σ_k p̄_k log p̄_k, p̄ = 1/B Σ_i p_i. It is computed from log p̄ by log-sum-exp, so a
    class that is never predicted costs nothing and its gradient stays finite.

    Args:
        logits: ``(B, K)`` float, B at least 1.
    """
    log_p = torch.log_softmax(logits, dim=1)
    log_mean = torch.logsumexp(log_p, dim=0) - math.log(len(logits))
    return -(log_mean.exp() * log_mean).sum()


def mutual_information(logits: Tensor) -> Tensor:
    """I(X; Y) = H(Y) - H(Y|X), a scalar in [0, log K]: sure of each sample, all classes in use.

    The information that SHOT maximises (Liang, Hu, Feng 2020, Do We Really Need to Access the
    Source Data?, eq. 3 and 4, with the sign turned).

    Args:
        logits: ``(B, K)`` float, B at least 1.
    """
    return marginal_entropy(logits) - conditional_entropy(logits)
