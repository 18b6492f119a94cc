"""MDD: margin disparity discrepancy (Zhang et al. 2019, ICML, arXiv 1904.05801)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from da.errors import UserError, refuse_negative
from da.methods.base import Method
from da.ops.gradient_reversal import gradient_reversal
from da.ops.schedules import reversal_strength
from da.types import Activations, Batch


def source_disparity(classifier: Tensor, adversary: Tensor) -> Tensor:
    """How far the adversary is from predicting as the classifier does, a scalar from 0.

    mean[-log σ_y(f'(x))] with y = argmax f(x), σ being the softmax (Zhang et al. 2019, section 5,
    combined cross-entropy loss).

    Args:
        classifier: ``(B, K)`` float, the logits f(x). They get no gradient.
        adversary: ``(B, K)`` float, the logits f'(x).
    """
    return F.cross_entropy(adversary, classifier.argmax(dim=1))


def target_disparity(classifier: Tensor, adversary: Tensor) -> Tensor:
    """How far the adversary is from predicting anything else, a scalar from 0.

    mean[-log(1 - σ_y(f'(x)))] with y = argmax f(x) (Zhang et al. 2019, section 5, combined
    cross-entropy loss). 1 - σ_y is the share of the other classes in the sum of exponentials, so
    the logarithm comes from log-sum-exp, and its gradient stays within 1 where σ_y is 1: the
    authors' code takes the logarithm of the difference, the Transfer-Learning-Library adds 1e-6.

    Args:
        classifier: ``(B, K)`` float, the logits f(x), K at least 2. They get no gradient.
        adversary: ``(B, K)`` float, the logits f'(x).
    """
    predicted = F.one_hot(classifier.argmax(dim=1), adversary.shape[1]).bool()
    others = adversary.masked_fill(predicted, -torch.inf)
    return (adversary.logsumexp(dim=1) - others.logsumexp(dim=1)).mean()


def build_head(features: int, width: int, classes: int, dropout: float) -> nn.Sequential:
    """A classifier of two layers, features ``(B, features)`` to logits ``(B, classes)``."""
    return nn.Sequential(
        nn.Linear(features, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, classes)
    )


class MDD(Method):
    """An adversary that agrees with the classifier on the source and disagrees on the target.

    max over f' and min over the features of D = -margin · source disparity - target disparity
    (Zhang et al. 2019, section 5), in one update by a reversed gradient: the adversary f' is a
    second classifier on the same features. Neither disparity moves the classifier f itself.

    Where this differs from the published code: the bottleneck is that of all methods, without
    dropout, and layers start as PyTorch starts them.

    Args:
        trade_off: weight of both disparities. The strength of the reversal comes on top of it and
            acts on the features only.
        margin: gamma, the weight of the source's disparity relative to the target's. The paper
            uses 4 for Office-31, and varies it from 2 to 4.
        reversal_maximum: the strength that the schedule tends to, the paper's eta.
        reversal_gamma: how fast: lambda = maximum · (2 / (1 + exp(-gamma · progress)) - 1).
        bottleneck: width of the Linear-normaliser-ReLU before both classifiers; nothing for none.
        width: of the hidden layer of each of the two classifiers.
        dropout: share of that layer that is dropped in training.
    """

    small: ClassVar = {"width": 16, "dropout": 0.0}

    def __init__(
        self,
        num_classes: int,
        trade_off: float = 1.0,
        margin: float = 4.0,
        reversal_maximum: float = 0.1,
        reversal_gamma: float = 10.0,
        bottleneck: int | None = 1024,
        width: int = 1024,
        dropout: float = 0.5,
        **kwargs: Any,
    ):
        refuse_negative(reversal_maximum=reversal_maximum, reversal_gamma=reversal_gamma)
        if margin <= 0:
            raise UserError(f"margin: expected a number above 0, got {margin}")
        if width < 1:
            raise UserError(f"width: expected a whole number from 1, got {width}")
        if not 0 <= dropout < 1:
            raise UserError(f"dropout: expected a share from 0 up to but not 1, got {dropout}")
        super().__init__(num_classes, bottleneck=bottleneck, **kwargs)

    def build_classifier(self, features: int, classes: int) -> nn.Module:
        """Two layers, with dropout in between."""
        return build_head(features, self.hparams["width"], classes, self.hparams["dropout"])

    def build(self) -> None:
        """Builds the adversary: as the classifier is, from weights of its own."""
        self.adversary = self.part(
            "adversary",
            lambda: self.build_classifier(self.num_features, self.hparams["num_classes"]),
        )

    def adaptation(
        self, source: Activations, target: Activations, batch: Batch
    ) -> dict[str, Tensor]:
        """Both disparities; logs where the adversary agrees, and the strength of the reversal."""
        h = self.hparams
        strength = reversal_strength(self.progress, h["reversal_gamma"], h["reversal_maximum"])
        a_source, a_target = self.apply_part(
            self.adversary,
            (gradient_reversal(source.features, strength), "source"),
            (gradient_reversal(target.features, strength), "target"),
        )
        if self.logging:
            for domain, f, a in (("source", source, a_source), ("target", target, a_target)):
                agrees = f.logits.argmax(dim=1) == a.argmax(dim=1)
                self.log(f"adversary/agreement/{domain}", agrees.float().mean())
            self.log("adversary/reversal", strength)
        return {
            "source_disparity": h["trade_off"]
            * h["margin"]
            * source_disparity(source.logits, a_source),
            "target_disparity": h["trade_off"] * target_disparity(target.logits, a_target),
        }
