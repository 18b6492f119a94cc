"""What some methods or tasks of a grid have otherwise: published settings differ by method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from da.engine.spec import TrainerSettings
from da.grids.fields import Strict, check_tasks, names, split_task, truths
from da.grids.training_keys import TrainingKeys

Steps = Annotated[int, Field(gt=0)] | Literal["source", "target", "longest"]
"""Steps of an epoch: a number, or the length of a domain, or of the longer one."""

QUICK_STEPS = 5000
"""Steps of a run that is only to see whether a setting comes near to its published number."""


class Override(TrainingKeys):
    """Settings in place of the grid's, for some methods, some tasks, or some methods on some."""

    methods: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The methods that it is for; all where left out."""
    tasks: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The tasks that it is for, each ``source->target``; all where left out."""
    lr: float | None = Field(default=None, gt=0)
    """In place of the grid's ``published_lr``, or of the number under its ``lr``."""
    epochs: int | None = Field(default=None, gt=0)
    """In place of the grid's."""
    steps_per_epoch: Steps | None = None
    """In place of the grid's."""
    batch_size: int | None = Field(default=None, gt=0)
    """In place of the grid's."""
    model: dict[str, Any] = {}
    """Arguments of methods, besides the grid's or in place of them."""
    data_args: dict[str, Any] = {}
    """Arguments of the data, besides the grid's or in place of them."""

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
        check_tasks(value or ())
        return value and tuple("->".join(split_task(task)) for task in value)

    @field_validator("model", "data_args")
    @classmethod
    def _truths(cls, value: dict[str, Any]) -> dict[str, Any]:
        return truths(value)

    @model_validator(mode="after")
    def _useful(self) -> Override:
        problems = self.doubles()
        if self.methods is None and self.tasks is None:
            problems.append("name the methods or the tasks that it is for")
        changes = self.replaced() or self.model or self.data_args or self.trainer_settings()
        if not (changes or self.optimizer.arguments()):
            problems.append("it changes nothing")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def replaced(self) -> dict[str, Any]:
        """The single settings that stand in place of the grid's."""
        keys = ("lr", "epochs", "steps_per_epoch", "batch_size")
        return {key: value for key in keys if (value := getattr(self, key)) is not None}

    def covers(self, task: str, method: str) -> bool:
        """Whether it is for a method on a task."""
        mine = self.methods is None or method in self.methods
        return mine and (self.tasks is None or task in self.tasks)


class Resolved(Strict):
    """The settings of one method on one task, with all overrides."""

    lr: float | None
    epochs: int
    steps_per_epoch: Steps | None
    batch_size: int
    model: dict[str, Any]
    """Arguments of the method, those of the optimiser among them."""
    data_args: dict[str, Any]
    trainer: dict[str, Any]

    def trainer_settings(self) -> TrainerSettings:
        """The trainer's, with its defaults for what is not set."""
        return TrainerSettings(**self.trainer)


def resolve(base: Resolved, overrides: Sequence[Override], task: str, method: str) -> Resolved:
    """The grid's settings with the overrides that cover a method on a task, the last one wins."""
    settings = base
    for override in overrides:
        if override.covers(task, method):
            arguments = {**override.model, **override.optimizer.arguments()}
            settings = settings.model_copy(
                update={
                    **override.replaced(),
                    "model": {**settings.model, **arguments},
                    "data_args": {**settings.data_args, **override.data_args},
                    "trainer": {**settings.trainer, **override.trainer_settings()},
                }
            )
    return settings


def quick_epochs(epochs: int, steps: int | str) -> int:
    """Epochs of at most 5,000 steps in all, and at least one; schedules stay as they are.

    >>> quick_epochs(20, 1000), quick_epochs(5, 500), quick_epochs(3, "longest")
    (5, 5, 1)
    """
    return min(epochs, max(1, QUICK_STEPS // steps)) if isinstance(steps, int) else 1
