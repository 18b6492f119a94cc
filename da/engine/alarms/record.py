"""What an alarm says; read by reports, so nothing heavy is imported here."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

AlarmName = Literal[
    "critic-at-chance",
    "critic-perfect",
    "loss-without-gradient",
    "one-class",
    "growing-features",
    "falling-source",
]

LASTING = 2
"""Evaluations in a row that must show the same: a single bad one is often over at the next."""


class Verdict(NamedTuple):
    """An alarm, but for its place: see :class:`Alarm`."""

    name: AlarmName
    about: str
    text: str


class Alarm(BaseModel):
    """One thing that went on long enough to be said; each is said once in a training.

    Attributes:
        name: what kind it is.
        about: what it is of: ``"critic/accuracy"``, ``"loss/domain"``, ``"target/test"``.
        step: updates of the training that were made when it was raised.
        epoch: the epoch that this was in, from 1.
        text: the numbers, and what they mean.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: AlarmName
    about: str
    step: int = Field(ge=0)
    epoch: int = Field(ge=0)
    text: str

    def __str__(self) -> str:
        return f"{self.name} at step {self.step} (epoch {self.epoch}), {self.about}: {self.text}"
