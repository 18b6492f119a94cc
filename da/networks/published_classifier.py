"""The classifier that pretrained weights were published with: a measure of what a change keeps."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from da.networks.backbones.base import Backbone, download_weights
from da.networks.weight_files import read_weight_file

Head = tuple[Tensor, Tensor | None]
"""Weight and bias of a classifier."""


def read_published_classifier(plain: Backbone, name: str, weights: str) -> Head | None:
    """Weight and bias of the classifier that the weights were published with, where they hold one.

    It is the one matrix in the file that is no part of the backbone and takes its features.

    Args:
        plain: the backbone as published.
        name: of the backbone.
        weights: ``imagenet`` or a file.

    Returns:
        None where the weights hold no classifier, or several.
    """
    path = weights
    if path == "imagenet":
        import torchvision.models as zoo

        try:
            path = download_weights(zoo.get_model_weights(name)["IMAGENET1K_V1"].url)
        except (ValueError, KeyError):  # not torchvision's
            return None
    state = read_weight_file(path).tensors
    own = {name for full in plain.state_dict() for name in (full, full.partition(".")[2])}
    classifiers = [
        (value.float(), state.get(f"{name.removesuffix('weight')}bias"))
        for name, value in state.items()
        if name not in own and name.endswith("weight") and value.shape[1:] == (plain.num_features,)
    ]
    return classifiers[0] if len(classifiers) == 1 else None


def prediction_agreement(
    plain: nn.Module, new: nn.Module, images: Tensor, head: Head | None
) -> float | None:
    """The share of images of which a classifier predicts the same from both networks' features."""
    if head is None or not len(images):
        return None
    weight, bias = (None if x is None else x.to(images) for x in head)
    equal = 0
    with torch.no_grad():
        for chunk in images.split(32):
            one, other = (
                F.linear(network.eval()(chunk), cast(Tensor, weight), bias).argmax(dim=1)
                for network in (plain, new)
            )
            equal += int((one == other).sum())
    return equal / len(images)
