"""What a table of tuned rates holds, and what each of its entries is of."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from da.engine.spec import RunSpec, canonical_json

CRITERION = (
    "highest source validation accuracy at the last epoch, mean over the seeds; ties: lowest "
    "source validation cross-entropy; a rate that diverges or fails with any seed comes last"
)
LABEL_FREE = (
    "highest {score} of the target, a label-free score, at the last epoch, mean over the seeds; "
    "ties: lowest rate; a rate that diverges or fails with any seed comes last"
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Trial(_Strict):
    """One learning rate, with one combination of the tuned options."""

    lr: float
    options: dict[str, Any] = {}
    accuracy: list[float | None] = []
    """Source validation accuracy per seed; none where the cell has no result."""
    cross_entropy: list[float | None] = []
    score: list[float | None] = []
    """The label-free score per seed, where that is the criterion, in place of the two."""
    states: list[str]

    @property
    def judged(self) -> list[float | None]:
        """What a rate is judged by, per seed."""
        return self.score or self.accuracy


class Entry(_Strict):
    """The choice for one method, normaliser, backbone and batch size."""

    method: str
    norm: str
    backbone: str
    batch_size: int
    lr: float | None
    """None where each rate diverges with some seed, and until every trial has ended."""
    options: dict[str, Any] = {}
    """Of the method, as they were tuned with the rate."""
    edge: bool
    """The chosen rate is the smallest or largest tried: a better one may lie beyond."""
    trials: list[Trial]

    @property
    def combinations(self) -> int:
        """How many combinations of options were tried with each rate; 1 where there are none."""
        return len({canonical_json(trial.options) for trial in self.trials})


class Table(_Strict):
    """The whole tuning, as committed."""

    schema_version: int = 1
    command: str
    criterion: str = CRITERION
    criteria: dict[str, str] | None = None
    """Other scores by which some methods are tuned, whose own loss the criterion is."""
    images: str | None = None
    """Which images the criterion is on; earlier tables don't say."""
    data: str
    task: str
    seeds: list[int]
    epochs: int
    published_lr: float
    factors: list[float]
    combinations: int | None = None
    """Of tuned options, tried with each rate of every method that has any; None where none has, and
    of earlier tables."""
    entries: list[Entry] = Field(default=[])

    def find(self, cell_key: Key) -> Entry | None:
        """The choice for (method, normaliser, backbone, batch size), if it was tuned."""
        return next((entry for entry in self.entries if key(entry) == cell_key), None)

    def budget(self) -> dict[str, object]:
        """What every entry of a table has in common; of combinations of options, see
        :func:`previous`."""
        return self.model_dump(exclude={"command", "entries", "images", "combinations"})


Key = tuple[str, str, str, int]


def key(of: RunSpec | Entry) -> Key:
    """What a rate is tuned for: method, normaliser, backbone, batch size."""
    return (of.method, of.norm, of.backbone, of.batch_size)
