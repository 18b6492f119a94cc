"""Adaptive batch norm: one scale and shift, statistics of each domain."""

from __future__ import annotations

import copy

import pytest
import torch
from short_runs import digits, fit, small
from torch import nn
from torch.nn import functional as F

from da.errors import UserError
from da.methods.source_only import SourceOnly
from da.norms import normaliser
from da.norms.base import tell_domains
from da.types import Segment

BOTH = (Segment("source", 5), Segment("target", 3))


def test_each_domain_has_its_statistics_and_both_one_scale() -> None:
    norm = normaliser("adabn").apply(nn.BatchNorm2d(4))
    nn.init.uniform_(norm.source.weight)
    x = torch.randn(8, 4, 3, 2)
    x[5:] = 3 * x[5:] - 2
    tell_domains(norm, BOTH)
    found = norm(x)
    weight, bias = norm.source.weight, norm.source.bias
    apart = [F.batch_norm(part, None, None, weight, bias, True) for part in x.split((5, 3))]
    torch.testing.assert_close(found, torch.cat(apart))
    torch.testing.assert_close(norm.target.running_mean, 0.1 * x[5:].mean((0, 2, 3)))
    assert [name for name, _ in norm.named_parameters()] == ["source.weight", "source.bias"]


def test_copies_and_loaded_states_still_share_the_scale() -> None:
    norm = normaliser("adabn").apply(nn.BatchNorm2d(4))
    twin = copy.deepcopy(norm)
    twin.load_state_dict(norm.state_dict())
    assert twin.target.weight is twin.source.weight
    assert twin.target.weight is not norm.source.weight


def test_training_on_the_source_alone_is_refused() -> None:
    with pytest.raises(UserError, match="norm 'adabn' keeps something of the target, which Source"):
        fit(small(SourceOnly, norm="adabn"), digits())
