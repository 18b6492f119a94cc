"""What flows through the framework: images of two domains in, activations out."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Labelled(NamedTuple):
    """Images of the source domain with their labels.

    Attributes:
        images: ``(B, C, H, W)`` float32, normalised.
        labels: ``(B,)`` int64, from 0 to ``num_classes - 1``.
    """

    images: Tensor
    labels: Tensor


class Unlabelled(NamedTuple):
    """Images of the target domain. There is no field for labels, so none can leak into training.

    Attributes:
        images: ``(B, C, H, W)`` float32, normalised.
    """

    images: Tensor


class Batch(NamedTuple):
    """One training batch of both domains."""

    source: Labelled
    target: Unlabelled


class Activations(NamedTuple):
    """What the network computes for the images of one domain.

    Attributes:
        features: ``(B, F)`` float, the output of the bottleneck (of the backbone where there is
            none); what adversarial methods align.
        logits: ``(B, K)`` float, the output of the classifier.
    """

    features: Tensor
    logits: Tensor


class Predictions(NamedTuple):
    """What an evaluation collects of one stream.

    Attributes:
        logits: ``(N, K)`` float32 on the CPU.
        labels: ``(N,)`` int64 on the CPU.
        deviation: standard deviation over the samples of the features, mean over the features.
    """

    logits: Tensor
    labels: Tensor
    deviation: float

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor, features: Tensor) -> Predictions:
        """From logits ``(N, K)``, labels ``(N,)`` and features ``(N, F)`` of the same samples."""
        return cls(logits, labels, features.std(dim=0, unbiased=False).mean().item())
