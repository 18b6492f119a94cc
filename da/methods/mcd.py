"""MCD: Maximum Classifier Discrepancy (Saito et al. 2018, CVPR, arXiv 1712.02560)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from da.errors import UserError, refuse_negative
from da.methods.base import Method, Step
from da.networks.network import Network, build_bottleneck
from da.ops.acceleration import without_autocast
from da.types import Activations, Batch

GENERATOR = ("network.backbone",)
CLASSIFIERS = (
    "network.bottleneck",
    "network.classifier",
    "second_bottleneck",
    "second_classifier",
)
OUTPUTS = ("classifier.first", "classifier.second")


def classifier_discrepancy(first: Tensor, second: Tensor) -> Tensor:
    """How far the predictions of two classifiers are apart, a scalar in [0, 2 / K].

    d(p1, p2) = 1/K Σ_k |p1_k - p2_k|, the mean over the samples (Saito et al. 2018, section 3.2,
    discrepancy loss). Divided by K, so its weight falls with the number of classes.

    Args:
        first: logits ``(B, K)`` float of one classifier.
        second: the same of the other.
    """
    return (first.softmax(dim=1) - second.softmax(dim=1)).abs().mean()


def class_balance(logits: Tensor) -> Tensor:
    """Cross-entropy of the uniform distribution and the mean prediction, a scalar from log K.

    -1/K Σ_k log p̄_k, p̄ = 1/B Σ_i p_i: smallest where all classes are predicted equally often. The
    supplement of Saito et al. 2018 prints Σ_k log p(y = k | x); this is what their code for VisDA
    computes, less its 1e-6 within the logarithm: here log p̄ comes from log-sum-exp.

    Args:
        logits: ``(B, K)`` float, B at least 1.
    """
    log_mean = torch.logsumexp(logits.log_softmax(dim=1), dim=0) - math.log(len(logits))
    return -log_mean.mean()


class MeanOfClassifiers(nn.Module):
    """The mean of two classifiers' logits, features ``(B, F)`` to ``(B, K)``.

    Its argmax is that of their sum, by which the published code evaluates.
    """

    def __init__(self, first: nn.Module, second: nn.Module):
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, features: Tensor) -> Tensor:
        """The mean of the logits."""
        mean: Tensor = (self.first(features) + self.second(features)) / 2
        return mean


class MCD(Method):
    """Two classifiers that disagree on the target, and a generator that makes them agree.

    The generator is the backbone; a classifier is a bottleneck and the layer after it. A batch
    makes 2 + ``generator_steps`` updates, each of which sees it anew:

    A. all parts learn the source;
    B. the classifiers learn the source and to disagree on the target;
    C. the generator learns to make them agree on the target, ``generator_steps`` times.

    Where this differs from the published code: its classifiers have three layers with dropout; its
    generator is updated without momentum; its digits are forwarded one domain at a time
    (``forward_mode: separate``), and step A leaves the target out.

    Args:
        trade_off: weight of the discrepancy in B and C. The paper has none; the
            Transfer-Learning-Library uses 10 for Office-31.
        generator_steps: updates C of a batch, the paper's n, which it varies from 2 to 4; the
            published code uses 4.
        balance: weight of :func:`class_balance` of both classifiers on the target, in A and B as
            in the published code (the supplement says B and C). The paper uses 0.01 for VisDA and
            none for digits; 0 leaves it out.
    """

    def __init__(
        self,
        num_classes: int,
        trade_off: float = 1.0,
        generator_steps: int = 4,
        balance: float = 0.01,
        **kwargs: Any,
    ):
        refuse_negative(balance=balance)
        if generator_steps < 1:
            raise UserError(
                f"generator_steps: expected a whole number from 1, got {generator_steps}"
            )
        super().__init__(num_classes, **kwargs)

    def build(self) -> None:
        """Builds the second classifier, and puts both behind the one generator."""
        h, network = self.hparams, self.network
        backbone: Any = network.backbone
        self.second_bottleneck: nn.Module = nn.Identity()
        if h["bottleneck"] is not None:
            self.second_bottleneck = self.part(
                "second_bottleneck",
                lambda: build_bottleneck(backbone.num_features, h["bottleneck"]),
                covered_as="bottleneck",
            )
        self.second_classifier = self.part(
            "second_classifier",
            lambda: self.build_classifier(self.num_features, h["num_classes"]),
        )
        mean = MeanOfClassifiers(
            nn.Sequential(network.bottleneck, network.classifier),
            nn.Sequential(self.second_bottleneck, self.second_classifier),
        )
        trained, evaluated = (
            Network(backbone, nn.Identity(), mean, taps, network.channels_last)
            for taps in (OUTPUTS, self.taps())
        )
        # In a tuple, so that their parts are registered, saved and updated once.
        self._composed = trained, evaluated

    def evaluated(self) -> Network:
        """The generator with the mean of both classifiers; its features are the generator's."""
        return self._composed[1]

    def steps(self, batch: Batch) -> Iterator[Step]:
        """A of all parts, B of the classifiers, and C of the generator, several times."""
        yield Step(lambda: self.source_losses(batch))
        yield Step(lambda: self.classifier_losses(batch), CLASSIFIERS)
        for _ in range(self.hparams["generator_steps"]):
            yield Step(lambda: self.generator_losses(batch), GENERATOR)

    def source_losses(self, batch: Batch) -> dict[str, Tensor]:
        """min_{G,F1,F2} L(X_s, Y_s) (Saito et al. 2018, section 3.3, step A), and the balance."""
        source, target = self._predict(batch)
        return self._source_terms(source, target, batch)

    def classifier_losses(self, batch: Batch) -> dict[str, Tensor]:
        """min_{F1,F2} L(X_s, Y_s) - L_adv(X_t) (section 3.3, step B), and the balance."""
        source, target = self._predict(batch)
        terms = self._source_terms(source, target, batch)
        return {**terms, "negative_discrepancy": -self._discrepancy(target)}

    def generator_losses(self, batch: Batch) -> dict[str, Tensor]:
        """min_G L_adv(X_t) (section 3.3, step C)."""
        _, target = self._predict(batch)
        return {"discrepancy": self._discrepancy(target)}

    def _predict(self, batch: Batch) -> list[Activations]:
        """Activations of source and target, both classifiers' logits among their taps."""
        assert batch.source is not None  # its only stage has a source
        return self.activations_of(
            (batch.source.images, "source"),
            (batch.target.images, "target"),
            network=self._composed[0],
        )

    def _source_terms(
        self, source: Activations, target: Activations, batch: Batch
    ) -> dict[str, Tensor]:
        assert batch.source is not None
        labels, weight = batch.source.labels, self.hparams["balance"]
        with without_autocast(source.features):
            tasks = [
                self.task_loss(source._replace(logits=source.taps[name]), labels)
                for name in OUTPUTS
            ]
            terms = {"task": tasks[0] + tasks[1]}
            if weight:
                first, second = (class_balance(target.taps[name]) for name in OUTPUTS)
                terms["balance"] = weight * (first + second)
        return terms

    def _discrepancy(self, target: Activations) -> Tensor:
        """L_adv(X_t), weighted."""
        with without_autocast(target.features):
            first, second = (target.taps[name] for name in OUTPUTS)
            return self.hparams["trade_off"] * classifier_discrepancy(first, second)
