"""torch's synchronised batch norm: on a CPU it is refused by name, on a GPU it is batch norm."""

from __future__ import annotations

import copy

import pytest
import torch
from short_runs import digits, fit, small
from torch import nn

from da.errors import UserError
from da.methods.source_only import SourceOnly
from da.norms import normaliser


def test_it_takes_over_parameters_and_statistics() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=1e-3, momentum=0.3))
    plain(torch.randn(4, 3, 5, 5))
    state, weight = copy.deepcopy(plain.state_dict()), plain[1].weight
    model = normaliser("bn-sync").apply(plain)
    assert type(model[1]) is nn.SyncBatchNorm
    assert model[1].weight is weight
    assert (model[1].eps, model[1].momentum) == (1e-3, 0.3)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_a_training_on_the_cpu_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="norm 'bn-sync' needs a GPU, and this training runs on"):
        fit(small(SourceOnly, norm="bn-sync"), digits())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device")
def test_on_one_gpu_it_is_batch_norm() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).cuda()
    model = normaliser("bn-sync").apply(copy.deepcopy(plain))
    x = torch.randn(8, 3, 6, 6, device="cuda")
    torch.testing.assert_close(model(x), plain(x))
    torch.testing.assert_close(model.state_dict(), plain.state_dict())
