"""What one training leaves behind: the schema of ``result.json`` and the three selections."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from da.engine.alarms.record import Alarm
from da.engine.spec import RunSpec

Selection = Literal["last", "label-free", "oracle"]
SELECTIONS: tuple[Selection, ...] = get_args(Selection)

ScoredImages = Literal["held out", "trained on", "tested"]
"""Which images of the target a label-free score is of, without their labels: validation images that
are nothing else, those that are trained on, or the very ones that are trained on and tested."""

DEFAULT_SCORE = "InformationMaximisation"
"""Picks the label-free epoch unless another is named."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Scores(_Strict):
    """One network on one split of one domain; of images without labels only their number."""

    n: int = Field(gt=0)
    """Images with labels, which the accuracies are of; all images where none has one."""
    unlabelled: int = Field(default=0, ge=0)
    """Images beside those that have no label; label-free scores are of them, too."""
    accuracy: float | None = Field(default=None, ge=0, le=1)
    class_mean: float | None = Field(default=None, ge=0, le=1)
    cross_entropy: float | None = None
    per_class: dict[str, float | None] | None = None
    """Accuracy of each class by name, none where it is absent; kept of the target's test images."""
    confusion: dict[str, dict[str, int]] | None = None
    """What the images of each class are taken for, by name: ``{"cat": {"dog": 3}}`` of those that
    occur. Kept of the target's test images at the last evaluation; earlier results have none."""
    label_free: dict[str, float | None] = {}
    """Scores that use no label of the target, by name; higher is better. None where a score is not
    a number. Computed on the images that the label-free selection looks at."""


Forms = dict[str, dict[str, Scores]]


class Evaluation(_Strict):
    """All splits at one moment of the training.

    ``forms`` maps the form of the network (``""`` as trained, ``"source-stats"`` and
    ``"target-stats"`` with re-estimated statistics) to ``"role/split"`` to scores.
    """

    epoch: int = Field(ge=0)
    step: int = Field(ge=0)
    forms: Forms

    @model_validator(mode="after")
    def _complete(self) -> Evaluation:
        if not self.forms.get(""):
            raise ValueError("an evaluation needs the network as trained, the form ''")
        streams = set(self.forms[""])
        if "target/test" not in streams:
            raise ValueError("an evaluation needs the target's test images, 'target/test'")
        for form, scores in self.forms.items():
            if set(scores) != streams:
                raise ValueError(f"form {form!r} was evaluated on other images")
        return self


class Seconds(_Strict):
    """Where the time of a training went."""

    training: float = Field(ge=0)
    evaluation: float = Field(ge=0)
    total: float = Field(ge=0)


class Conversion(_Strict):
    """How pretrained weights became those of a WA network.

    See :mod:`da.networks.pretrained_conversion`.
    """

    on: Literal["source", "both"]
    images: int = Field(gt=0)
    held_out: int = Field(ge=0)
    error: float
    agreement: float | None
    agreement_interval: tuple[float, float] | None = None
    worst_layer: str
    worst_error: float
    distilled: bool = False
    seconds: float = Field(ge=0)
    cached: bool


class Alignment(_Strict):
    """Which convolutions of the backbone WeightAlign holds.

    See :class:`da.norms.weight_align.coverage.Coverage`.
    """

    layers: int = Field(ge=0)
    of_layers: int = Field(ge=0)
    weights: int = Field(ge=0)
    of_weights: int = Field(ge=0)
    left: list[str]


class Result(_Strict):
    """One finished training. Only this, validated, counts as done; an exit status never does."""

    schema_version: Literal[2] = 2
    state: Literal["done"] = "done"
    run: str
    """Identity of the specification, :attr:`RunSpec.id`."""
    spec: RunSpec
    sources: list[str] = Field(min_length=1)
    target: str
    classes: list[str] = Field(min_length=2)
    """Names in the order of the labels."""
    evaluations: list[Evaluation] = Field(min_length=1)
    seconds: Seconds
    parameters: int
    """Trainable ones, with those of the method's own parts."""
    lr_over_norm2: float | None
    feature_deviation: float
    initial_loss: float | None
    clipped_fraction: float | None = None
    alarms: list[Alarm] | None = None
    """What the training said of itself; None of one that did not watch itself yet."""
    conversion: Conversion | None = None
    alignment: Alignment | None = None
    part_norms: dict[str, str] = {}
    """The normaliser of each part: backbone, bottleneck, critic; earlier results don't say."""
    preprocessing: dict[str, Any] | None = None
    """Mean, deviation and size of the images that the network saw."""
    versions: dict[str, str] = {}
    data_manifest: str = ""
    remarks: list[str] = []
    """What users should know of the images: files passed over, images of both domains."""
    machine: str = ""

    @model_validator(mode="after")
    def _identity(self) -> Result:
        if self.spec.id != self.run:
            raise ValueError(f"the settings are not those of run {self.run}")
        forms = [set(evaluation.forms) for evaluation in self.evaluations]
        if any(names != forms[0] for names in forms):
            raise ValueError("the evaluations hold different forms of the network")
        return self

    @property
    def forms(self) -> list[str]:
        """The forms of the network that were evaluated, as trained first."""
        return list(self.evaluations[-1].forms)


class Failure(_Strict):
    """Why a training has no result. Divergence is final; anything else is tried again."""

    state: Literal["failed", "diverged"]
    run: str
    reason: str
    evaluations: list[Evaluation] = []
    """Those before it diverged."""


def validation_scores(streams: dict[str, Scores]) -> Scores:
    """The target's validation images, or its test images where there are no others."""
    return streams.get("target/validation", streams["target/test"])


def select_evaluation(
    result: Result, form: str, selection: Selection, score: str = DEFAULT_SCORE
) -> Evaluation | None:
    """The evaluation that a selection picks, or None where it can't tell.

    ``last`` takes the last one. ``label-free`` takes the highest score on the target's validation
    images, which needs no labels. ``oracle`` takes the highest accuracy on the target's test
    images, which nobody has in practice. Equal values: the earliest.

    Args:
        result: of the training.
        form: of the network.
        selection: which.
        score: that the label-free selection goes by.
    """
    if selection == "last":
        return result.evaluations[-1]
    if selection == "oracle":
        values = [e.forms[form]["target/test"].accuracy for e in result.evaluations]
    else:
        values = [
            validation_scores(e.forms[form]).label_free.get(score) for e in result.evaluations
        ]
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return None
    return result.evaluations[values.index(max(numbers))]
