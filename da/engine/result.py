"""What one training leaves behind: the schema of ``result.json`` and the three selections."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from da.engine.spec import Cell

Selection = Literal["last", "label-free", "oracle"]
SELECTIONS: tuple[Selection, ...] = get_args(Selection)

STREAMS = ("source/validation", "target/validation", "source/test", "target/test")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Scores(_Strict):
    """One network on one split of one domain."""

    n: int = Field(gt=0)
    accuracy: float = Field(ge=0, le=1)
    class_mean: float = Field(ge=0, le=1)
    cross_entropy: float | None = None
    information_maximisation: float | None = None
    """A score that uses no labels; higher is better."""
    per_class: list[float | None] | None = None
    """Accuracy of each class in the order of the labels, none where it is absent; kept of the
    target's test images."""


Forms = dict[str, dict[str, Scores]]


class Evaluation(_Strict):
    """All splits at one moment of the training.

    ``forms`` maps the form of the network (``""`` as trained, ``"source-stats"`` and
    ``"target-stats"`` with re-estimated statistics) to ``"domain/split"`` to scores.
    """

    epoch: int = Field(ge=0)
    step: int = Field(ge=0)
    forms: Forms

    @model_validator(mode="after")
    def _complete(self) -> Evaluation:
        if "" not in self.forms:
            raise ValueError("an evaluation needs the network as trained, the form ''")
        for form, scores in self.forms.items():
            if missing := [name for name in STREAMS if name not in scores]:
                raise ValueError(f"form {form!r} lacks {', '.join(missing)}")
        return self


class Seconds(_Strict):
    """Where the time of a training went."""

    training: float = Field(ge=0)
    evaluation: float = Field(ge=0)
    total: float = Field(ge=0)


class Conversion(_Strict):
    """How pretrained weights became those of a WA network, see :mod:`da.networks.pretrained`."""

    on: Literal["source", "both"]
    images: int = Field(gt=0)
    held_out: int = Field(ge=0)
    error: float
    agreement: float | None
    worst_layer: str
    worst_error: float
    seconds: float = Field(ge=0)
    cached: bool


class Result(_Strict):
    """One finished training. Only this, validated, counts as done; an exit status never does."""

    schema_version: Literal[1] = 1
    state: Literal["done"] = "done"
    cell: str
    settings: dict[str, Any]
    score: str = "information_maximisation"
    evaluations: list[Evaluation] = Field(min_length=1)
    seconds: Seconds
    parameters: int
    lr_over_norm2: float
    feature_deviation: float
    initial_loss: float
    clipped_fraction: float | None = None
    conversion: Conversion | None = None
    preprocessing: dict[str, Any] | None = None
    """Mean, deviation and size of the images that the network saw."""
    versions: dict[str, str] = {}
    data_manifest: str = ""
    machine: str = ""

    @model_validator(mode="after")
    def _identity(self) -> Result:
        if Cell(**self.settings).id != self.cell:
            raise ValueError(f"the settings are not those of cell {self.cell}")
        forms = [set(evaluation.forms) for evaluation in self.evaluations]
        if any(names != forms[0] for names in forms):
            raise ValueError("the evaluations hold different forms of the network")
        return self

    @property
    def forms(self) -> list[str]:
        """The forms of the network that were evaluated, as trained first."""
        return list(self.evaluations[-1].forms)


def select(result: Result, form: str, selection: Selection) -> Evaluation | None:
    """The evaluation that a selection picks, or None where its score was not computed.

    ``last`` takes the last one. ``label-free`` takes the highest score on the target's validation
    images, which needs no labels. ``oracle`` takes the highest accuracy on the target's test
    images, which nobody has in practice. Equal scores: the earliest.
    """
    if selection == "last":
        return result.evaluations[-1]
    if selection == "oracle":
        return max(result.evaluations, key=lambda e: e.forms[form]["target/test"].accuracy)
    scored = [
        (evaluation.forms[form]["target/validation"].information_maximisation, evaluation)
        for evaluation in result.evaluations
    ]
    known = [(score, evaluation) for score, evaluation in scored if score is not None]
    return max(known, key=lambda pair: pair[0])[1] if len(known) == len(scored) else None
