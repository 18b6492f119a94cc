"""Batch norm's statistics: found by name, re-estimated for a block, restored."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from da.errors import UserError
from da.norms import batch_norms, reestimated
from da.norms.base import DomainLayer

Make = Callable[[str], nn.Module]


def test_reestimated_statistics_are_those_of_the_images_and_go_away_again() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3), nn.Linear(3, 2)).double().train()
    model(torch.randn(8, 3).double())
    before = copy.deepcopy(model.state_dict())
    batches = [torch.randn(n, 3).double() * 2 + 5 for n in (6, 6, 4)]
    with reestimated(model, iter(batches)):
        assert not any(m.training for m in model.modules())
        sizes = np.array([6, 6, 4])
        for name, statistic in (("running_mean", torch.mean), ("running_var", torch.var)):
            each = np.stack([statistic(batch, 0).numpy() for batch in batches])
            expected = (each * sizes[:, None]).sum(0) / sizes.sum()
            np.testing.assert_allclose(getattr(model[1], name), expected, rtol=1e-12)
        assert torch.equal(model[2].weight, before["2.weight"])
        assert not any(p.grad is not None for p in model.parameters())
    assert all(m.training for m in model.modules())
    assert model[1].momentum == 0.1
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_reestimated_restores_after_errors_and_refuses_bad_batches() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3)).eval()
    before = copy.deepcopy(model.state_dict())
    for batches, match in (([], "no images came"), ([torch.randn(1, 3)], "2 images or more")):
        with pytest.raises(UserError, match=match), reestimated(model, batches):
            pass
    with pytest.raises(ZeroDivisionError), reestimated(model, [torch.randn(4, 3)]):
        raise ZeroDivisionError
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not model[0].training
    assert model[0].momentum == 0.1


def test_reestimated_leaves_networks_without_batch_norm_alone() -> None:
    calls: list[int] = []
    model = nn.Sequential(nn.Linear(3, 3))
    model.register_forward_hook(lambda *_: calls.append(1))
    with reestimated(model, [torch.randn(2, 3)]) as same:
        assert same is model
    assert not calls


def test_batch_norms_are_listed_by_name(make: Make) -> None:
    assert len(batch_norms(make("resnet18"))) == 12
    assert not batch_norms(make("vgg"))


class Told(nn.Module):
    """Notes what it is told of the domains of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.told: list[object] = []

    def forward(self, x: torch.Tensor, domains: object) -> torch.Tensor:
        self.told.append(domains)
        found: torch.Tensor = self.norm(x)
        return found


def test_a_model_is_told_the_domains_that_come_with_the_images() -> None:
    model = Told()
    batches = [(torch.randn(n, 3), name) for n, name in ((4, "source"), (2, "target"))]
    with reestimated(model, batches):
        assert model.told == ["source", "target"]
        mean = sum(x.sum(0) for x, _ in batches) / 6
        torch.testing.assert_close(model.norm.running_mean, mean)
    with (
        pytest.raises(UserError, match="one of 1 came"),
        reestimated(model, [(batches[0][0][:1], "")]),
    ):
        pass


class PerDomain(DomainLayer):
    """A batch norm for either domain."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({name: nn.BatchNorm1d(3) for name in ("source", "target")})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.norms["target"](x)
        return found


def test_batch_norms_that_a_layer_keeps_per_domain_are_left_as_they_are() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), PerDomain())
    assert list(batch_norms(model)) == ["0"]
    every = batch_norms(model, within_domain_layers=True)
    assert list(every) == ["0", "1.norms.source", "1.norms.target"]
    before = copy.deepcopy(model.state_dict())
    with reestimated(model, [torch.randn(8, 3) + 5]):
        inside = copy.deepcopy(model.state_dict())
    changed = {name for name in before if not torch.equal(before[name], inside[name])}
    assert changed == {"0.running_mean", "0.running_var", "0.num_batches_tracked"}
