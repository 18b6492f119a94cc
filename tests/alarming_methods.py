"""Methods that go wrong in one way each, for tests of what trainings say of themselves."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from da.methods.base import Method
from da.methods.dann import DANN


class SoftmaxOfOne(DANN):
    """A critic that ends in a softmax over its only unit: it says 1 and has no gradient."""

    def build(self):
        super().build()
        self.critic = nn.Sequential(self.critic, nn.Softmax(dim=1))


class FarTarget(DANN):
    """The target lies where no gradient brings it back from."""

    def adaptation(self, source, target, batch):
        far = target._replace(features=target.features.detach() + 100)
        return super().adaptation(source, far, batch)


class Detached(Method):
    """A loss on features whose graph was cut off."""

    def adaptation(self, source, target, batch):
        return {"distance": (source.features - target.features).detach().square().mean()}


class HeadOnly(Method):
    """A loss that only a head of the method's own learns from."""

    def build(self):
        self.head = self.part("head", lambda: nn.Linear(self.num_features, 1))

    def adaptation(self, source, target, batch):
        return {"head": self.head(target.features.detach()).square().mean()}


class Late(Method):
    """A loss whose weight is 0 for the first part of a run."""

    def __init__(self, num_classes, until=0.4, **kwargs):
        super().__init__(num_classes, **kwargs)

    def adaptation(self, source, target, batch):
        weight = float(self.progress > self.hparams["until"])
        return {"norm": weight * 1e-3 * target.features.square().mean()}


class Inflating(Method):
    """Features are rewarded for being large."""

    def adaptation(self, source, target, batch):
        return {"size": -target.features.square().mean()}


class Forgetting(Method):
    """Half-way through, the labels of the source are unlearnt."""

    def adaptation(self, source, target, batch):
        if self.progress < 0.5:
            return {}
        return {"unlearning": -3 * F.cross_entropy(source.logits, batch.source.labels)}
