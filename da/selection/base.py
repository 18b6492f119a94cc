"""Scores that rank checkpoints of a run without target labels."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from da.discovery import subclasses
from da.errors import unknown


class Score(ABC):
    """A number for a model from its predictions on unlabelled target images; higher is better."""

    @abstractmethod
    def __call__(self, logits: Tensor) -> Tensor:
        """The score, a scalar, of target logits ``(N, K)``."""


def score(name: str) -> Score:
    """The score of that class name, ``"InformationMaximisation"``.

    Raises:
        UserError: for a name that does not exist; lists those that do.
    """
    known = subclasses("da.selection", Score)
    if name not in known:
        raise unknown("score", name, known)
    return known[name]()
