"""The average of a network's weights; methods that evaluate one are tested in their own files."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from da.methods.weight_averaging import rate_of_average, update_average


def test_the_average_agrees_with_a_naive_loop_over_every_number():
    ours = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()
    theirs = copy.deepcopy(ours)
    for network, seed in ((ours, 0), (theirs, 1)):
        network(torch.randn(6, 3, generator=torch.Generator().manual_seed(seed)).double())
    theirs(torch.ones(2, 3).double())
    with torch.no_grad():
        theirs[0].weight.mul_(-1.5)
    before, student = copy.deepcopy(ours.state_dict()), copy.deepcopy(theirs.state_dict())
    update_average(ours, theirs, 0.7)
    for name, value in ours.state_dict().items():
        old, new = before[name].flatten().tolist(), student[name].flatten().tolist()
        expected = [0.7 * a + 0.3 * b for a, b in zip(old, new, strict=True)]
        if name.endswith("num_batches_tracked"):
            expected = old
        assert value.flatten().tolist() == pytest.approx(expected, rel=1e-12), name
    assert all(torch.equal(v, student[k]) for k, v in theirs.state_dict().items())


def test_it_is_the_true_average_at_first_and_exponential_later():
    values = np.random.default_rng(0).normal(size=30)
    model, student = nn.Linear(1, 1).double(), nn.Linear(1, 1).double()
    nn.init.constant_(model.weight, values[0])
    exponential = None
    for step, value in enumerate(values[1:], start=1):
        nn.init.constant_(student.weight, value)
        update_average(model, student, rate_of_average(step, 0.9))
        true_average = values[: step + 1].mean()
        exponential = true_average if step <= 9 else 0.9 * exponential + 0.1 * value
        assert model.weight.item() == pytest.approx(exponential, rel=1e-12)
