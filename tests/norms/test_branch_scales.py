"""No normaliser: residual branches start at 0, so that activations do not grow with depth."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from da.errors import UserError
from da.norms import normaliser
from da.norms.identity import BranchScale

Make = Callable[[str], nn.Module]


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", 4), ("resnet50", 5), ("densenet", 0)])
def test_each_branch_ends_in_a_factor_of_0(make: Make, name: str, blocks: int) -> None:
    model = normaliser("none").apply(make(name))
    factors = [m for m in model.modules() if isinstance(m, BranchScale)]
    assert len(factors) == blocks
    assert all(not factor.scale.any() for factor in factors)
    assert model(torch.randn(2, 3, 32, 32)).isfinite().all()


def test_a_block_starts_as_its_shortcut(make: Make) -> None:
    block = normaliser("none").apply(make("resnet18")).layer1[0]
    x = torch.randn(2, 64, 5, 5)
    torch.testing.assert_close(block(x), x.relu())
    with torch.no_grad():
        block.bn2.scale.fill_(1)
    plain = normaliser("none", residual="one").apply(make("resnet18")).layer1[0]
    assert isinstance(plain.bn2, nn.Identity)
    torch.testing.assert_close(block(x), plain(x))


def test_a_branch_that_ends_in_a_convolution_ends_in_its_factor() -> None:
    class PreActivation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))
            self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x
            for norm, conv in zip(self.norms, self.convs, strict=True):
                y = conv(norm(y).relu())
            return x + y

    x = torch.randn(2, 4, 5, 5)
    model = normaliser("none").apply(PreActivation())
    torch.testing.assert_close(model(x), x)
    end = model.convs[1]
    assert isinstance(end[1], BranchScale)

    with torch.no_grad():
        end[1].scale.fill_(-0.3)
    plain = end.plain()
    assert type(plain) is nn.Conv2d
    torch.testing.assert_close(plain(x), end(x))


def test_another_start_is_refused() -> None:
    with pytest.raises(UserError, match=r"unknown residual 'depth'.*ne of: one, zero"):
        normaliser("none", residual="depth")
