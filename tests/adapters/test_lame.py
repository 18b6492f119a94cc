"""LAME against loops in numpy, its bound, and that it leaves the network as it is."""

import copy

import numpy as np
import pytest
import torch
from refusing import refused
from scipy.special import log_softmax, softmax
from short_runs import small
from sklearn.metrics.pairwise import cosine_similarity, rbf_kernel
from sklearn.neighbors import kneighbors_graph
from sklearn.preprocessing import normalize

from da.adapters.base import adapter
from da.adapters.lame import LAME, adjusted_log_probabilities, affinities
from da.methods.source_only import SourceOnly


def drawn(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_affinities_agree_with_scikit_learn():
    features = drawn(0, 20, 6)
    z = normalize(features.numpy())
    np.testing.assert_array_equal(
        affinities(features, "knn", 5).numpy(), kneighbors_graph(z, 5).toarray()
    )
    np.testing.assert_allclose(affinities(features, "linear").numpy(), cosine_similarity(z))
    distances = np.sqrt(((z[:, None] - z[None]) ** 2).sum(-1))
    width = np.mean([sorted(row)[3 - 1] for row in distances])
    np.testing.assert_allclose(
        affinities(features, "rbf", 3).numpy(), rbf_kernel(z, gamma=1 / (2 * width**2))
    )


def by_hand(logits, w):
    """The fixed-point steps, sample by sample, until nothing moves any more."""
    log_p = log_softmax(logits, axis=1)
    y = np.exp(log_p)
    for _ in range(200):
        agreement = [sum(w[i, j] * y[j] for j in np.flatnonzero(w[i])) for i in range(len(y))]
        y = softmax(log_p + np.stack([a * np.ones(y.shape[1]) for a in agreement]), axis=1)
    return y


@pytest.mark.parametrize("kind", ["knn", "rbf", "linear"])
def test_predictions_agree_with_a_loop_in_numpy(kind):
    logits, features = drawn(1, 12, 4), drawn(2, 12, 6)
    w = affinities(features, kind, 3)
    found = adjusted_log_probabilities(logits, w).exp().numpy()
    np.testing.assert_allclose(found, by_hand(logits.numpy(), w.numpy()), atol=1e-3)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)


@pytest.mark.parametrize("kind", ["rbf", "linear"])
def test_no_step_raises_the_objective(kind, monkeypatch):
    logits, w = drawn(1, 12, 4), affinities(drawn(2, 12, 6), kind, 3)
    values = []
    for steps in range(8):
        monkeypatch.setattr("da.adapters.lame.ITERATIONS", steps)
        y = adjusted_log_probabilities(logits, w).exp().numpy()
        kl = (y * (np.log(y) - log_softmax(logits.numpy(), axis=1))).sum()
        agreement = sum(
            w[i, j].item() * (y[i] @ y[j]) for i in range(len(y)) for j in range(len(y))
        )
        values.append(kl - agreement / 2)
    assert np.all(np.diff(values) <= 1e-9)
    assert values[-1] < values[0]


def test_without_affinity_the_predictions_are_the_networks():
    logits = drawn(1, 5, 4)
    found = adjusted_log_probabilities(logits, torch.zeros(5, 5, dtype=torch.float64))
    np.testing.assert_allclose(found.numpy(), log_softmax(logits.numpy(), axis=1))


def test_a_doubtful_sample_follows_its_neighbours():
    features = torch.cat([torch.eye(2)[:1].repeat(4, 1), torch.eye(2)[1:].repeat(3, 1)])
    logits = torch.tensor([[3.0, 0.0]] * 3 + [[0.0, 0.2]] + [[0.0, 3.0]] * 3)
    found = adjusted_log_probabilities(logits, affinities(features, "knn", 2))
    assert found.argmax(dim=1).tolist() == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("kind", ["knn", "rbf", "linear"])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_few_and_equal_samples_stay_finite(kind, n):
    w = affinities(torch.ones(n, 3), kind, 5)
    assert w.shape == (n, n)
    assert w.isfinite().all()
    logits = torch.tensor([[90.0, -90.0, 0.0]]).repeat(n, 1)
    assert adjusted_log_probabilities(logits, w).exp().sum(dim=1).tolist() == pytest.approx([1] * n)


@pytest.mark.parametrize("norm", ["bn", "wa", "dsbn", "none"])
def test_the_network_stays_as_it_is_and_batches_know_nothing_of_each_other(norm):
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(n, 3, 32, 32, generator=generator) for n in (8, 1)]
    network = small(SourceOnly, norm=norm, seed=1).evaluated().train()
    before = copy.deepcopy(network.state_dict())
    found = list(LAME().predict(network, batches))
    assert torch.is_grad_enabled()
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert torch.equal(next(LAME().predict(network, batches[1:])), found[1])
    with torch.no_grad():
        out = network(batches[0])
        alone = network(batches[1]).logits.log_softmax(dim=1)
    expected = by_hand(out.logits.double().numpy(), affinities(out.features).double().numpy())
    np.testing.assert_allclose(found[0].exp().numpy(), expected, atol=1e-3)
    torch.testing.assert_close(found[1], alone)  # one image has no neighbours


def test_options_are_refused_in_one_line():
    refused(lambda: adapter("LAME", {"affinity": "cosine"}), "affinity 'cosine'", "knn", "linear")
    for affinity, least in (("knn", 1), ("rbf", 2)):
        options = {"affinity": affinity, "neighbours": least - 1}
        refused(
            lambda options=options: adapter("LAME", options),
            f"LAME: neighbours: expected a whole number from {least} with affinity {affinity}",
        )
        assert adapter("LAME", {**options, "neighbours": least}).neighbours == least
        assert adapter("LAME", {"affinity": affinity}).neighbours == 5
    for number in (3, 5):
        options = {"affinity": "linear", "neighbours": number}
        refused(lambda options=options: adapter("LAME", options), f"neighbours {number}", "linear")
