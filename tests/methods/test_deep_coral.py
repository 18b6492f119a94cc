import numpy as np
import pytest
import torch
from refusing import refused
from short_runs import small

from da.methods.deep_coral import DeepCORAL, coral_loss
from da.types import Activations


def activations(n, seed):
    generator = torch.Generator().manual_seed(seed)
    x = (1 + seed) * torch.randn(n, 15, generator=generator).double() + 5
    return Activations(x[:, :5], x[:, 5:])


def naive(source, target):
    """The squared distance of numpy's covariances, entry by entry, over 4 d²."""
    one, other = (np.cov(x.numpy(), rowvar=False) for x in (source, target))
    d = len(one)
    return sum((one[i, j] - other[i, j]) ** 2 for i in range(d) for j in range(d)) / (4 * d * d)


@pytest.mark.parametrize(("n", "m"), [(8, 8), (2, 9), (9, 3)])
def test_the_loss_agrees_with_numpys_covariances(n, m):
    source, target = activations(n, 0).features, activations(m, 1).features
    expected = naive(source, target)
    assert coral_loss(source, target).item() == pytest.approx(expected, rel=1e-12)


def test_it_sees_no_means_and_is_quartic_in_the_scale():
    source, target = activations(8, 0).features, activations(8, 1).features
    loss = coral_loss(source, target).item()
    assert coral_loss(source, source + 3).item() == pytest.approx(0, abs=1e-20)
    assert coral_loss(source - 7, target + 3).item() == pytest.approx(loss)
    assert coral_loss(2 * source, 2 * target).item() == pytest.approx(16 * loss)


def test_gradients_agree_with_numerical_ones_and_are_0_between_equals():
    source, target = (activations(n, n).features.requires_grad_() for n in (4, 6))
    assert torch.autograd.gradcheck(coral_loss, (source, target))
    same = source.detach().float().requires_grad_()
    coral_loss(same, source.detach().float()).backward()
    assert same.grad.abs().max() == 0


@pytest.mark.parametrize("layer", ["logits", "features"])
def test_the_loss_is_that_of_the_layer_weighted(batch, layer):
    source, target = activations(8, 0), activations(5, 1)
    terms = small(DeepCORAL, trade_off=0.3, layer=layer).adaptation(source, target, batch)
    expected = 0.3 * naive(getattr(source, layer), getattr(target, layer))
    assert {k: v.item() for k, v in terms.items()} == {"coral": pytest.approx(expected, rel=1e-12)}


def test_what_it_can_not_do_is_refused(batch):
    assert small(DeepCORAL).hparams["layer"] == "logits"
    refused(lambda: small(DeepCORAL, layer="feature"), "unknown layer 'feature'", "'features'")
    refused(
        lambda: small(DeepCORAL).adaptation(activations(8, 0), activations(1, 1), batch),
        "a covariance needs at least 2 samples of each domain, got 8 of the source and 1 of the",
    )
