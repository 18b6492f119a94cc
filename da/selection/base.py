"""Scores that rank networks of a run, or of several, without target labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from da.discovery import find_class, subclasses
from da.errors import UserError
from da.types import DataModule, Predictions, Split

PACKAGE = "da.selection"


@dataclass(frozen=True)
class Evidence:
    """What a score is computed from.

    Attributes:
        target: predictions on unlabelled images of the target; ``labels`` is None.
        source: predictions on the splits of the source that the score needs, with labels.
        seed: of whatever a score draws, so that it is the same again.
        images: gives batches ``(B, C, H, W)`` of the images that ``target`` is of, in its order.
        logits: gives logits ``(N, K)`` of batches of images that a score makes, such as mixtures.
    """

    target: Predictions
    source: Mapping[Split, Predictions]
    seed: int = 0
    images: Callable[[], Iterable[Tensor]] = tuple
    logits: Callable[[Iterable[Tensor]], Tensor] | None = None


class Score(ABC):
    """A number for a network; higher is better. One class per file, found by its name.

    Attributes:
        needs: splits of the source that it looks at. Those that an evaluation does not forward
            anyway are forwarded for it.
    """

    needs: ClassVar[tuple[Split, ...]] = ()

    @abstractmethod
    def __call__(self, evidence: Evidence) -> float:
        """The score."""


def available_scores() -> dict[str, type[Score]]:
    """Every score on disk, by class name."""
    return subclasses(PACKAGE, Score)


def find_score(name: str) -> Score:
    """The score of a class name, ``"InformationMaximisation"``, or of a dotted path.

    Raises:
        UserError: for a name that does not exist; lists those that do.
    """
    return find_class(name, PACKAGE, Score, "score")()  # type: ignore[type-abstract]


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
