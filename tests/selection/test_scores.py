"""The scores that need no target labels, against scipy."""

import math

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from da.discovery import subclasses
from da.errors import UserError
from da.selection.base import Score, score
from da.selection.information_maximisation import InformationMaximisation
from da.selection.negative_entropy import NegativeEntropy


@pytest.mark.parametrize(("n", "classes", "scale"), [(50, 10, 3.0), (1, 2, 1.0), (200, 31, 20.0)])
def test_they_agree_with_scipy(n, classes, scale):
    logits = scale * torch.randn(n, classes, generator=torch.Generator().manual_seed(n))
    p = softmax(logits.double().numpy(), axis=1)
    conditional = entropy(p, axis=1).mean()
    information = entropy(p.mean(axis=0)) - conditional
    assert InformationMaximisation()(logits).item() == pytest.approx(information, abs=1e-5)
    assert NegativeEntropy()(logits).item() == pytest.approx(-conditional, abs=1e-5)


def test_information_is_highest_for_sure_and_even_predictions():
    k = 5
    even, one = 100 * torch.eye(k), 100 * torch.eye(k)[[0] * k]
    unsure = torch.zeros(k, k)
    found = [InformationMaximisation()(x).item() for x in (even, one, unsure)]
    assert found == pytest.approx([math.log(k), 0.0, 0.0], abs=1e-6)
    # Certainty alone does not see that all images fell into one class.
    assert NegativeEntropy()(one).item() == pytest.approx(NegativeEntropy()(even).item(), abs=1e-6)


@pytest.mark.parametrize("name", subclasses("da.selection", Score))
def test_every_score_is_a_finite_scalar_that_ignores_the_order_of_the_images(name):
    logits = 30 * torch.randn(40, 7, generator=torch.Generator().manual_seed(1))
    value = score(name)(logits)
    assert value.shape == ()
    assert np.isfinite(value.item())
    assert score(name)(logits.flip(0)).item() == pytest.approx(value.item(), abs=1e-5)


def test_a_wrong_name_is_refused():
    with pytest.raises(UserError, match=r"unknown score 'Entropy'.*InformationMaximisation"):
        score("Entropy")
