"""What is kept of the predictions of one stream: accuracies, by class and in all, and confusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_confusion_matrix

from da.types import Predictions


def score_predictions(
    predictions: Predictions, classes: Sequence[str], by_class: bool = False
) -> dict[str, Any]:
    """What is kept of the predictions of one stream.

    Args:
        predictions: of the stream, with labels, without, or of some of its images.
        classes: names in the order of the labels.
        by_class: also keep ``per_class``, the accuracy of each class, None where it is absent, and
            ``confusion``, how often images of each class are taken for which.

    Returns:
        n; and where there are labels, of the images that have one: accuracy over the samples;
        class_mean, the mean of the accuracies of the classes that are present; cross_entropy in
        nats. n is then their number, and unlabelled that of the others, if any.
    """
    logits, labels = predictions.logits, predictions.labels
    known = torch.zeros(len(logits), dtype=torch.bool) if labels is None else labels >= 0
    if labels is None or not known.any():
        return {"n": len(logits)}
    logits, labels = logits[known], labels[known]
    # torchmetrics' macro average counts a class that is predicted but absent as 0, so the mean
    # is taken here, over the classes that are present.
    number = len(classes)
    per_class = multiclass_accuracy(logits, labels, num_classes=number, average=None)
    present = torch.bincount(labels, minlength=number) > 0
    measured: dict[str, Any] = {
        "n": len(labels),
        "accuracy": multiclass_accuracy(logits, labels, num_classes=number, average="micro").item(),
        "class_mean": per_class[present].mean().item(),
        "cross_entropy": F.cross_entropy(logits, labels).item(),
    }
    if rest := int((~known).sum()):
        measured["unlabelled"] = rest
    if by_class:
        values = zip(classes, per_class.tolist(), present.tolist(), strict=True)
        measured["per_class"] = {
            name: round(value, 6) if there else None for name, value, there in values
        }
        measured["confusion"] = _confusion(logits, labels, classes)
    return measured


def _confusion(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """By true and by predicted class the number of images, where there are any."""
    counts = multiclass_confusion_matrix(logits, labels, num_classes=len(classes))
    found: dict[str, dict[str, int]] = {}
    for true, predicted in counts.nonzero().tolist():
        found.setdefault(classes[true], {})[classes[predicted]] = int(counts[true, predicted])
    return found
