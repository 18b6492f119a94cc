"""Filter response normalisation against timm's class, and where its thresholds stand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from da.norms import normaliser
from da.norms.filter_response_norm import (
    FilterResponseNormLayer,
    RaisedThreshold,
    ThresholdedUnit,
)


def test_norm_and_unit_are_timms() -> None:
    layers = pytest.importorskip("timm.layers.filter_response_norm", reason="timm is missing")
    theirs = layers.FilterResponseNormTlu2d(6, eps=1e-6)
    model = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU())
    for mine, other in (("weight", "weight"), ("bias", "bias")):
        nn.init.uniform_(model[0].get_parameter(mine), -1, 1)
        getattr(theirs, other).data.copy_(model[0].get_parameter(mine))
    model = normaliser("frn").apply(model)
    nn.init.uniform_(model[1].threshold, -1, 1)
    theirs.tau.data.copy_(model[1].threshold)
    x = torch.randn(2, 6, 4, 3)
    torch.testing.assert_close(model(x), theirs(x))


def test_vectors_keep_scale_shift_and_threshold() -> None:
    model = normaliser("frn").apply(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU()))
    x = torch.randn(5, 3)
    torch.testing.assert_close(model(x), model[0](x).relu())
    nn.init.constant_(model[2].threshold, 0.3)
    torch.testing.assert_close(model(x), model[0](x).clamp(min=0.3))


def test_a_relu_that_is_called_in_several_places_gets_its_threshold_from_its_reader(
    make: Callable[[str], nn.Module],
) -> None:
    model = normaliser("frn").apply(make("resnet18")).eval()
    kinds = {n: type(m) for n, m in model.named_modules()}
    assert kinds["relu"] is ThresholdedUnit  # the stem's own
    assert kinds["layer1.0.relu"] is nn.ReLU
    assert kinds["layer1.0.conv2.0"] is RaisedThreshold
    assert kinds["layer1.0.conv2.1"] is nn.Conv2d
    raised = [m for m in model.modules() if isinstance(m, RaisedThreshold)]
    assert len(raised) == 4
    block, x = model.layer1[0], torch.randn(2, 64, 5, 5)
    nn.init.uniform_(block.conv2[0].threshold, -0.5, 0.5)
    # With the shift less the threshold, ReLU and raising are max(y, threshold).
    tau = block.conv2[0].threshold
    y = block.bn1(block.conv1(x)) + tau.view(-1, 1, 1)
    unit = torch.maximum(y, tau.view(-1, 1, 1))
    expected = (block.bn2(block.conv2[1](unit)) + x).relu()
    torch.testing.assert_close(block(x), expected)


def test_an_inserted_norm_has_its_unit_too(make: Callable[[str], nn.Module]) -> None:
    model = normaliser("frn", insert=True).apply(make("vgg"))
    assert sum(isinstance(m, FilterResponseNormLayer) for m in model.modules()) == 3
    assert sum(isinstance(m, ThresholdedUnit) for m in model.modules()) == 3


class BetweenNorms(nn.Module):
    """Calls a ReLU as a function between two batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


def test_a_threshold_stands_before_a_normaliser_that_reads_the_relu() -> None:
    model = normaliser("frn").apply(BetweenNorms())
    raised, norm = model.second
    assert isinstance(raised, RaisedThreshold)
    assert isinstance(norm, FilterResponseNormLayer)
    x = torch.randn(2, 3, 4, 4)
    nn.init.constant_(raised.threshold, 0.4)
    torch.testing.assert_close(model(x), norm(model.first(x).relu() + 0.4))
