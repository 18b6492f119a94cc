"""One training of a grid and its identity."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Cell(BaseModel):
    """Everything that decides the outcome of one training, and nothing else.

    Two cells with equal settings have the same :attr:`id` on every machine. Paths, the number of
    workers and the names of devices are left out; threads, precision and the kind of device are
    in, since bitwise results depend on them.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )

    data: str = Field(pattern=r"^[A-Za-z_][\w.]*\.[A-Za-z_]\w*$")
    """Dotted path of the data class, ``"datasets.digits.Digits"``."""
    data_args: dict[str, Any] = {}
    data_version: int = Field(default=1, gt=0)
    """Of how the data class makes its images: a change of it leaves old results behind."""
    source: str
    target: str
    method: str
    """Class name of the adaptation method, ``"DANN"``."""
    method_args: dict[str, Any] = {}
    norm: str
    norm_options: dict[str, Any] = {}
    model_args: dict[str, Any] = {}
    """Arguments that every method takes: backbone, weights, bottleneck, scope, forward, ..."""
    weights_content: str | None = None
    """SHA-256 of the file that ``weights`` names: it is in the identity, and the path is not."""
    lr: float = Field(gt=0)
    batch_size: int = Field(gt=0)
    epochs: int = Field(gt=0)
    steps_per_epoch: int | Literal["source", "target", "longest"]
    seed: int = Field(ge=0)
    threads: int = Field(default=1, gt=0)
    precision: str = "32-true"
    device: str = "cpu"
    forms: bool = True
    """Whether batch norm is also evaluated with re-estimated statistics."""

    @property
    def task(self) -> str:
        """``"source->target"``."""
        return f"{self.source}->{self.target}"

    @property
    def backbone(self) -> str:
        """The backbone's name; the model's default is named as such."""
        return str(self.model_args.get("backbone", "default"))

    @property
    def id(self) -> str:
        """The first 16 hex digits of the SHA-256 of the settings' canonical JSON.

        Without the data's folder, number of workers and cache, which change no batch. (A limit of
        the cache is in it where one is given: what is re-encoded beyond it has other pixels.)
        """
        settings = self.model_dump(mode="json")
        for name in ("root", "num_workers", "cache", "cache_folder"):
            settings["data_args"].pop(name, None)
        if self.weights_content is None:
            del settings["weights_content"]
        else:
            settings["model_args"].pop("weights", None)
        if self.data_version == 1:  # the first version is what cells had before it was counted
            del settings["data_version"]
        if self.forms:  # as all cells before there was a choice
            del settings["forms"]
        return hashlib.sha256(canonical(settings).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return (
            f"{self.task} {self.method} {self.norm} seed {self.seed} "
            f"(batch {self.batch_size}, lr {self.lr:g})"
        )


def canonical(value: object) -> str:
    """JSON that is equal for equal settings: sorted keys, no spaces, 1.0 written as 1.

    >>> canonical({"b": 1.0, "a": (True, None)})
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
