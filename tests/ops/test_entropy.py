import numpy as np
import pytest
import scipy.stats
import torch

from da.methods.entropy_minimisation import entropy_loss
from da.ops.entropy import conditional_entropy, marginal_entropy, mutual_information


@pytest.fixture
def logits() -> torch.Tensor:
    return 3 * torch.randn(50, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_entropies_agree_with_scipy(logits):
    p = scipy.special.softmax(logits.numpy(), axis=1)
    conditional = scipy.stats.entropy(p, axis=1).mean()
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
