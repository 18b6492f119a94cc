import numpy as np
import torch
from made_evidence import evidence
from scipy.special import softmax

from da.selection.base import compares_trainings
from da.selection.ensv import EnsV


def test_it_is_the_share_of_images_that_are_classified_as_by_the_average():
    generator = torch.Generator().manual_seed(9)
    logits = [3 * torch.randn(200, 5, generator=generator) for _ in range(4)]
    mean = np.mean([softmax(x.double().numpy(), axis=1) for x in logits], axis=0)
    expected = [
        sum(int(np.argmax(row) == np.argmax(of_all)) for row, of_all in zip(x, mean, strict=True))
        / 200
        for x in (x.double().numpy() for x in logits)
    ]
    assert len(set(expected)) == 4
    assert EnsV()([evidence(x) for x in logits]) == expected


def test_the_average_is_of_probabilities_so_that_a_sure_network_weighs_more():
    sure, unsure = torch.tensor([[9.0, 0.0]]), torch.tensor([[0.0, 0.1]])
    assert EnsV()([evidence(x) for x in (sure, unsure, unsure)]) == [1.0, 0.0, 0.0]


def test_a_single_network_agrees_with_itself_and_the_values_are_of_one_set():
    assert EnsV()([evidence(torch.randn(7, 3))]) == [1.0]
    assert not compares_trainings("EnsV")
    assert compares_trainings("NuclearNorm")
    assert compares_trainings("not.at.hand.Score")
