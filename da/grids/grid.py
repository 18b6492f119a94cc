"""A grid of cells, as a YAML file describes it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from da.engine.result import DEFAULT_SCORE
from da.engine.spec import RunSpec
from da.errors import UserError, unknown
from da.grids.contradictions import contradictions, length_problems
from da.grids.fields import check_tasks, distinct, names, split_task, truths, with_options
from da.grids.overrides import Override, Resolved, Steps, quick_epochs, resolve
from da.grids.training_keys import TrainingKeys
from da.grids.tuning_keys import Tune, combinations
from da.grids.weights_hash import hash_weights
from da.installation import configs_root
from da.ops.domain_names import is_path, split_sources

Row = Literal["tuned", "published", "given"]
"""Where the learning rates of a part of the table come from; ``given``: from the user."""
REFERENCE_BATCH = 32
CHALLENGER = "wa"
BASELINES = ("bn", "bn@target-stats")
Logger = Literal["csv", "tensorboard", "wandb", "mlflow"]


class Grid(TrainingKeys):
    """Tasks x methods x normalisers x swept settings x seeds, with one budget for all."""

    data: str = Field(pattern=r"^[A-Za-z_][\w.]*$")
    """A data set by its name, ``Digits``, or a class of your own by its dotted path."""
    data_args: dict[str, Any] = {}
    """Arguments of the data set: root, image_size, ..."""
    tasks: Literal["all"] | tuple[str, ...] = "all"
    """``all`` ordered pairs of the data's domains, or a list of ``source->target``."""
    methods: dict[str, dict[str, Any]] = Field(min_length=1)
    """Methods by name or dotted path, with their own arguments where there are any."""
    norms: dict[str, dict[str, Any]] = Field(min_length=1)
    """Normalisers by short name or dotted path, with their options where there are any."""
    challenger: str | None = None
    """The normaliser that is compared, ``wa`` where left out; also in a form, ``wa+bn@...``."""
    baselines: tuple[str, ...] | None = Field(default=None, min_length=1)
    """What it is compared with; ``bn`` and ``bn@target-stats`` where left out."""
    model: dict[str, Any] = {}
    """Arguments that all methods take: backbone, weights, bottleneck, scope, ..."""
    sweep: dict[str, tuple[Any, ...]] = {}
    """``lr``, ``batch_size``, ``model.<argument>`` (of all methods), ``method.<argument>`` (of each
    of the grid's), ``norm.<option>`` (of each normaliser) or ``trainer.<option>`` to the values
    that it takes."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0, 1, 2), min_length=1)
    """Each place of the grid is trained once with each."""
    stop_at: float | None = Field(default=None, gt=0)
    """Half-width in points at which seeds are enough, on average on these tasks; else all run."""
    batch_size: int = Field(default=REFERENCE_BATCH, gt=0)
    """Images of each domain in a batch."""
    epochs: int = Field(gt=0)
    """Of each training; the networks are evaluated after each."""
    steps_per_epoch: Steps | None = None
    """A number, or the length of the ``source``, the ``target`` or the ``longest`` of both."""
    samples: int | None = Field(default=None, gt=0)
    """Samples of each domain seen in all, instead of ``steps_per_epoch``."""
    lr: tuple[Literal["tuned", "published"] | Annotated[float, Field(gt=0)], ...] = Field(
        default=("tuned",), min_length=1
    )
    """The parts of the table: ``tuned`` rates, ``published`` ones, a number that you give."""
    published_lr: float | None = Field(default=None, gt=0)
    """The published learning rate: of ``lr: published``, and the middle of what is tuned."""
    lr_scaling: Literal["none", "linear"] = "none"
    """``linear``: the published rate is that of a batch of 32 and grows with the batch."""
    tuned: str | None = None
    """The table of tuned rates, relative to the YAML file."""
    tune: Tune = Tune()
    """How the learning rate is tuned."""
    overrides: tuple[Override, ...] = ()
    """What some methods or tasks have otherwise; of two for the same, the last one wins."""
    scores: tuple[str, ...] = Field(
        default=tuple(RunSpec.model_fields["scores"].default), min_length=1
    )
    """Scores without target labels that are computed at every evaluation."""
    score: str = DEFAULT_SCORE
    """The one of them that picks the label-free epoch."""
    logger: tuple[Logger, ...] = ()
    """Where each training's curves go; changes no result and runs no finished cell again."""
    forms: bool = True
    """Evaluate batch norm with re-estimated statistics after every epoch, too."""
    quick: bool = False
    """At most 5,000 steps of every training, under the same schedules."""
    threads: int = Field(default=1, gt=0)
    """Of each training."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Images are float32, and weights stay so: the forms are evaluated with them as they are."""
    device: Literal["cpu", "cuda", "mps"] = "cpu"
    """Where the cells are trained."""

    @field_validator("methods", "norms", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """A list of names, or names with their options."""
        return with_options(value)

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
            check_tasks(value)
            distinct("tasks", list(value))
        return value

    @field_validator("seeds", "scores", "baselines")
    @classmethod
    def _each_once(cls, value: Any) -> Any:
        distinct("values", list(value or ()))
        return value

    @field_validator("lr", "logger", "scores", "baselines", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        alone = isinstance(value, (str, int, float)) and not isinstance(value, bool)
        return (value,) if alone else value

    @field_serializer("optimizer", "trainer", "overrides")
    def _as_written(self, value: Any) -> Any:
        """What is left out stays so: in an override it stands for the grid's."""
        if isinstance(value, tuple):
            return [one.model_dump(mode="json", exclude_unset=True) for one in value]
        return value.model_dump(mode="json", exclude_unset=True)

    @model_validator(mode="after")
    def _consistent(self) -> Grid:
        problems = contradictions(self) or length_problems(self)  # these need the rest to fit
        if problems:
            raise ValueError("\n".join(dict.fromkeys(problems)))
        return self

    @property
    def rows(self) -> tuple[Row, ...]:
        """The parts of the table by where their learning rates come from."""
        if "lr" in self.sweep:
            return ("given",)
        return tuple(rate if isinstance(rate, str) else "given" for rate in self.lr)

    @property
    def comparison(self) -> tuple[str, tuple[str, ...]]:
        """The challenger and its baselines; the latter may be none of the grid's."""
        return self.challenger or CHALLENGER, self.baselines or BASELINES

    def renamed(self, names: Mapping[str, str]) -> Grid:
        """The grid with names in place of others: short ones for dotted paths.

        Args:
            names: the name to use, by the one as written.
        """

        def named(name: str) -> str:
            norm, at, form = name.partition("@")
            return f"{names.get(norm, norm)}{at}{form}"

        return self.model_copy(
            update={
                "data": named(self.data),
                "methods": {named(name): options for name, options in self.methods.items()},
                "norms": {named(name): options for name, options in self.norms.items()},
                "challenger": self.challenger and named(self.challenger),
                "baselines": self.baselines and tuple(map(named, self.baselines)),
                "scores": tuple(map(named, self.scores)),
                "score": named(self.score),
                "tune": self.tune.model_copy(
                    update={
                        "criterion": self.tune.criterion and named(self.tune.criterion),
                        "criteria": {
                            named(m): named(score) for m, score in self.tune.criteria.items()
                        },
                        "options": {named(m): values for m, values in self.tune.options.items()},
                    }
                ),
                "overrides": tuple(
                    one.model_copy(update={"methods": tuple(map(named, one.methods))})
                    if one.methods
                    else one
                    for one in self.overrides
                ),
            }
        )

    def points(self) -> list[dict[str, Any]]:
        """The combinations of the swept settings; one empty point where nothing is swept."""
        return combinations(self.sweep)

    def resolved(
        self, task: str, method: str, point: dict[str, Any], row: Row = "published"
    ) -> Resolved:
        """The settings of a method on a task at a point, with the overrides for it."""
        given = next((rate for rate in self.lr if not isinstance(rate, str)), None)
        base = Resolved(
            lr=given if row == "given" else self.published_lr,
            epochs=self.epochs,
            steps_per_epoch=self.steps_per_epoch,
            batch_size=self.batch_size,
            model={**self.model, **self.optimizer.arguments()},
            data_args=self.data_args,
            trainer=self.trainer_settings(),
        )
        settings = resolve(base, self.overrides, task, method)
        return settings.model_copy(
            update={
                "batch_size": point.get("batch_size", settings.batch_size),
                "model": {**settings.model, **swept(point, "model.")},
                "trainer": {**settings.trainer, **swept(point, "trainer.")},
            }
        )

    def length(self, settings: Resolved) -> tuple[int, Steps]:
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

    def steps(self, batch_size: int) -> Steps:
        """Steps per epoch for a batch size, where nothing is overridden."""
        return self.length(self.resolved("", "", {"batch_size": batch_size}))[1]

    def scaled_rate(self, batch_size: int, lr: float) -> float:
        """A published rate, scaled to the batch where the grid says so."""
        return lr * batch_size / REFERENCE_BATCH if self.lr_scaling == "linear" else lr

    def rate(self, task: str, method: str, point: dict[str, Any], row: Row = "published") -> float:
        """The published, given or swept rate of a method on a task at a point.

        Raises:
            UserError: the grid has none.
        """
        if "lr" in point:
            return float(point["lr"])
        settings = self.resolved(task, method, point, row)
        if settings.lr is None:
            raise UserError(
                f"published_lr: missing: expected the published learning rate of {method}, which "
                f"'lr: {row}' starts from"
            )
        if row == "given":  # as the user wrote it
            return settings.lr
        return self.scaled_rate(settings.batch_size, settings.lr)

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
            method_args={**self.methods[method], **swept(point, "method.")},
            norm=norm,
            norm_options={**self.norms[norm], **swept(point, "norm.")},
            model_args=model,
            weights_content=hash_weights(model.get("weights")),
            lr=lr,
            batch_size=settings.batch_size,
            epochs=epochs,
            steps_per_epoch=steps,
            trainer=settings.trainer_settings(),
            scores=tuple(dict.fromkeys((*self.scores, self.score))),
            forms=self.forms,
            seed=seed,
            threads=self.threads,
            precision=self.precision,
            device=self.device,
        )


def swept(point: Mapping[str, Any], group: str) -> dict[str, Any]:
    """The swept settings of a group, without its prefix.

    >>> swept({"batch_size": 8, "model.scope": "critic"}, "model.")
    {'scope': 'critic'}
    """
    return {key[len(group) :]: value for key, value in point.items() if key.startswith(group)}


def all_tasks(domains: tuple[str, ...]) -> tuple[str, ...]:
    """All ordered pairs.

    >>> all_tasks(("a", "b"))
    ('a->b', 'b->a')
    """
    return tuple(f"{a}->{b}" for a, b in itertools.permutations(domains, 2))


def domain_problems(tasks: Iterable[str], domains: tuple[str, ...]) -> list[str]:
    """Tasks of a domain that does not exist, a line each."""
    pairs = [split_task(task) for task in tasks]
    named = [name for source, _ in pairs for name in split_sources(source, domains)]
    named += [target for _, target in pairs if not is_path(target)]
    named = [*dict.fromkeys(named)]
    return [str(unknown("domain", name, domains)) for name in named if name not in domains]


def root() -> Path:
    """Where the configurations lie: the repository, or the installed library."""
    return configs_root()
