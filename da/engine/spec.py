"""What decides the outcome of one training, and nothing else: for `fit` and for cells of grids."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from da.ops.clipping import GRADIENT_CLIP_VAL
from da.ops.domain_names import name_of_domain

#: Of the defaults of methods, normalisers and networks, which a specification does not spell out:
#: raised when one changes what is computed, so that old results are not taken for new ones.
DEFAULTS_VERSION = 3

#: Options of data sets that change no image and no batch.
NOT_OF_THE_DATA = ("root", "num_workers", "cache", "cache_folder")


class _Settings(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        protected_namespaces=(),
        use_attribute_docstrings=True,  # what help shows
    )


class TrainerSettings(_Settings):
    """Options of the trainer that change what is computed; the names are Lightning's."""

    max_steps: int = -1
    """Steps after which training ends, whatever the epochs; -1 for no such limit."""
    min_epochs: int | None = None
    """Epochs that are trained at least, whatever would end the training."""
    min_steps: int | None = None
    """Steps that are trained at least, whatever would end the training."""
    max_time: str | None = None
    """Time after which training ends, ``DD:HH:MM:SS``."""
    gradient_clip_val: float | None = Field(default=GRADIENT_CLIP_VAL, gt=0)
    """Largest norm (or value) of the gradient; null for any."""
    gradient_clip_algorithm: Literal["norm", "value"] = "norm"
    """Clip the norm of all gradients, or each value."""
    accumulate_grad_batches: int = Field(default=1, gt=0)
    """Batches whose gradients are averaged for one update."""
    limit_train_batches: int | float | None = None
    """Batches of an epoch: a number, or a share of them."""
    limit_val_batches: int | float | None = None
    """Batches of each evaluation: a number, or a share of them."""
    overfit_batches: int | float = 0.0
    """Train and evaluate on the same few batches: a number, or a share of them."""
    val_check_interval: int | float | None = None
    """Evaluate after so many batches, or after such a share of an epoch."""
    check_val_every_n_epoch: int | None = 1
    """Evaluate after so many epochs."""
    deterministic: bool | Literal["warn"] | None = None
    """Only algorithms that give the same bits again; ``warn`` where there is none."""
    benchmark: bool | None = None
    """Let cuDNN try which algorithm is the fastest."""
    detect_anomaly: bool = False
    """Stop where a gradient is not a number; slow."""

    @field_validator("limit_train_batches", "limit_val_batches", "val_check_interval", mode="after")
    @classmethod
    def _all(cls, value: int | float | None) -> int | float | None:
        """All batches, 1.0, are what there is without an option; 1 is a single batch.

        An identity, which takes 1 and 1.0 for one setting, would not tell them apart.
        """
        return None if isinstance(value, float) and value == 1.0 else value

    def changed(self) -> dict[str, Any]:
        """Those that are not at their defaults."""
        return self.model_dump(mode="json", exclude_defaults=True)


class RunSpec(_Settings):
    """One training. Two with equal settings have the same :attr:`id` on every machine.

    Paths (of a target's, all but the last folder), the number of workers and the names of devices
    are no part of the identity; threads, precision and the kind of device are, since bitwise
    results depend on them.
    """

    data: str = Field(pattern=r"^[A-Za-z_][\w.]*$")
    """Class name of a data set on disk, ``"Digits"``, or dotted path of one from elsewhere."""
    data_args: dict[str, Any] = {}
    data_version: int = Field(default=1, gt=0)
    """Of how the data class makes its images: a change of it leaves old results behind."""
    source: str
    """The labelled domain, or several with commas."""
    target: str
    """The domain that is adapted to, or the path of its folder."""
    method: str = Field(pattern=r"^[A-Za-z_][\w.]*$")
    """Class name of a method on disk, ``"DANN"``, or dotted path of one from elsewhere."""
    method_args: dict[str, Any] = {}
    norm: str
    norm_options: dict[str, Any] = {}
    model_args: dict[str, Any] = {}
    """Arguments that every method takes: backbone, weights, bottleneck, scope, forward_mode, ..."""
    weights_content: str | None = None
    """SHA-256 of the file that ``weights`` names: it is in the identity, and the path is not."""
    lr: float = Field(gt=0)
    batch_size: int = Field(gt=0)
    epochs: int = Field(ge=-1)
    """-1 for as many as ``trainer.max_steps`` or ``trainer.max_time`` allow."""
    steps_per_epoch: int | Literal["source", "target", "longest"]
    seed: int = Field(ge=0)
    threads: int | None = Field(default=1, gt=0)
    """None: as many as the machine has; then results are those of this machine."""
    precision: str = "32-true"
    device: str = "cpu"
    forms: bool = True
    """Whether batch norm is also evaluated with re-estimated statistics."""
    scores: tuple[str, ...] = ("InformationMaximisation", "NegativeEntropy")
    """Scores without target labels that are computed at every evaluation."""
    trainer: TrainerSettings = TrainerSettings()

    @property
    def task(self) -> str:
        """``"source->target"``."""
        return f"{self.source}->{self.target}"

    @property
    def backbone(self) -> str:
        """The backbone's name; the model's default is named as such."""
        return str(self.model_args.get("backbone", "default"))

    def identity(self) -> dict[str, Any]:
        """The settings that the identity is made of, as JSON holds them."""
        settings = self.model_dump(mode="json")
        for name in NOT_OF_THE_DATA:
            settings["data_args"].pop(name, None)
        settings["target"] = name_of_domain(self.target)
        if self.weights_content is None:
            del settings["weights_content"]
        else:
            settings["model_args"].pop("weights", None)
        settings["trainer"] = self.trainer.changed()
        settings["defaults_version"] = DEFAULTS_VERSION
        return settings

    @property
    def id(self) -> str:
        """The first 16 hex digits of the SHA-256 of the settings' canonical JSON."""
        return hashlib.sha256(canonical_json(self.identity()).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        own = "".join(f", {name} {value}" for name, value in self.method_args.items())
        return (
            f"{self.task} {self.method} {self.norm} seed {self.seed} "
            f"(batch {self.batch_size}, lr {self.lr:g}{own})"
        )


def canonical_json(value: object) -> str:
    """JSON that is equal for equal settings: sorted keys, no spaces, 1.0 written as 1.

    >>> canonical_json({"b": 1.0, "a": (True, None)})
    '{"a":[true,null],"b":1}'
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # YAML's 1 and 1.0 are one setting, not two
    return value
