"""Alarms that evaluations raise: one class for the target, growing features, a falling source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from da.engine.alarms.record import LASTING, Verdict
from da.types import Predictions

ONE_CLASS = 0.95
"""Share of the target's images from which one class is nearly all that is predicted."""

EARLIEST = 50
"""Steps before which a network that has not learnt the source either has merely not begun."""

REST = 0.25
"""What the other classes must have lost, too: they get less than this part of their share in the
source's labels. Where one class is nearly all of the source, it may well be of the target."""

LEARNT = 0.4
"""Where one evaluation alone must tell, how far the source must be learnt, on the way from the
accuracy of predicting that class everywhere (0) to all images right (1): a network that has hardly
begun to learn predicts one class, too, and has not collapsed."""

GROWTH = 20.0
"""Scale of the features, in that of the first evaluation, from which they have grown without bound.
Those of WA, which nothing standardises, grow up to nine times in runs that go well."""

UNIT = 1.0
"""The least scale that growth is counted from, that of standardised features: those that begin near
0 have to grow."""

HUGE = 1e4
"""Scale that is too large whatever was before: float16 ends at 65,504."""

FALL = 0.1
"""How far below its best the source's accuracy has fallen: five times what a report allows for."""


@dataclass(frozen=True)
class Evaluated:
    """What is kept of one evaluation of the network as trained.

    Attributes:
        step, epoch: when it was.
        label: the class that most test images of the target are predicted as.
        share: how many, a part of all.
        source_share: the part that this class is of the source's labels.
        scale: root mean square of the features, of the domain where it is larger.
        source_accuracy: on the source's test images.
        adapts: whether the batch before was trained on the source's labels and on something else.
            Where the source is left out on purpose, it may be forgotten.
    """

    step: int
    epoch: int
    label: str
    share: float
    source_share: float
    scale: float
    source_accuracy: float
    adapts: bool

    @property
    def is_one_class(self) -> bool:
        """Whether nearly all of the target is predicted as one class, and the source isn't."""
        return self.share >= ONE_CLASS and 1 - self.share < REST * (1 - self.source_share)

    @property
    def has_learnt(self) -> bool:
        """Whether the source's accuracy is well above that of one class for all images."""
        gain = self.source_accuracy - self.source_share
        return gain >= LEARNT * (1 - self.source_share)


def most_predicted(target: Predictions, source: Predictions) -> tuple[int, float, float]:
    """The class that most of the target is predicted as, its share, and its share of the source.

    No label of the target is read.

    Args:
        target: predictions on it, at least one.
        source: predictions on the source, with labels.
    """
    counts = target.logits.argmax(dim=1).bincount()
    label = int(counts.argmax())
    assert source.labels is not None  # the source always has them
    return (
        label,
        counts[label].item() / len(target.logits),
        (source.labels == label).float().mean().item(),
    )


def feature_scale(predictions: Predictions) -> float:
    """Root mean square of the features."""
    features = predictions.features
    return float(features.norm()) / max(1, features.numel()) ** 0.5


def judge_evaluations(seen: Sequence[Evaluated], last: bool = False) -> list[Verdict]:
    """The alarms that the last of some evaluations raises.

    Args:
        seen: all of the training so far, in order.
        last: whether none will follow: a collapse need not last then, where the source is learnt.
    """
    raised = [
        _one_class(seen[-LASTING:], last),
        _growing_features(seen),
        _falling_source(seen),
    ]
    return [one for one in raised if one is not None]


def _one_class(recent: Sequence[Evaluated], last: bool) -> Verdict | None:
    lasts = len(recent) == LASTING and all(one.is_one_class for one in recent)
    lasts = lasts and (recent[-1].has_learnt or recent[-1].step >= EARLIEST)
    ends = last and bool(recent) and recent[-1].is_one_class and recent[-1].has_learnt
    if not (lasts or ends):
        return None
    now = recent[-1]
    return Verdict(
        "one-class",
        "target/test",
        f"{100 * now.share:.1f} % of the images are predicted as '{now.label}', which is "
        f"{100 * now.source_share:.1f} % of the source; the classifier has collapsed there",
    )


def _growing_features(seen: Sequence[Evaluated]) -> Verdict | None:
    if not seen:
        return None
    first, now = max(seen[0].scale, UNIT), seen[-1].scale
    grows = len(seen) > 1 and now > seen[-2].scale and now >= GROWTH * first
    if not grows and not now >= HUGE:
        return None
    since = f"was {seen[0].scale:.3g} after step {seen[0].step} and " if len(seen) > 1 else ""
    return Verdict(
        "growing-features",
        "features",
        f"their root mean square {since}is {now:.3g} now; without a bound the loss will not "
        "stay finite",
    )


def _falling_source(seen: Sequence[Evaluated]) -> Verdict | None:
    if len(seen) <= LASTING:
        return None
    best = max(seen, key=lambda one: one.source_accuracy)
    bound = best.source_accuracy - FALL
    if not all(one.adapts and one.source_accuracy <= bound for one in seen[-LASTING:]):
        return None
    return Verdict(
        "falling-source",
        "source/test",
        f"its accuracy is {100 * seen[-1].source_accuracy:.1f} %, and was "
        f"{100 * best.source_accuracy:.1f} % at step {best.step}; adaptation costs what the source "
        "has taught",
    )
