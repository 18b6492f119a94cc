"""Networks for digits: a small ResNet, and the two that the digits benchmarks were published with.

All take three channels, so that every domain fits every network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from da.networks.backbones.base import Backbone, load_weights


class DigitsResNet(Backbone):
    """A ResNet for 32 × 32 images with batch norm: a stem and two basic blocks, 42,000 weights.

    Stem: 3 × 3, 16 channels, stride 2; blocks of 24 and 48 channels, stride 2 each; global average.
    Small enough to train in seconds on one core, deep enough to have residual branches.
    """

    names = ("digits_resnet",)

    def __init__(self, name: str = "digits_resnet", weights: str | None = None):
        super().__init__(name, weights)
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.blocks = nn.Sequential(_block(16, 24), _block(24, 48))
        self.num_features = 48
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if weights is not None:
            load_weights(self, weights)

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(B, 48)`` of images ``(B, 3, H, W)``."""
        return self.blocks(self.stem(images)).mean(dim=(2, 3))


def _block(inputs: int, outputs: int) -> BasicBlock:
    shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs))
    return BasicBlock(inputs, outputs, stride=2, downsample=shortcut)


class LeNet(Backbone):
    """LeNet for MNIST ↔ USPS as the adaptation benchmarks use it: 28 × 28, grey, no normaliser.

    Colour images are averaged over their channels and other sizes resized bilinearly, so that the
    network is the published one on every domain. ``bn`` inserts normalisers only where asked.
    """

    names = ("lenet",)

    def __init__(self, name: str = "lenet", weights: str | None = None):
        super().__init__(name, weights)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 20, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(20, 50, 5),
            nn.Dropout2d(0.5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.num_features = 50 * 4 * 4
        if weights is not None:
            load_weights(self, weights)

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(B, 800)`` of images ``(B, 3, H, W)``."""
        grey = F.interpolate(images.mean(dim=1, keepdim=True), size=(28, 28), mode="bilinear")
        return self.layers(grey)


class DTN(Backbone):
    """The network for SVHN → MNIST of the adaptation benchmarks: 32 × 32, colour, batch norm.

    Three convolutions of 64, 128 and 256 channels, 5 × 5, stride 2, with dropout of .1, .3 and .5.
    """

    names = ("dtn",)

    def __init__(self, name: str = "dtn", weights: str | None = None):
        super().__init__(name, weights)
        layers: list[nn.Module] = []
        for inputs, outputs, dropout in ((3, 64, 0.1), (64, 128, 0.3), (128, 256, 0.5)):
            layers += [
                nn.Conv2d(inputs, outputs, 5, stride=2, padding=2),
                nn.BatchNorm2d(outputs),
                nn.Dropout2d(dropout),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.num_features = 256 * 4 * 4
        if weights is not None:
            load_weights(self, weights)

    def example(self) -> Tensor:
        """An image: the path of :meth:`forward` depends on its size, which tracing can't know."""
        return torch.zeros(1, 3, 32, 32)

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(B, 4096)`` of images ``(B, 3, H, W)``."""
        if images.shape[-2:] != torch.Size((32, 32)):
            images = F.interpolate(images, size=(32, 32), mode="bilinear")
        return self.layers(images)
