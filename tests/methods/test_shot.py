"""SHOT: its pseudo-labels against scipy, its losses against numpy, and when labels are made."""

import numpy as np
import pytest
import pytorch_lightning as L
import torch
from refusing import refused
from scipy.spatial.distance import cdist
from scipy.special import log_softmax, softmax
from short_runs import digits, fit, small

from da.methods.shot import SHOT, centroid_labels
from da.types import Activations, Batch, Unlabelled


def by_hand(features, logits):
    """Centroids in a loop over the classes, the nearest by scipy."""
    p = softmax(logits, axis=1)
    z = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    z = np.stack([row / np.sqrt((row**2).sum()) for row in z])
    weights, labels = p, p.argmax(axis=1)
    for _ in range(2):
        used = sorted(set(labels.tolist()))
        centroids = [
            sum(w * row for w, row in zip(weights[:, k], z, strict=True)) / weights[:, k].sum()
            for k in used
        ]
        labels = np.array(used)[cdist(z, np.stack(centroids), "cosine").argmin(axis=1)]
        weights = np.eye(p.shape[1])[labels]
    return labels


def drawn(seed, n=60, classes=5, width=4, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, width, generator=generator, dtype=torch.float64)
    logits = scale * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return features, logits


@pytest.mark.parametrize("seed", range(5))
def test_pseudo_labels_agree_with_a_loop_and_scipy(seed):
    features, logits = drawn(seed)
    found = centroid_labels(features, logits)
    np.testing.assert_array_equal(found.numpy(), by_hand(features.numpy(), logits.numpy()))
    assert (found != logits.argmax(dim=1)).any()


def test_a_class_that_nothing_is_given_to_has_no_centroid():
    features, logits = drawn(0)
    logits[:, 2] = -30.0
    found = centroid_labels(features, logits)
    np.testing.assert_array_equal(found.numpy(), by_hand(features.numpy(), logits.numpy()))
    assert 2 not in found


def test_clear_clusters_correct_the_classifier():
    """Nine of ten images of each cluster are predicted rightly; their features speak for all."""
    truth = torch.arange(40) % 4
    features = 5 * torch.eye(4)[truth]
    predicted = truth.clone()
    predicted[:4] = (truth[:4] + 1) % 4
    found = centroid_labels(features, 3 * torch.eye(4)[predicted])
    assert torch.equal(found, truth)


@pytest.mark.parametrize("n", [1, 3])
def test_features_of_zeros_are_labelled_by_one_class(n):
    logits = torch.zeros(n, 4)
    logits[:, 3] = 1.0
    assert centroid_labels(torch.zeros(n, 2), logits).tolist() == [3] * n


def test_the_losses_agree_with_numpy():
    module = SHOT(num_classes=5, bottleneck=4)
    features, logits = drawn(1, n=6)
    module.prepare()
    module.remember(labels_of_target=torch.tensor([4, 0, 1, 2, 3, 4, 0, 1]))
    indices = torch.tensor([7, 0, 0, 3, 5, 2])
    batch = Batch(None, Unlabelled((features,), indices))
    terms = module.source_free(Activations(features, logits), batch)
    log_p = log_softmax(logits.numpy(), axis=1)
    p = np.exp(log_p)
    mean = p.mean(axis=0)
    information = -(p * log_p).sum(axis=1).mean() + (mean * np.log(mean)).sum()
    assert terms["negative_information"].item() == pytest.approx(information, rel=1e-12)
    labels = [1, 4, 4, 2, 4, 1]
    expected = -0.3 * np.mean([row[k] for row, k in zip(log_p, labels, strict=True)])
    assert terms["pseudo_labels"].item() == pytest.approx(expected, rel=1e-12)
    source = module.task_loss(Activations(features, logits), torch.tensor(labels)).item()
    smooth = [0.9 * row[k] + 0.1 * row.mean() for row, k in zip(log_p, labels, strict=True)]
    assert source == pytest.approx(-np.mean(smooth), rel=1e-12)


def test_gradients_are_finite_where_a_class_is_never_predicted():
    logits = torch.tensor([[90.0, -90.0, 0.0]] * 2, requires_grad=True)
    module = SHOT(num_classes=3)
    module.prepare()
    module.remember(labels_of_target=torch.tensor([1, 2]))
    batch = Batch(None, Unlabelled((logits,), torch.arange(2)))
    sum(module.source_free(Activations(logits, logits), batch).values()).backward()
    assert logits.grad.isfinite().all()


class Labels(L.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(pl_module.labels_of_target.clone())


def test_labels_are_made_once_an_epoch_of_all_of_the_target():
    module, labels, data = small(SHOT, norm="bn", seed=1), Labels(), digits()
    fit(module, data, epochs=4, callbacks=[labels])
    assert [len(x) for x in labels.seen[:6]] == [0] * 6
    of_epochs = labels.seen[6::3]
    for i, seen in enumerate(labels.seen[6:]):
        assert torch.equal(seen, of_epochs[i // 3])
    assert [len(x) for x in of_epochs] == [len(data.set_of("target", "train"))] * 2
    assert not torch.equal(*of_epochs)


def test_without_their_weight_no_labels_are_made():
    module, labels = small(SHOT, pseudo_labels=0.0), Labels()
    fit(module, epochs=2, callbacks=[labels])
    assert not any(len(x) for x in labels.seen)
    assert module.logged_terms == ["loss/negative_information"]


def test_a_negative_weight_is_refused():
    refused(lambda: small(SHOT, pseudo_labels=-1.0), "pseudo_labels: expected", "got -1")
