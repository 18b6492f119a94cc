"""The scores that need no target labels, against scipy; what holds for every one on disk."""

import math

import numpy as np
import pytest
import torch
from made_evidence import evidence, evidence_of_images
from scipy.special import softmax
from scipy.stats import entropy

from da.errors import UserError
from da.selection.base import Score, available_scores, find_score
from da.selection.information_maximisation import InformationMaximisation
from da.selection.negative_entropy import NegativeEntropy
from da.types import Predictions


@pytest.mark.parametrize(("n", "classes", "scale"), [(50, 10, 3.0), (1, 2, 1.0), (200, 31, 20.0)])
def test_they_agree_with_scipy(n, classes, scale):
    logits = scale * torch.randn(n, classes, generator=torch.Generator().manual_seed(n))
    p = softmax(logits.double().numpy(), axis=1)
    conditional = entropy(p, axis=1).mean()
    information = entropy(p.mean(axis=0)) - conditional
    assert InformationMaximisation()(evidence(logits)) == pytest.approx(information, abs=1e-5)
    assert NegativeEntropy()(evidence(logits)) == pytest.approx(-conditional, abs=1e-5)


def test_information_is_highest_for_sure_and_even_predictions():
    k = 5
    even, one = 100 * torch.eye(k), 100 * torch.eye(k)[[0] * k]
    unsure = torch.zeros(k, k)
    found = [InformationMaximisation()(evidence(x)) for x in (even, one, unsure)]
    assert found == pytest.approx([math.log(k), 0.0, 0.0], abs=1e-6)
    # Certainty alone does not see that all images fell into one class.
    assert NegativeEntropy()(evidence(one)) == pytest.approx(
        NegativeEntropy()(evidence(even)), abs=1e-6
    )


def predictions(seed, labels=True, n=60, classes=7):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, 5, generator=generator) + seed
    return Predictions(
        3 * torch.randn(n, classes, generator=generator),
        torch.arange(n) % classes if labels else None,
        features,
    )


SINGLE = [name for name, score in available_scores().items() if issubclass(score, Score)]
SETS = [name for name in available_scores() if name not in SINGLE]


@pytest.mark.parametrize("name", SINGLE)
def test_every_score_is_a_finite_number_that_ignores_the_order_of_the_images(name):
    images = torch.randn(300, 1, 5, 1, generator=torch.Generator().manual_seed(1))
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(2))
    source = {split: predictions(k) for k, split in ((2, "train"), (3, "validation"), (4, "test"))}
    source = {split: p for split, p in source.items() if split in available_scores()[name].needs}

    def network(x):
        return 3 * torch.sin(x.flatten(1)) @ weight

    given = evidence_of_images(images, network, source=source)
    value = find_score(name)(given)
    assert isinstance(value, float)
    assert np.isfinite(value)
    assert find_score(name)(given) == value
    again = find_score(name)(evidence_of_images(images.flip(0), network, source=source))
    # What is drawn by position, parts and pairs, may move a little what is computed on them.
    drawn = source or name.startswith("MixVal")
    assert again == pytest.approx(value, rel=0.2 if drawn else 1e-5)


@pytest.mark.parametrize("name", SETS)
def test_every_score_of_a_set_gives_each_network_a_number_whatever_their_order(name):
    networks = [evidence(predictions(seed).logits) for seed in range(4)]
    values = find_score(name)(networks)
    assert all(isinstance(value, float) and np.isfinite(value) for value in values)
    assert find_score(name)(networks[::-1]) == values[::-1]
    assert len(find_score(name)(networks[:1])) == 1
    assert not find_score(name).needs


def test_there_are_scores_of_one_network_and_of_a_set():
    assert len(SINGLE) >= 10
    assert "EnsV" in SETS


def test_a_wrong_name_is_refused():
    with pytest.raises(UserError, match=r"unknown score 'Entropy'.*InformationMaximisation"):
        find_score("Entropy")
