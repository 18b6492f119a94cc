"""The scores that need no target labels, against scipy; what holds for every one on disk."""

import math

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from da.errors import UserError
from da.selection.base import Evidence, available_scores, find_score
from da.selection.information_maximisation import InformationMaximisation
from da.selection.negative_entropy import NegativeEntropy
from da.types import Predictions


def of(logits):
    return Evidence(Predictions(logits, None, torch.zeros(len(logits), 1)), {})


@pytest.mark.parametrize(("n", "classes", "scale"), [(50, 10, 3.0), (1, 2, 1.0), (200, 31, 20.0)])
def test_they_agree_with_scipy(n, classes, scale):
    logits = scale * torch.randn(n, classes, generator=torch.Generator().manual_seed(n))
    p = softmax(logits.double().numpy(), axis=1)
    conditional = entropy(p, axis=1).mean()
    information = entropy(p.mean(axis=0)) - conditional
    assert InformationMaximisation()(of(logits)) == pytest.approx(information, abs=1e-5)
    assert NegativeEntropy()(of(logits)) == pytest.approx(-conditional, abs=1e-5)


def test_information_is_highest_for_sure_and_even_predictions():
    k = 5
    even, one = 100 * torch.eye(k), 100 * torch.eye(k)[[0] * k]
    unsure = torch.zeros(k, k)
    found = [InformationMaximisation()(of(x)) for x in (even, one, unsure)]
    assert found == pytest.approx([math.log(k), 0.0, 0.0], abs=1e-6)
    # Certainty alone does not see that all images fell into one class.
    assert NegativeEntropy()(of(one)) == pytest.approx(NegativeEntropy()(of(even)), abs=1e-6)


def predictions(seed, labels=True, n=60, classes=7):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, 5, generator=generator) + seed
    return Predictions(
        3 * torch.randn(n, classes, generator=generator),
        torch.arange(n) % classes if labels else None,
        features,
    )


@pytest.mark.parametrize("name", available_scores())
def test_every_score_is_a_finite_number_that_ignores_the_order_of_the_images(name):
    target = predictions(1, labels=False)
    source = {split: predictions(k) for k, split in ((2, "train"), (3, "validation"), (4, "test"))}
    source = {split: p for split, p in source.items() if split in available_scores()[name].needs}
    value = find_score(name)(Evidence(target, source))
    assert isinstance(value, float)
    assert np.isfinite(value)
    turned = target._replace(logits=target.logits.flip(0), features=target.features.flip(0))
    again = find_score(name)(Evidence(turned, source))
    # A split into parts that is drawn by position may move a little what is fitted on them.
    assert again == pytest.approx(value, rel=0.2 if source else 1e-5)
    assert find_score(name)(Evidence(target, source)) == value


def test_a_wrong_name_is_refused():
    with pytest.raises(UserError, match=r"unknown score 'Entropy'.*InformationMaximisation"):
        find_score("Entropy")
