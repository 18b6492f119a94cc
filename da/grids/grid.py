"""A grid of cells, as a YAML file describes it."""

from __future__ import annotations

import hashlib
import itertools
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from da.engine.spec import RunSpec
from da.errors import unknown
from da.grids.fields import Strict, distinct, names, split_task, truths
from da.grids.overrides import Override, Resolved, quick_epochs, resolve

Row = Literal["tuned", "published"]
ROWS: tuple[Row, ...] = ("tuned", "published")
REFERENCE_BATCH = 32
DEFAULT_FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)


class Tune(Strict):
    """How the learning rate is tuned: never on the seeds of the table or with target labels."""

    factors: tuple[float, ...] = Field(default=DEFAULT_FACTORS, min_length=1)
    """The tried rates are the published one times these."""
    seeds: tuple[int, ...] = Field(default=(100, 101), min_length=1)
    task: str | None = None
    """``source->target``; the data class's own development task where not given."""


class Grid(Strict):
    """Tasks x methods x normalisers x swept settings x seeds, with one budget for all."""

    data: str
    data_args: dict[str, Any] = {}
    tasks: Literal["all"] | tuple[str, ...] = "all"
    methods: dict[str, dict[str, Any]] = Field(min_length=1)
    norms: dict[str, dict[str, Any]] = Field(min_length=1)
    model: dict[str, Any] = {}
    sweep: dict[str, tuple[Any, ...]] = {}
    """``batch_size`` or ``model.<argument>`` to the values that it takes."""
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    batch_size: int = Field(default=REFERENCE_BATCH, gt=0)
    epochs: int = Field(gt=0)
    steps_per_epoch: int | Literal["source", "target", "longest"] | None = None
    samples: int | None = Field(default=None, gt=0)
    """Samples of each domain seen in all, instead of ``steps_per_epoch``."""
    lr: tuple[Row, ...] = Field(default=("tuned",), min_length=1)
    """The rows of the table."""
    published_lr: float = Field(gt=0)
    lr_scaling: Literal["none", "linear"] = "none"
    """``linear``: the published rate is that of a batch of 32 and grows with the batch."""
    tuned: str | None = None
    """The table of tuned rates, relative to the YAML file."""
    tune: Tune = Tune()
    overrides: tuple[Override, ...] = ()
    """What some methods or tasks have otherwise; of two for the same, the last one wins."""
    forms: bool = True
    """Evaluate batch norm with re-estimated statistics after every epoch, too."""
    quick: bool = False
    """At most 5,000 steps of every training, under the same schedules."""
    threads: int = Field(default=1, gt=0)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Images are float32, and weights stay so: the forms are evaluated with them as they are."""
    device: str = "cpu"

    @field_validator("methods", "norms", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """A list of names, or names with their options."""
        if isinstance(value, (list, tuple)):
            names(value)
            return {name: {} for name in value}
        if isinstance(value, dict):
            names(value)
            return {name: {} if options is None else options for name, options in value.items()}
        return value

    @field_validator("data_args", "model", "methods", "norms")
    @classmethod
    def _truths(cls, value: dict[str, Any]) -> dict[str, Any]:
        return truths(value)

    @field_validator("sweep")
    @classmethod
    def _swept_truths(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key, options in value.items():
            for option in options:
                truths({key.removeprefix("model."): option})
        return value

    @field_validator("tasks", mode="before")
    @classmethod
    def _tasks(cls, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            names(value)
            for task in value:
                split_task(task)
            distinct("tasks", list(value))
        return value

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 0:
            raise ValueError(f"seeds are whole numbers from 0, got {min(value)}")
        distinct("seeds", list(value))
        return value

    @field_validator("lr", mode="before")
    @classmethod
    def _rows(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Grid:
        if (self.steps_per_epoch is None) == (self.samples is None):
            raise ValueError("give one of steps_per_epoch and samples")
        if self.precision == "16-mixed" and self.device == "cpu":
            raise ValueError("precision: 16-mixed needs a GPU; on a cpu give bf16-mixed or 32-true")
        if common := sorted(set(self.tune.seeds) & set(self.seeds)):
            raise ValueError(f"tune.seeds must be outside the table's seeds, both hold {common}")
        for key, values in self.sweep.items():
            if key != "batch_size" and not key.startswith("model."):
                raise ValueError(f"sweep: '{key}' is not batch_size or model.<argument>")
            if not values:
                raise ValueError(f"sweep: '{key}' has no values")
        for number, override in enumerate(self.overrides):
            self._compatible(f"overrides.{number}", override)
        for point in self.points():
            for tasks, methods in (
                (None, None),
                *((override.tasks, override.methods) for override in self.overrides),
            ):
                self.length(
                    self.resolved((tasks or ("",))[0], (methods or ("",))[0], point),
                )
        return self

    def _compatible(self, where: str, override: Override) -> None:
        """Refuses an override of what is swept or follows from something else."""
        swept = {key for key in self.sweep if key == "batch_size" and override.batch_size}
        swept |= {key for key in self.sweep if key.removeprefix("model.") in override.model}
        if swept:
            raise ValueError(f"{where}: {', '.join(sorted(swept))} is swept")
        if self.samples is not None and override.steps_per_epoch is not None:
            raise ValueError(f"{where}: steps_per_epoch follows from samples")

    def points(self) -> list[dict[str, Any]]:
        """The combinations of the swept settings; one empty point where nothing is swept."""
        names = list(self.sweep)
        return [
            dict(zip(names, values, strict=True))
            for values in itertools.product(*(self.sweep[name] for name in names))
        ]

    def resolved(self, task: str, method: str, point: dict[str, Any]) -> Resolved:
        """The settings of a method on a task at a point, with the overrides for it."""
        base = Resolved(
            lr=self.published_lr,
            epochs=self.epochs,
            steps_per_epoch=self.steps_per_epoch,
            batch_size=self.batch_size,
            model=self.model,
            data_args=self.data_args,
        )
        found = resolve(base, self.overrides, task, method)
        swept = {key[6:]: value for key, value in point.items() if key.startswith("model.")}
        batch_size = point.get("batch_size", found.batch_size)
        model = {**found.model, **swept}
        return found.model_copy(update={"batch_size": batch_size, "model": model})

    def length(
        self, settings: Resolved
    ) -> tuple[int, int | Literal["source", "target", "longest"]]:
        """Epochs, and steps of each."""
        epochs, steps = settings.epochs, settings.steps_per_epoch
        if self.samples is not None:
            steps, rest = divmod(self.samples, settings.batch_size * epochs)
            if rest or not steps:
                raise ValueError(
                    f"samples: {self.samples} is not a multiple of batch size "
                    f"{settings.batch_size} x {epochs} epochs"
                )
        assert steps is not None  # for mypy: validated
        return (quick_epochs(epochs, steps), steps) if self.quick else (epochs, steps)

    def steps(self, batch_size: int) -> int | Literal["source", "target", "longest"]:
        """Steps per epoch for a batch size, where nothing is overridden."""
        return self.length(self.resolved("", "", {"batch_size": batch_size}))[1]

    def rule_lr(self, batch_size: int, lr: float | None = None) -> float:
        """The published rate, scaled to the batch where the grid says so."""
        lr = self.published_lr if lr is None else lr
        return lr * batch_size / REFERENCE_BATCH if self.lr_scaling == "linear" else lr

    def published(self, task: str, method: str, point: dict[str, Any]) -> float:
        """The published rate of a method on a task at a point."""
        settings = self.resolved(task, method, point)
        return self.rule_lr(settings.batch_size, settings.lr)

    def cell(
        self,
        task: str,
        method: str,
        norm: str,
        point: dict[str, Any],
        seed: int,
        lr: float,
        version: int = 1,
    ) -> RunSpec:
        """One cell of the grid; ``version`` is the data class's."""
        source, target = split_task(task)
        settings = self.resolved(task, method, point)
        epochs, steps = self.length(settings)
        model = settings.model
        return RunSpec(
            data=self.data,
            data_args=settings.data_args,
            data_version=version,
            source=source,
            target=target,
            method=method,
            method_args=self.methods[method],
            norm=norm,
            norm_options=self.norms[norm],
            model_args=model,
            weights_content=content(model.get("weights")),
            lr=lr,
            batch_size=settings.batch_size,
            epochs=epochs,
            steps_per_epoch=steps,
            forms=self.forms,
            seed=seed,
            threads=self.threads,
            precision=self.precision,
            device=self.device,
        )


def content(weights: Any) -> str | None:
    """SHA-256 of a file of weights; None where the weights are no file (``imagenet``)."""
    if not isinstance(weights, str) or not (file := Path(weights).expanduser()).is_file():
        return None
    state = file.stat()
    return _content(file, state.st_mtime_ns, state.st_size)


@cache
def _content(file: Path, changed: int, size: int) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def all_tasks(domains: tuple[str, ...]) -> tuple[str, ...]:
    """All ordered pairs.

    >>> all_tasks(("a", "b"))
    ('a->b', 'b->a')
    """
    return tuple(f"{a}->{b}" for a, b in itertools.permutations(domains, 2))


def check_names(grid: Grid, domains: tuple[str, ...]) -> None:
    """Refuses a task of a domain that does not exist."""
    written = grid.tasks if grid.tasks != "all" else ()
    for task in (*written, *(task for one in grid.overrides for task in one.tasks or ())):
        for domain in split_task(task):
            if domain not in domains:
                raise unknown("domain", domain, domains)


def root() -> Path:
    """The repository: where the configurations lie."""
    return Path(__file__).parents[2]
