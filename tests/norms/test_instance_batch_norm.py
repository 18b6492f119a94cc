"""IBN-a: which layers are changed, and what each half of the channels computes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck, ResNet

from da.errors import UserError
from da.norms import batch_norms, normaliser
from da.norms.instance_batch_norm import InstanceBatchNormLayer


def test_halves_are_instance_and_batch_norm_with_what_was_there() -> None:
    norm = nn.BatchNorm2d(5)
    for tensor in (norm.weight, norm.bias, norm.running_var):
        nn.init.uniform_(tensor, 0.5, 1.5)
    x = torch.randn(4, 5, 6, 3)
    new = InstanceBatchNormLayer(norm)
    weight, bias = norm.weight, norm.bias
    for training in (True, False):
        whole = norm.train(training)(x)[:, 2:]
        found = new.train(training)(x)
        torch.testing.assert_close(found[:, 2:], whole)
        expected = F.instance_norm(x[:, :2], weight=weight[:2], bias=bias[:2])
        torch.testing.assert_close(found[:, :2], expected)


def test_the_first_norm_of_each_block_but_those_of_the_last_stage_is_changed() -> None:
    model = normaliser("ibn").apply(ResNet(Bottleneck, [2, 1, 1, 1], 5, width_per_group=8))
    changed = [n for n, m in model.named_modules() if isinstance(m, InstanceBatchNormLayer)]
    assert changed == ["layer1.0.bn1", "layer1.1.bn1", "layer2.0.bn1", "layer3.0.bn1"]
    assert len(batch_norms(model)) == 1 + 5 * 3 + 4


def test_of_a_network_without_blocks_the_first_half_is(make: Callable[[str], nn.Module]) -> None:
    model = normaliser("ibn").apply(make("vgg_bn"))
    assert sum(isinstance(m, InstanceBatchNormLayer) for m in model.modules()) == 2
    with pytest.raises(UserError, match="VGG has no batch norm on maps for 'ibn'"):
        normaliser("ibn").apply(make("vgg"))
