"""Pseudo-labels: which are sure, and the loss with them, against numpy."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from da.methods.pseudo_labels import confidence_mask, pseudo_label_loss


def logits(seed, samples=12):
    generator = torch.Generator().manual_seed(seed)
    return 4 * torch.randn(samples, 5, generator=generator, dtype=torch.float64)


def test_mask_and_loss_agree_with_numpy():
    weak, strong = logits(0), logits(1)
    sure = softmax(weak.numpy(), axis=1).max(axis=1) > 0.9
    assert 0 < sure.sum() < len(sure)
    mask, labels = confidence_mask(weak, 0.9), weak.argmax(dim=1)
    assert mask.tolist() == sure.astype(float).tolist()
    log_p = log_softmax(strong.numpy(), axis=1)
    total = 0.0
    for i, row in enumerate(weak.numpy()):
        if sure[i]:
            total -= log_p[i, np.argmax(row)]
    expected = total / len(sure)  # of all samples
    assert pseudo_label_loss(strong, labels, mask).item() == pytest.approx(expected, rel=1e-12)


def test_without_a_threshold_all_samples_count():
    assert confidence_mask(logits(0), 0.0).tolist() == [1.0] * 12


@pytest.mark.parametrize("samples", [1, 4])
def test_where_no_sample_is_sure_loss_and_gradient_are_0(samples):
    strong = logits(1, samples).requires_grad_()
    mask = torch.zeros(samples, dtype=torch.float64)
    loss = pseudo_label_loss(strong, torch.zeros(samples, dtype=torch.int64), mask)
    loss.backward()
    assert loss.item() == 0
    assert strong.grad.abs().max() == 0


def test_the_loss_and_its_gradient_are_finite_for_a_label_that_is_impossible():
    strong = torch.tensor([[0.0, 1e4, -1e4]], requires_grad=True)
    loss = pseudo_label_loss(strong, torch.tensor([2]), torch.ones(1))
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert strong.grad.tolist() == [[0.0, 1.0, -1.0]]
