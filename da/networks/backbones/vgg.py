"""VGGs of torchvision, with and without batch norm (Simonyan & Zisserman 2015)."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from da.networks.backbones.base import (
    Backbone,
    Preprocessing,
    build_torchvision_model,
    torchvision_preprocessing,
)


class VGG(Backbone):
    """A torchvision VGG without its last layer: the 4,096 features that its classifier reads.

    The names without ``_bn`` have no normaliser; ``bn`` inserts one only where asked
    (``--model.norm_options.insert true``).
    """

    names = ("vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn")

    library = "torchvision"
    head = "classifier.6"

    def __init__(self, name: str, weights: str | None = None):
        super().__init__(name, weights)
        self.network = build_torchvision_model(name, weights, head="classifier.6.")
        layers = cast(nn.Sequential, self.network.classifier)
        self.num_features = cast(nn.Linear, layers[-1]).in_features
        layers[-1] = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(B, num_features)`` of images ``(B, 3, H, W)``."""
        return self.network(images)

    def library_model(self) -> nn.Module:
        """See :meth:`Backbone.library_model`."""
        return self.network

    @classmethod
    def preprocessing(cls, name: str) -> Preprocessing | None:
        """See :meth:`Backbone.preprocessing`."""
        return torchvision_preprocessing(name)
