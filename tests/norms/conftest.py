"""Small networks of torchvision's families, and bare layers, each with an input."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from long_cases import rest_long
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small
from torchvision.models.densenet import DenseNet
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.vgg import VGG, make_layers

IMAGES = (3, 32, 32)


def vgg(batch_norm: bool) -> nn.Module:
    with torch.device("meta"):  # its classifier alone has 120 million weights
        model = VGG(make_layers([8]), init_weights=False)
    model.features = make_layers([8, "M", 16, 16, "M"], batch_norm=batch_norm)
    model.avgpool = nn.AdaptiveAvgPool2d(7)
    model.classifier = nn.Sequential(nn.Linear(16 * 49, 5))
    return model


def layer(module: nn.Module, norm: nn.Module) -> nn.Module:
    return nn.Sequential(module, norm)


BUILDERS = {
    "conv1d": (lambda: layer(nn.Conv1d(4, 6, 3, padding=1), nn.BatchNorm1d(6)), (4, 8)),
    "conv2d": (lambda: layer(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)), (4, 8, 8)),
    "conv3d": (lambda: layer(nn.Conv3d(2, 4, 2), nn.BatchNorm3d(4)), (2, 4, 4, 4)),
    "grouped": (lambda: layer(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)), (4, 8, 8)),
    "depthwise": (lambda: layer(nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8)), (4, 8, 8)),
    "linear": (lambda: layer(nn.Linear(7, 5), nn.BatchNorm1d(5)), (7,)),
    "resnet18": (lambda: ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5), IMAGES),
    "resnet50": (lambda: ResNet(Bottleneck, [2, 1, 1, 1], 5, width_per_group=8), IMAGES),
    "vgg": (lambda: vgg(batch_norm=False), IMAGES),
    "vgg_bn": (lambda: vgg(batch_norm=True), IMAGES),
    "densenet": (lambda: DenseNet(8, (2, 2), 16, drop_rate=0.0, num_classes=5), IMAGES),
    "mobilenet_v3": (
        lambda: mobilenet_v3_small(width_mult=0.35, dropout=0.0, num_classes=5),
        IMAGES,
    ),
}


def build(name: str) -> nn.Module:
    """A network with batch norms whose scales and shifts are not those of the start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = BUILDERS[name][0]()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.2, 0.2)
    return model


def inputs(name: str, batch: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(batch, *BUILDERS[name][1], generator=generator)


@pytest.fixture(params=BUILDERS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    """A network with batch norm (but for the plain VGG) and a batch of four for it."""
    return build(request.param), inputs(request.param)


@pytest.fixture(params=rest_long(BUILDERS, ("conv1d", "grouped", "linear", "resnet18", "vgg_bn")))
def some_case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    """As ``case``, where each takes long; all of them in the long tests."""
    return build(request.param), inputs(request.param)


@pytest.fixture(params=[name for name, (_, shape) in BUILDERS.items() if shape is not IMAGES])
def bare(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    """One layer with its batch norm and a batch of two for it."""
    return build(request.param), inputs(request.param, 2)


@pytest.fixture
def make() -> Callable[[str], nn.Module]:
    """Builds a network by its name in ``BUILDERS``."""
    return build


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
