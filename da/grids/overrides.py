"""What some methods or tasks of a grid have otherwise: published settings differ by method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from da.grids.fields import Strict, names, split_task, truths

QUICK_STEPS = 5000
"""Steps of a run that is only to see whether a setting comes near to its published number."""


class Override(Strict):
    """Settings in place of the grid's, for some methods, some tasks, or some methods on some."""

    methods: tuple[str, ...] | None = Field(default=None, min_length=1)
    tasks: tuple[str, ...] | None = Field(default=None, min_length=1)
    lr: float | None = Field(default=None, gt=0)
    """In place of the grid's ``published_lr``."""
    epochs: int | None = Field(default=None, gt=0)
    steps_per_epoch: int | Literal["source", "target", "longest"] | None = None
    batch_size: int | None = Field(default=None, gt=0)
    model: dict[str, Any] = {}
    data_args: dict[str, Any] = {}

    @field_validator("methods", "tasks", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = (value,)
        if isinstance(value, (list, tuple)):
            names(value)
        return value

    @field_validator("tasks")
    @classmethod
    def _tasks(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return value and tuple("->".join(split_task(task)) for task in value)

    @field_validator("model", "data_args")
    @classmethod
    def _truths(cls, value: dict[str, Any]) -> dict[str, Any]:
        return truths(value)

    @model_validator(mode="after")
    def _useful(self) -> Override:
        if self.methods is None and self.tasks is None:
            raise ValueError("name the methods or the tasks that it is for")
        if not (self.given() or self.model or self.data_args):
            raise ValueError("it changes nothing")
        return self

    def given(self) -> dict[str, Any]:
        """The single settings that it replaces."""
        keys = ("lr", "epochs", "steps_per_epoch", "batch_size")
        return {key: value for key in keys if (value := getattr(self, key)) is not None}

    def covers(self, task: str, method: str) -> bool:
        """Whether it is for a method on a task."""
        mine = self.methods is None or method in self.methods
        return mine and (self.tasks is None or task in self.tasks)


class Resolved(Strict):
    """The settings of one method on one task, with all overrides."""

    lr: float
    epochs: int
    steps_per_epoch: int | Literal["source", "target", "longest"] | None
    batch_size: int
    model: dict[str, Any]
    data_args: dict[str, Any]


def resolve(base: Resolved, overrides: Sequence[Override], task: str, method: str) -> Resolved:
    """The grid's settings with the overrides that cover a method on a task, the last one wins."""
    found = base
    for override in overrides:
        if override.covers(task, method):
            found = found.model_copy(
                update={
                    **override.given(),
                    "model": {**found.model, **override.model},
                    "data_args": {**found.data_args, **override.data_args},
                }
            )
    return found


def quick_epochs(epochs: int, steps: int | str) -> int:
    """Epochs of at most 5,000 steps in all, and at least one; schedules stay as they are.

    >>> quick_epochs(20, 1000), quick_epochs(5, 500), quick_epochs(3, "longest")
    (5, 5, 1)
    """
    return min(epochs, max(1, QUICK_STEPS // steps)) if isinstance(steps, int) else 1
