"""Scores that rank networks of a run, or of several, without target labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from da.discovery import find_class, subclasses
from da.errors import UserError
from da.types import DataModule, Predictions, Split

PACKAGE = "da.selection"


def no_images(order: int | None) -> Iterable[tuple[Tensor, Tensor]]:
    """Stands for the images of evidence that has none."""
    raise UserError("this score mixes images of the target, and the evidence holds none (images)")


def no_logits(batches: Iterable[Tensor]) -> Tensor:
    """Stands for a network that is not at hand."""
    raise UserError("this score has a network look at images, and the evidence has none (logits)")


@dataclass(frozen=True)
class Evidence:
    """What a score is computed from.

    Attributes:
        target: predictions on unlabelled images of the target; ``labels`` is None.
        source: predictions on the splits of the source that the score needs, with labels.
        seed: of whatever a score draws, so that it is the same again.
        images: gives the images that ``target`` is of, in an order drawn from a seed, or in their
            own for None: batches ``(B, C, H, W)``, each with the positions ``(B,)`` int64 of its
            images in ``target``. What is not called costs nothing.
        logits: gives logits ``(N, K)`` of batches of images that a score makes, such as mixtures.
    """

    target: Predictions
    source: Mapping[Split, Predictions]
    seed: int = 0
    images: Callable[[int | None], Iterable[tuple[Tensor, Tensor]]] = no_images
    logits: Callable[[Iterable[Tensor]], Tensor] = no_logits


class LabelFreeScore:
    """What a score of one network and one of a set have in common. Higher is better.

    Attributes:
        needs: splits of the source that it looks at. Those that an evaluation does not forward
            anyway are forwarded for it.
        sees_target: whether it looks at the target at all.
    """

    needs: ClassVar[tuple[Split, ...]] = ()
    sees_target: ClassVar[bool] = True


class Score(LabelFreeScore, ABC):
    """A number for a network; higher is better. Found by its name."""

    @abstractmethod
    def __call__(self, evidence: Evidence) -> float:
        """The score."""


SetState = dict[str, Any]
"""What a :class:`SetScore` keeps of the networks so far: tensors, numbers, texts and lists of them,
for it is written into checkpoints."""


class SetScore(LabelFreeScore, ABC):
    """A number for each network of a set, which is compared with the others; higher is better.

    In a training the set is its evaluations, one set for each form of the network. Networks come
    one by one, and of those before there is only what the score has kept: as little as it can,
    since it lies in memory and in every checkpoint. Evidence holds the logits on the target and
    nothing else: features and images are missing, and it ``needs`` no source. Numbers of two sets
    don't compare.
    """

    @abstractmethod
    def extend(self, kept: SetState | None, evidence: Evidence) -> SetState:
        """What is kept of the networks so far and one more; ``kept`` stays as it is.

        Args:
            kept: of those before, None before the first.
            evidence: of the new one.
        """

    @abstractmethod
    def values(self, kept: SetState) -> list[float]:
        """The scores of all networks so far, in the order in which they came."""

    def __call__(self, evidence: Sequence[Evidence]) -> list[float]:
        """The scores of a whole set, at least one network, in the order of the networks."""
        kept: SetState | None = None
        for one in evidence:
            kept = self.extend(kept, one)
        return [] if kept is None else self.values(kept)


def available_scores() -> dict[str, type[LabelFreeScore]]:
    """Every score on disk, by class name."""
    return subclasses(PACKAGE, LabelFreeScore)


def find_score(name: str) -> Score | SetScore:
    """The score of a class name, ``"InformationMaximisation"``, or of a dotted path.

    Raises:
        UserError: for a name that does not exist; lists those that do.
    """
    score: Any = find_class(name, PACKAGE, LabelFreeScore, "score")()
    return score


def scores_of_targets() -> dict[str, type[LabelFreeScore]]:
    """Those on disk that look at the target and can compare two trainings, by class name."""
    return {
        name: score
        for name, score in available_scores().items()
        if score.sees_target and not issubclass(score, SetScore)
    }


def refuse_set_score(name: str) -> None:
    """Refuses a score that can't compare two trainings.

    Raises:
        UserError: also for a name of no score.
    """
    if isinstance(find_score(name), SetScore):
        raise UserError(
            f"{name} compares the evaluations of one training with one another, so it can't tell "
            f"which of two trainings is better; expected one of: {', '.join(scores_of_targets())}"
        )


def compares_trainings(name: str) -> bool:
    """Whether a score of two trainings can be compared; so of one whose class is not found."""
    try:
        return not isinstance(find_score(name), SetScore)
    except UserError:  # of a package that is not at hand
        return True


def refuse_unfit_scores(names: Sequence[str], data: DataModule) -> None:
    """Refuses scores that need source images which are not trained on, where there are none.

    Raises:
        UserError: also for a name of no score.
    """
    for name in names:
        if "validation" not in find_score(name).needs:
            continue
        train, apart = (data.set_of("source", split) for split in ("train", "validation"))
        if train.fingerprint() == apart.fingerprint():
            raise UserError(
                f"scores: {name} looks at source images that are not trained on, and of "
                f"'{data.source}' all are; hold some of them out (validation 0.2, an option of "
                "sets of image files), or choose another score"
            )
