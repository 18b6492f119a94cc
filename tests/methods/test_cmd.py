import numpy as np
import pytest
import torch
from refusing import refused
from scipy.special import expit
from scipy.stats import moment
from short_runs import small

from da.methods.cmd import CMD, central_moment_discrepancy
from da.types import Activations


def features(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, 6, generator=generator).double() + seed).relu()


def naive(source, target, moments, width=1.0):
    """The definition, its central moments by scipy."""
    total = np.sqrt(((source.mean(axis=0) - target.mean(axis=0)) ** 2).sum()) / width
    for k in range(2, moments + 1):
        apart = moment(source, k, axis=0) - moment(target, k, axis=0)
        total += np.sqrt((apart**2).sum()) / width**k
    return total


@pytest.mark.parametrize("moments", [1, 2, 5, 7])
@pytest.mark.parametrize(("n", "m"), [(8, 8), (3, 10), (1, 1)])
def test_the_discrepancy_agrees_with_scipys_moments(moments, n, m):
    source, target = features(n, 0), features(m, 1)
    for bounds in ((0.0, 1.0), (-1.0, 3.0)):
        found = central_moment_discrepancy(source, target, moments, bounds).item()
        expected = naive(source.numpy(), target.numpy(), moments, bounds[1] - bounds[0])
        assert found == pytest.approx(expected, rel=1e-10)


def test_it_is_symmetric_0_of_equals_and_sees_each_order():
    source, target = features(8, 0), features(5, 1)
    assert central_moment_discrepancy(source, source).item() == 0
    one_way = central_moment_discrepancy(source, target).item()
    assert one_way == pytest.approx(central_moment_discrepancy(target, source).item())
    # Means and variances are equal, the third moments are not.
    left = torch.tensor([0.0, 0.0, 3.0]).double()[:, None]
    right = 2 - left
    assert central_moment_discrepancy(left, right, 2).item() == pytest.approx(0, abs=1e-12)
    assert central_moment_discrepancy(left, right, 3).item() == pytest.approx(4)  # 2 - (-2)


def test_gradients_agree_with_numerical_ones_and_are_finite_between_equals():
    source, target = (features(n, n).requires_grad_() for n in (4, 6))
    assert torch.autograd.gradcheck(central_moment_discrepancy, (source, target))
    same = torch.ones(3, 2, requires_grad=True)
    central_moment_discrepancy(same, torch.ones(4, 2)).backward()
    assert same.grad.tolist() == [[0, 0]] * 3


@pytest.mark.parametrize(("squash", "function"), [("tanh", np.tanh), ("sigmoid", expit)])
def test_the_loss_is_that_of_the_squashed_features_weighted(batch, squash, function):
    source, target = 9 * features(8, 0), features(5, 1)
    module = small(CMD, trade_off=0.3, moments=4, squash=squash)
    terms = module.adaptation(
        Activations(source, torch.zeros(8, 10)), Activations(target, torch.zeros(5, 10)), batch
    )
    expected = 0.3 * naive(function(source.numpy()), function(target.numpy()), 4)
    assert {k: v.item() for k, v in terms.items()} == {"moments": pytest.approx(expected)}


def test_features_of_any_size_give_a_bounded_loss(batch):
    huge = Activations(1e6 * features(8, 1).float(), torch.zeros(8, 10))
    small_ones = Activations(torch.zeros(8, 6), torch.zeros(8, 10))
    loss = small(CMD).adaptation(huge, small_ones, batch)["moments"].item()
    assert 0 < loss < 5 * np.sqrt(6)


def test_what_is_no_order_or_squash_is_refused():
    refused(lambda: small(CMD, moments=0), "moments: expected a whole number from 1, got 0")
    refused(lambda: small(CMD, squash="tan"), "unknown squash 'tan'", "'tanh'")
