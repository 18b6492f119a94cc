"""A study of target statistics: what it asks of the trained cells of a grid, and the answers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from da.engine.result import Seconds
from da.engine.spec import RunSpec, canonical_json
from da.errors import UserError
from da.grids.fields import (
    Strict,
    check_tasks,
    distinct,
    plain_problems,
    truths,
    with_options,
)
from da.grids.grid import Grid
from da.grids.grid_file import WrongSettings, read_grid
from da.grids.setting_keys import explain
from da.ops.yaml12 import read_yaml

Question = Literal["images", "mixture", "label_shift"]
QUESTIONS: tuple[Question, ...] = get_args(Question)

Others = Literal["source", "others"]
"""What target images are mixed with: the source's, or those of all other domains of the set."""

REESTIMATED = "reestimated"
"""The way without an adapter: statistics re-estimated on training images, then kept."""

STREAMS_VERSION = 1
"""Of how images are drawn and ordered: raised when that changes, so that nothing old is reused."""

Share = Annotated[float, Field(ge=0, lt=1)]


class Questions(Strict):
    """What is asked of each network. The values along the axis of each picture."""

    images: tuple[Literal["all"] | Annotated[int, Field(gt=0)], ...] = ()
    """Numbers of target images that the statistics are of; ``all`` that there are."""
    mixture: dict[Others, tuple[Share, ...]] = {}
    """Shares of images of other domains among those that the statistics are of: of the
    ``source``, or of ``others``, the set's domains that are neither source nor target."""
    label_shift: tuple[Literal["iid", "sorted"] | Annotated[float, Field(gt=0)], ...] = ()
    """Orders of the target's images: ``iid``; concentrations of a Dirichlet distribution of the
    classes over time; ``sorted`` by class."""
    adapters: dict[str, dict[str, Any]] = {}
    """Names of adapters with their options; each predicts every stream, batch after batch."""
    batch_size: int = Field(default=32, gt=1)
    """Images in a batch of a stream, but where their number is what is asked."""
    statistics_images: int = Field(default=64, gt=1)
    """Training images that statistics are re-estimated on, but where their number is asked."""
    draws: int = Field(default=2, gt=0)
    """How often images are drawn anew, with results averaged."""
    test_images: int | None = Field(default=None, gt=1)
    """Test images of a domain that are used at most, drawn by its name; all where left out."""

    @field_validator("adapters", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return with_options(value)

    @field_validator("adapters")
    @classmethod
    def _truths(cls, value: dict[str, Any]) -> dict[str, Any]:
        return truths(value)

    @field_validator("images", "label_shift")
    @classmethod
    def _each_once(cls, value: Any) -> Any:
        distinct("values", list(value))
        return value

    @field_validator("mixture")
    @classmethod
    def _shares(cls, value: Any) -> Any:
        for other, shares in value.items():
            if not shares:
                raise ValueError(f"no share of {other}; name some, or leave {other} out")
            distinct(f"shares of {other}", list(shares))
        return value

    @model_validator(mode="after")
    def _something(self) -> Questions:
        if not any(self.series()):
            raise ValueError(f"nothing is asked; expected some of {', '.join(QUESTIONS)}")
        if REESTIMATED in self.adapters:
            raise ValueError(f"adapters: {REESTIMATED} is the way without an adapter")
        return self

    @property
    def ways(self) -> tuple[str, ...]:
        """How statistics come into the network: re-estimated, then by each adapter."""
        return (REESTIMATED, *self.adapters)

    def series(self) -> list[tuple[Question, str, tuple[str, ...]]]:
        """Question, what the target is mixed with (or nothing), and the values in order."""
        asked: list[tuple[Question, str, tuple[str, ...]]] = []
        if self.images:
            asked.append(("images", "", tuple(map(str, self.images))))
        for other, shares in self.mixture.items():
            asked.append(("mixture", other, tuple(f"{share:g}" for share in shares)))
        if self.label_shift:
            shown = (x if isinstance(x, str) else f"{x:g}" for x in self.label_shift)
            asked.append(("label_shift", "", tuple(shown)))
        return asked

    @property
    def id(self) -> str:
        """The first 8 hex digits of a hash of what is asked, and of how images are drawn."""
        settings = {**self.model_dump(mode="json"), "streams_version": STREAMS_VERSION}
        return hashlib.sha256(canonical_json(settings).encode()).hexdigest()[:8]


class Study(Questions):
    """The file of a study: a grid, a part of it, and the questions."""

    grid: str
    """The file of the grid whose cells are asked, relative to this file."""
    trained: str | None = None
    """The grid's output folder, whose kept checkpoints are used; ``runs/`` and the grid's name
    where left out."""
    tasks: tuple[str, ...] | None = None
    """Tasks in place of the grid's."""
    methods: tuple[str, ...] | None = None
    """Methods in place of the grid's; those that it names keep their options."""
    norms: tuple[str, ...] | None = None
    """Normalisers in place of the grid's; those that it names keep their options."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Seeds in place of the grid's."""

    @field_validator("tasks")
    @classmethod
    def _tasks(cls, value: Any) -> Any:
        check_tasks(value or ())
        return value

    def questions(self) -> Questions:
        """What is asked, without of whom."""
        return Questions.model_validate(self.model_dump(include=set(Questions.model_fields)))


def is_study(path: Path) -> bool:
    """Whether a file of settings is of a study: it names a grid, and a grid does not."""
    content = read_yaml(path)
    return isinstance(content, dict) and "grid" in content


def read_study(path: Path, overrides: dict[str, Any]) -> tuple[Study, Path, Grid]:
    """A study, the file of its grid, and the part of the grid that it asks.

    Args:
        path: the YAML file.
        overrides: of the grid, as of :func:`da.grids.grid_file.read_grid`; they go before the
            study's own.

    Raises:
        UserError: with what is wrong with either file.
    """
    content = read_yaml(path)
    if problems := plain_problems(content):
        raise WrongSettings(str(path), problems)
    try:
        study = Study.model_validate(content)
    except ValueError as error:
        by_key = explain(error, Study)  # type: ignore[arg-type]  # pydantic's is a ValueError
        raise WrongSettings(str(path), [x for lines in by_key.values() for x in lines]) from None
    file = path.parent / study.grid
    if not file.is_file():
        raise UserError(f"{path}: grid: no file '{file}'; name the grid's, relative to this one")
    part = {key: getattr(study, key) for key in ("tasks", "methods", "norms", "seeds")}
    chosen = {key: list(value) for key, value in part.items() if value is not None}
    given = {key: value for key, value in overrides.items() if value is not None}
    grid = read_grid(file, {**chosen, **given})
    for key, reason in (("lr", grid.lr[1:]), ("sweep", grid.sweep)):
        if reason:
            raise UserError(
                f"{path}: grid: '{file}' has several values of {key}, and a picture has room for "
                "one; name a grid without (--lr takes one)"
            )
    return study, file, grid


class Measured(Strict):
    """One accuracy: of one way to one value of one question, with one draw of images."""

    question: Question
    other: str = ""
    value: str
    way: str
    draw: int
    n: int = Field(gt=0)
    accuracy: float = Field(ge=0, le=1)


class Measurements(Strict):
    """The answers of one trained network."""

    schema_version: Literal[1] = 1
    run: str
    """Identity of the training's specification."""
    spec: RunSpec
    asked: str
    """Identity of the questions, :attr:`Questions.id`."""
    statistics: bool
    """Whether the network has batch norm; else what changes only statistics changes nothing, and
    is not measured. Of one with batch norm, a way that is not measured is not defined."""
    images: dict[str, int]
    """Images that there are of the target, by split."""
    trained: float = Field(ge=0, le=1)
    """Accuracy of the network as trained on the same test images."""
    measured: list[Measured]
    seconds: Seconds
    versions: dict[str, str] = {}
    data_manifest: str = ""
    machine: str = ""

    @model_validator(mode="after")
    def _identity(self) -> Measurements:
        if self.spec.id != self.run:
            raise ValueError(f"the settings are not those of run {self.run}")
        return self


def check_questions(settings: dict[str, Any], data: str, data_args: dict[str, Any]) -> None:
    """Refuses what no network could be asked, before anything is trained. Runs in a worker.

    Names must exist, domains must be there to mix the target with, and a batch of one image is for
    adapters that take it.

    Args:
        settings: of :class:`Questions`.
        data: name of the data set.
        data_args: its options.

    Raises:
        UserError: with everything that is wrong, a line each.
    """
    from da.adapters.base import adapter
    from da.engine.components import find_data
    from da.grids.tuning_validation import Problems

    problems = Problems()
    questions = Questions.model_validate(settings)
    for name, options in questions.adapters.items():
        made = problems.of(f"adapters.{name}", lambda: adapter(name, options))  # noqa: B023
        if 1 in questions.images and not getattr(made, "single_images", True):
            problems.append(
                f"adapters.{name}.single_images: expected true, since images holds 1: a batch of "
                "one image, which has no statistics of one value per channel; got false"
            )
    if "others" in questions.mixture:
        domains = find_data(data).available(data_args.get("root"))
        if len(domains) < 3:
            problems.append(
                f"mixture.others: {data} has no domain but source and target ("
                f"{', '.join(domains)}); leave it out"
            )
    if problems:
        raise UserError("\n".join(problems))
