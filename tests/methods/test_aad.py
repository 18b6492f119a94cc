"""AaD: its losses against loops, its neighbours against scikit-learn, and what its banks hold."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from refusing import refused
from scipy.special import softmax
from short_runs import digits, fit, small
from sklearn.neighbors import NearestNeighbors

from da.methods.aad import (
    AaD,
    attraction_loss,
    dispersion_loss,
    last_of_each,
    nearest_neighbours,
)


def probabilities(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(*shape, generator=generator, dtype=torch.float64)).softmax(dim=-1)


def test_both_losses_agree_with_loops():
    p, q = probabilities(0, 6, 5), probabilities(1, 6, 3, 5)
    attraction = [
        -sum(p[i, c].item() * q[i, k, c].item() for k in range(3) for c in range(5))
        for i in range(6)
    ]
    assert attraction_loss(p, q).item() == pytest.approx(np.mean(attraction), rel=1e-12)
    dispersion = [
        sum(p[i, c].item() * p[j, c].item() for j in range(6) if j != i for c in range(5))
        for i in range(6)
    ]
    assert dispersion_loss(p).item() == pytest.approx(np.mean(dispersion), rel=1e-12)


def test_the_gradient_is_that_of_the_published_codes_divergence():
    q = probabilities(1, 6, 3, 5)
    gradients = []
    for loss in (
        attraction_loss,
        lambda p, q: (
            F.kl_div(p[:, None].expand(-1, 3, -1), q, reduction="none").sum(-1).sum(1).mean()
        ),
    ):
        p = probabilities(0, 6, 5).requires_grad_()
        gradients += torch.autograd.grad(loss(p, q), p)
    torch.testing.assert_close(*gradients)


def test_extreme_predictions_have_the_extreme_values():
    sure = torch.eye(4)[torch.zeros(6, dtype=torch.long)]
    assert attraction_loss(sure, sure[:, None].expand(-1, 3, -1)).item() == -3
    assert dispersion_loss(sure).item() == 5
    assert dispersion_loss(torch.eye(4)).item() == 0
    assert dispersion_loss(sure[:1]).item() == 0


def test_gradients_are_finite_at_sure_predictions():
    logits = torch.tensor([[90.0, -90.0, 0.0]] * 3, requires_grad=True)
    p = logits.softmax(dim=1)
    (attraction_loss(p, p.detach()[:, None]) + dispersion_loss(p)).backward()
    assert logits.grad.isfinite().all()


def test_neighbours_agree_with_scikit_learn_and_leave_out_the_image_itself():
    generator = np.random.default_rng(0)
    bank = generator.normal(size=(40, 6))
    bank[7] = bank[3]  # another image with equal features is a neighbour
    own = np.array([3, 0, 39])
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    found = nearest_neighbours(*map(torch.from_numpy, (bank[own], bank, own)), 4)
    for place, neighbours in zip(own, found.tolist(), strict=True):
        others = np.delete(np.arange(40), place)
        model = NearestNeighbors(n_neighbors=4, metric="cosine").fit(bank[others])
        expected = others[model.kneighbors(bank[place : place + 1])[1][0]]
        assert sorted(neighbours) == sorted(expected.tolist())
        assert place not in neighbours
    assert 7 in found[0]


def test_of_an_image_that_comes_twice_the_last_is_kept():
    assert last_of_each(torch.tensor([4, 4, 1, 4])).tolist() == [3, 3, 2, 3]
    assert last_of_each(torch.tensor([5])).tolist() == [0]


@pytest.mark.parametrize("norm", ["bn", "wa"])
def test_the_banks_are_filled_once_and_replaced_batch_by_batch(norm):
    module, data = small(AaD, norm=norm, seed=1), digits()
    collected, compute, collect = [], module.source_free, module.collect

    def collecting(role):
        collected.append(collect(role))
        return collected[-1]

    def computing(target, batch):
        own = batch.target.indices
        before = module.bank_features.clone(), module.bank_predictions.clone()
        if len(collected) == 1 and module.progress == 0:
            seen = collected[0]
            norms = np.linalg.norm(seen.features.numpy(), axis=1, keepdims=True)
            np.testing.assert_allclose(before[0].numpy(), seen.features.numpy() / norms, rtol=1e-5)
            expected = softmax(seen.logits.numpy(), axis=1)
            np.testing.assert_allclose(before[1].numpy(), expected, rtol=1e-4, atol=1e-7)
        terms = compute(target, batch)
        features = F.normalize(target.features.detach(), dim=1)
        torch.testing.assert_close(module.bank_features[own], features)
        torch.testing.assert_close(module.bank_predictions[own], target.logits.detach().softmax(1))
        others = torch.ones(len(before[0]), dtype=torch.bool)
        others[own] = False
        assert torch.equal(module.bank_features[others], before[0][others])
        assert torch.equal(module.bank_predictions[others], before[1][others])
        return terms

    module.collect, module.source_free = collecting, computing
    fit(module, data, epochs=4)
    assert len(collected) == 1
    assert len(module.bank_features) == len(data.set_of("target", "train"))


def test_the_dispersion_decays_over_adaptation():
    weights = []
    module = small(AaD, dispersion=2.0, dispersion_decay=5.0, seed=1)
    compute = module.source_free

    def computing(target, batch):
        terms = compute(target, batch)
        p = target.logits.softmax(dim=1)
        weights.append((terms["dispersion"] / dispersion_loss(p)).item())
        return terms

    module.source_free = computing
    fit(module, epochs=2)
    assert weights == pytest.approx([2 * (1 + 10 * p) ** -5.0 for p in (0, 1 / 3, 2 / 3)], rel=1e-4)


def test_without_its_weight_there_is_no_dispersion():
    module = small(AaD, dispersion=0.0)
    fit(module, epochs=2)
    assert module.logged_terms == ["loss/attraction"]


def test_options_are_refused_in_one_line():
    refused(lambda: small(AaD, neighbours=0), "neighbours: expected a whole number from 1, got 0")
    refused(lambda: small(AaD, dispersion=-1.0), "dispersion: expected a number from 0")
    refused(lambda: small(AaD, dispersion_decay=-1.0), "dispersion_decay: expected a number from 0")


def test_more_neighbours_than_images_are_refused_before_the_source_is_trained():
    data = digits(steps_per_epoch=1)
    number, module = len(data.set_of("target", "train")), small(AaD, neighbours=10**6)
    refused(lambda: fit(module, data, epochs=2), f"neighbours: expected fewer than the {number}")
    assert module.initial_loss is None
    fit(small(AaD, neighbours=10**6, source_share=1.0), data)  # which leaves adaptation out
