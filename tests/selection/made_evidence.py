"""Evidence that is made up, for tests of scores."""

import torch

from da.selection.base import Evidence
from da.types import Predictions


def evidence(logits, features=None, source=None, seed=0):
    """Of some logits on the target; features are one zero each unless given."""
    features = torch.zeros(len(logits), 1) if features is None else features
    return Evidence(Predictions(logits, None, features), source or {}, seed)


def evidence_of_images(images, network, batch=4, seed=0, source=None):
    """Of images ``(N, C, H, W)``, which are the features, and a function that gives logits."""

    def shown(order):
        generator = torch.Generator().manual_seed(0 if order is None else order)
        drawn = torch.randperm(len(images), generator=generator)
        places = torch.arange(len(images)) if order is None else drawn
        for part in places.split(batch):
            yield images[part], part

    target = Predictions(network(images), None, images.flatten(1))
    return Evidence(target, source or {}, seed, shown, lambda x: torch.cat(list(map(network, x))))
