"""The average of a network's weights; methods that evaluate one are tested in their own files."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from da.methods.weight_averaging import rate_of_average, update_average
from da.norms import normaliser
from da.norms.base import tell_domains
from da.types import Segment


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
            expected = [max(old + new)]
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


@pytest.mark.parametrize("name", ["bn", "brn", "adabn", "dsbn", "transnorm", "autodial", "rn"])
def test_every_parameter_and_statistic_is_averaged_once_under_every_normaliser(name):
    ours = normaliser(name).apply(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    theirs = copy.deepcopy(ours)
    with torch.no_grad():
        for tensor in {*theirs.parameters(), *theirs.buffers()}:
            tensor.add_(2)
    before = copy.deepcopy(ours.state_dict())
    update_average(ours, theirs, 0.75)
    for key, value in ours.state_dict().items():
        expected = before[key] + (0.5 if value.is_floating_point() else 2)
        torch.testing.assert_close(value, expected, msg=key)


def test_a_teacher_uses_the_statistics_of_a_domain_that_only_its_student_has_seen():
    student = normaliser("transnorm").apply(nn.BatchNorm2d(4))
    teacher = copy.deepcopy(student)
    source, target = torch.randn(8, 4, 3, 3), 2 + 3 * torch.randn(8, 4, 3, 3)
    tell_domains(student, (Segment("source", 8), Segment("target", 8)))
    student(torch.cat([source, target]))
    update_average(teacher, student, 0.5)
    tell_domains(teacher, (Segment("target", 8),))
    known = copy.deepcopy(teacher)
    known.source_batches.fill_(7)
    torch.testing.assert_close(teacher(target), known(target), rtol=0, atol=0)
