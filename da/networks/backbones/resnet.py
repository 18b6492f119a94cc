"""ResNets of torchvision (He et al. 2016; Xie et al. 2017; Zagoruyko & Komodakis 2016)."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from da.networks.backbones.base import (
    Backbone,
    Preprocessing,
    build_torchvision_model,
    torchvision_preprocessing,
)


class ResNet(Backbone):
    """A torchvision ResNet without its classifier: features after global average pooling."""

    names = (
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnet152",
        "resnext50_32x4d",
        "resnext101_32x8d",
        "wide_resnet50_2",
        "wide_resnet101_2",
    )

    library = "torchvision"
    head = "fc"

    def __init__(self, name: str, weights: str | None = None):
        super().__init__(name, weights)
        self.network = build_torchvision_model(name, weights, head="fc.")
        self.num_features = cast(nn.Linear, self.network.fc).in_features
        self.network.fc = nn.Identity()

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
