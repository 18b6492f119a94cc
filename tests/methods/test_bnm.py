import numpy as np
import pytest
import torch
from scipy.linalg import svdvals
from scipy.special import softmax
from short_runs import small

from da.methods.bnm import BNM, fast_nuclear_norm_loss, nuclear_norm_loss
from da.types import Activations

LOSSES = [nuclear_norm_loss, fast_nuclear_norm_loss]


def logits(rows, classes, scale=3.0):
    generator = torch.Generator().manual_seed(rows)
    return scale * torch.randn(rows, classes, generator=generator).double()


@pytest.mark.parametrize(("rows", "classes"), [(12, 5), (4, 9), (1, 3), (6, 6)])
def test_the_losses_agree_with_scipys_singular_values_and_a_loop_over_columns(rows, classes):
    x = logits(rows, classes)
    p = softmax(x.numpy(), axis=1)
    assert nuclear_norm_loss(x).item() == pytest.approx(-svdvals(p).sum() / rows, rel=1e-12)
    lengths = sorted(np.sqrt(sum(value**2 for value in column)) for column in p.T)
    expected = -sum(lengths[-min(rows, classes) :]) / rows
    assert fast_nuclear_norm_loss(x).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_known_values_of_sure_even_predictions_and_of_one_class_for_all(loss):
    even = 1e4 * torch.eye(4).repeat(3, 1)
    one = 1e4 * torch.eye(4)[[0] * 12]
    found = [12 * loss(x).item() for x in (even, one)]
    assert found == pytest.approx([-np.sqrt(12 * 4), -np.sqrt(12)], rel=1e-6)
    # More classes than samples: each sample may have its own.
    assert loss(1e4 * torch.eye(7)[:3]).item() == pytest.approx(-1)


def test_uniform_predictions_have_the_least_nuclear_norm():
    assert nuclear_norm_loss(torch.zeros(12, 4)).item() == pytest.approx(-np.sqrt(12 / 4) / 12)
    assert nuclear_norm_loss(logits(12, 4)).item() < -np.sqrt(12 / 4) / 12


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_agree_with_numerical_ones(loss):
    assert torch.autograd.gradcheck(loss, logits(6, 4).requires_grad_())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    "x",
    [torch.zeros(6, 4), 1e4 * torch.eye(4)[[0] * 6], 1e4 * torch.eye(4)[[0, 0, 1, 1, 1, 2]]],
    ids=["uniform", "one class", "a class never predicted"],
)
def test_gradients_are_finite_where_singular_values_are_0_or_equal(loss, x):
    x = x.clone().requires_grad_()
    loss(x).backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_give_a_loss_that_is_not(loss, value):
    x = logits(6, 4)
    x[1, 2] = value
    assert not loss(x).isfinite()


@pytest.mark.parametrize("fast", [False, True])
def test_the_loss_is_that_of_the_target_alone_weighted(batch, fast):
    target = logits(12, 10)
    source = Activations(torch.zeros(3, 2), torch.full((3, 10), torch.nan))
    terms = small(BNM, trade_off=0.3, fast=fast).adaptation(
        source, Activations(torch.zeros(12, 2), target), batch
    )
    expected = 0.3 * LOSSES[fast](target).item()
    assert {k: v.item() for k, v in terms.items()} == {"nuclear_norm": pytest.approx(expected)}
