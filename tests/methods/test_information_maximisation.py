import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from short_runs import digits, fit, small

from da.methods.entropy_minimisation import EntropyMinimisation
from da.methods.information_maximisation import InformationMaximisation
from da.types import Activations


def test_the_loss_is_the_negative_information_of_the_target_weighted(batch):
    target = 3 * torch.randn(12, 10, generator=torch.Generator().manual_seed(0)).double()
    p = softmax(target.numpy(), axis=1)
    information = entropy(p.mean(axis=0)) - entropy(p, axis=1).mean()
    source = Activations(torch.zeros(3, 2), torch.full((3, 10), torch.nan))
    for options, weight in (({}, 1.0), ({"trade_off": 0.3}, 0.3)):
        terms = small(InformationMaximisation, **options).adaptation(
            source, Activations(torch.zeros(12, 2), target), batch
        )
        expected = pytest.approx(-weight * information, rel=1e-12)
        assert {k: v.item() for k, v in terms.items()} == {"information": expected}


def test_it_trains_as_entropy_minimisation_with_its_weight_and_diversity():
    found = []
    for kind, options in (
        (InformationMaximisation, {}),
        (EntropyMinimisation, {"trade_off": 1.0, "diversity": 1.0}),
    ):
        module = small(kind, norm="wa", seed=1, lr=0.01, **options)
        fit(module, digits(batch_size=8))
        found.append(torch.cat([p.detach().flatten() for p in module.network.parameters()]))
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-6)
