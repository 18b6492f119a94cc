import math

import numpy as np
import pytest
import torch
from refusing import refused
from scipy.spatial.distance import cdist
from scipy.special import softmax
from short_runs import small

from da.methods.jan import JAN, joint_discrepancy
from da.types import Activations


def activations(n, seed, features=4, classes=3):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, features + classes, generator=generator).double() + seed
    return Activations(x[:, :features], x[:, features:] * torch.arange(1, classes + 1))


def naive(source, target, estimator):
    """The formula with a loop over pairs of samples, kernels by scipy's distances."""
    n, m = len(source.features), len(target.features)
    features = np.concatenate([source.features, target.features])
    predictions = softmax(np.concatenate([source.logits, target.logits]), axis=1)
    far = cdist(features, features, "sqeuclidean")
    apart = cdist(predictions, predictions, "sqeuclidean")

    def kernel(i, j):
        widths = [2.0**k * far.mean() for k in range(-3, 2)]
        return sum(math.exp(-far[i, j] / 2 / w) for w in widths) * math.exp(
            -apart[i, j] / (2 * 0.92**2)
        )

    if estimator == "linear":
        nexts = [(i, (i + 1) % n) for i in range(n)]
        return np.mean(
            [
                kernel(i, j) + kernel(n + i, n + j) - kernel(i, n + j) - kernel(j, n + i)
                for i, j in nexts
            ]
        )
    s, t = range(n), range(n, n + m)
    return (
        np.mean([kernel(i, j) for i in s for j in s if i != j])
        + np.mean([kernel(i, j) for i in t for j in t if i != j])
        - 2 * np.mean([kernel(i, j) for i in s for j in t])
    )


@pytest.mark.parametrize(
    ("n", "m", "estimator"), [(5, 5, "full"), (2, 7, "full"), (5, 5, "linear")]
)
def test_the_discrepancy_agrees_with_a_naive_loop(n, m, estimator):
    source, target = activations(n, 0), activations(m, 1)
    found = joint_discrepancy(source, target, estimator).item()
    assert found == pytest.approx(naive(source, target, estimator), rel=1e-10)


def test_it_sees_what_features_and_predictions_do_together():
    """Each layer by itself is the same in both domains; only their joint distribution differs."""
    generator = torch.Generator().manual_seed(0)
    side = torch.arange(200) % 2
    features = (2 * side[:, None] - 1) + 0.1 * torch.randn(200, 2, generator=generator)
    logits = 6 * torch.eye(2)[side]
    source = Activations(features, logits)
    swapped = Activations(features, logits.flip(1))
    assert abs(joint_discrepancy(source, source).item()) < 0.05
    assert joint_discrepancy(source, swapped).item() > 1


def test_gradients_reach_features_and_logits_and_are_finite_where_all_samples_coincide():
    for scale in (1.0, 0.0):
        parts = [scale * activations(4, 1).features, scale * activations(4, 2).logits]
        features, logits = (x.float().detach().requires_grad_() for x in parts)
        other = Activations(0.0 * features.detach(), 0.0 * logits.detach())
        joint_discrepancy(Activations(features, logits), other).backward()
        for x in (features, logits):
            assert x.grad.isfinite().all()
            assert bool(x.grad.abs().max() > 1e-4) == bool(scale)


def test_the_loss_is_weighted_and_compares_all_pairs_by_default(batch):
    source, target = activations(6, 0), activations(4, 1)
    terms = small(JAN, trade_off=0.3).adaptation(source, target, batch)
    expected = 0.3 * naive(source, target, "full")
    assert {k: v.item() for k, v in terms.items()} == {"joint_discrepancy": pytest.approx(expected)}


def test_what_it_can_not_do_is_refused(batch):
    refused(lambda: small(JAN, estimator="ful"), "unknown estimator 'ful'", "'full'")
    linear = small(JAN, estimator="linear")
    refused(
        lambda: linear.adaptation(activations(6, 0), activations(4, 1), batch),
        "expected equally many samples of both domains, got 6 of the source and 4",
    )
