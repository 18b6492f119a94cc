"""What the data are told of preprocessing: how pretrained weights expect images to look."""

from __future__ import annotations

import logging
from typing import Any

from da.networks.backbones.base import preprocessing_of
from da.types import DataModule

log = logging.getLogger(__name__)


def adopt_preprocessing(data: DataModule, backbone: str, weights: str | None) -> None:
    """Has the data prepare images as a backbone's weights expect them; to be called before setup.

    What the user has set stays; one line says where it differs from what the weights expect.

    Args:
        data: the data module.
        backbone: name of the network.
        weights: ``imagenet``, a file, or None for random ones, which expect nothing.
    """
    expected = preprocessing_of(backbone, weights)
    if expected is None:
        return
    data.adopt(*expected)
    preferences = data.preferences
    published = {"image_size": expected.size, "mean": expected.mean, "std": expected.std}
    for name, value in published.items():
        set_to = preferences.get(name)
        chosen = tuple(set_to) if isinstance(set_to, list | tuple) else set_to
        if chosen is not None and chosen != value:
            log.warning(
                "data.%s is %s, and the weights of %s were trained with %s; yours is used",
                *(name, chosen, backbone, value),
            )


def describe_preprocessing(data: DataModule) -> dict[str, Any]:
    """How images are normalised and which size they have, for the result."""
    return {"mean": list(data.mean), "std": list(data.std), "image_size": data.image_size}
