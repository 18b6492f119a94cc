"""How a grid writes what the optimiser and the trainer do, for all of its cells or for some."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)

from da.engine.spec import TrainerSettings
from da.grids.fields import Strict

SHORTCUTS = ("gradient_clip_val", "gradient_clip_algorithm", "accumulate_grad_batches")
"""Settings of the trainer that may also stand beside ``trainer``."""


class Optimizer(Strict):
    """The optimiser and its schedule; what is left out is the method's default."""

    name: Literal["sgd", "adam", "adamw"] | None = None
    """``sgd`` with Nesterov's momentum, ``adam`` or ``adamw``; the default is ``sgd``."""
    momentum: float | None = Field(default=None, ge=0, lt=1)
    """Of SGD; the first beta of the others. The default is 0.9."""
    weight_decay: float | None = Field(default=None, ge=0)
    """Decay of weights per step, times the learning rate; the default is 1e-3."""
    decay: Literal["weights", "all"] | None = None
    """What decays: weights with two or more dimensions, or all parameters."""
    anneal_alpha: float | None = Field(default=None, ge=0)
    """The rate is lr (1 + alpha x progress)^-beta; 0 keeps it constant. The default is 10."""
    anneal_beta: float | None = Field(default=None, ge=0)
    """See ``anneal_alpha``; the default is 0.75."""
    warmup: float | None = Field(default=None, ge=0, le=1)
    """The share of progress over which the rate rises from a tenth to the whole; default 0."""
    horizon: int | None = Field(default=None, gt=0)
    """Progress is step / horizon instead of step / all steps of the training."""

    def arguments(self) -> dict[str, Any]:
        """The arguments of a method that these settings are; only those that are set."""
        written = self.model_dump(exclude_unset=True)
        if "name" in written:
            written["optimizer"] = written.pop("name")
        return written


class TrainingKeys(Strict):
    """Keys that a grid and each of its overrides have in common."""

    optimizer: Optimizer = Optimizer()
    """A name (``adam``), or settings of the optimiser."""
    gradient_clip_val: float | None = Field(default=None, gt=0)
    """Largest norm (or value) of the gradient, 5 where left out; null for any."""
    gradient_clip_algorithm: Literal["norm", "value"] | None = None
    """Clip the norm of all gradients, or each value."""
    accumulate_grad_batches: int | None = Field(default=None, gt=0)
    """Batches whose gradients are averaged for one update."""
    trainer: TrainerSettings = TrainerSettings()
    """Options of the trainer that change what is computed."""

    @field_validator("optimizer", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _as_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Null says something of these, and is not what was left out."""
        written: dict[str, Any] = handler(self)
        left_out = set(SHORTCUTS) - self.model_fields_set
        return {key: value for key, value in written.items() if key not in left_out}

    def doubles(self) -> list[str]:
        """Settings that stand in two places, a line each."""
        twice = [f"{key} and trainer.{key}" for key in SHORTCUTS if self._stands_twice(key)]
        arguments = self.optimizer.arguments()
        model = getattr(self, "model", {})
        twice += [
            f"optimizer.{'name' if key == 'optimizer' else key} and model.{key}"
            for key in arguments
            if key in model
        ]
        return [f"{both}: give one of the two" for both in twice]

    def _stands_twice(self, key: str) -> bool:
        return key in self.model_fields_set and key in self.trainer.model_fields_set

    def trainer_settings(self) -> dict[str, Any]:
        """Those options of the trainer that are set here, by Lightning's names."""
        beside = {k: getattr(self, k) for k in SHORTCUTS if k in self.model_fields_set}
        # None stands for the default where an option can't be None.
        fields = TrainerSettings.model_fields
        beside = {
            k: fields[k].default if v is None and k != "gradient_clip_val" else v
            for k, v in beside.items()
        }
        within = self.trainer.model_dump(exclude_unset=True)
        return {**beside, **within}
