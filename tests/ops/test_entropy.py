import numpy as np
import pytest
import scipy.stats
import torch

from da.methods.entropy_minimisation import entropy_loss
from da.ops.entropy import (
    certainty_weights,
    conditional_entropy,
    marginal_entropy,
    mutual_information,
    sample_entropies,
)


@pytest.fixture
def logits() -> torch.Tensor:
    return 3 * torch.randn(50, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_entropies_agree_with_scipy(logits):
    p = scipy.special.softmax(logits.numpy(), axis=1)
    entropies = scipy.stats.entropy(p, axis=1)
    np.testing.assert_allclose(sample_entropies(logits), entropies, rtol=1e-12)
    conditional = entropies.mean()
    marginal = scipy.stats.entropy(p.mean(axis=0))
    assert conditional_entropy(logits).item() == pytest.approx(conditional, rel=1e-12)
    assert marginal_entropy(logits).item() == pytest.approx(marginal, rel=1e-12)
    assert mutual_information(logits).item() == pytest.approx(marginal - conditional, rel=1e-12)


@pytest.mark.parametrize(("diversity", "expected"), [(0.0, np.log(4)), (1.0, 0.0), (0.5, None)])
def test_entropy_loss_at_uniform_predictions(diversity, expected):
    loss = entropy_loss(torch.zeros(8, 4, dtype=torch.float64), diversity).item()
    assert loss == pytest.approx((1 - diversity) * np.log(4))
    if expected is not None:
        assert loss == pytest.approx(expected)


def test_diversity_prefers_used_classes():
    sure = 50.0 * torch.eye(4, dtype=torch.float64)
    collapsed = 50.0 * torch.eye(4, dtype=torch.float64)[[0, 0, 0, 0]]
    assert entropy_loss(sure).item() == pytest.approx(-np.log(4))
    assert entropy_loss(collapsed).item() == pytest.approx(0.0, abs=1e-12)
    assert entropy_loss(sure, 0.0).item() == pytest.approx(entropy_loss(collapsed, 0.0).item())


def test_gradients_agree_with_numerical_ones(logits):
    logits.requires_grad_()
    assert torch.autograd.gradcheck(conditional_entropy, logits)
    assert torch.autograd.gradcheck(marginal_entropy, logits)


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[1e4, 0.0, -1e4], [1e4, -1e4, 0.0]], requires_grad=True)
    loss = entropy_loss(logits)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_sure_samples_weigh_up_to_twice_as_much_and_all_of_them_1_on_average(logits):
    entropies = sample_entropies(logits)
    expected = 1 + np.exp(-entropies.numpy())
    expected /= expected.mean()
    np.testing.assert_allclose(certainty_weights(entropies), expected, rtol=1e-12)
    sure, unsure = certainty_weights(torch.tensor([0.0, 40.0])).tolist()
    assert (sure, unsure) == (pytest.approx(4 / 3), pytest.approx(2 / 3))
    assert certainty_weights(torch.tensor([0.7])).item() == pytest.approx(1)


def test_the_sum_of_the_weights_takes_no_gradient():
    entropies = torch.tensor([0.2, 1.0, 0.6], dtype=torch.float64, requires_grad=True)
    certainty_weights(entropies).sum().backward()
    h = entropies.detach().numpy()
    expected = -np.exp(-h) / (1 + np.exp(-h)).mean()  # of the numerator alone: not 0
    np.testing.assert_allclose(entropies.grad, expected, rtol=1e-12)
