"""The keys of a grid under ``tune``: what is tried before the table is made."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field

from da.grids.fields import Strict

DEFAULT_FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)


class Tune(Strict):
    """How rates and options are tuned: never on the seeds of the table or with target labels."""

    factors: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=DEFAULT_FACTORS, min_length=1
    )
    """The tried rates are the published one times these."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(100, 101), min_length=1)
    """Seeds of the trials, outside those of the table."""
    task: str | None = None
    """``source->target``; the data class's own development task where left out."""
    criterion: str | None = None
    """A label-free score on the target, by name; the source's validation accuracy if left out."""
    criteria: dict[str, str] = Field(default={})
    """Other scores for some methods, ``{BNM: InformationMaximisation}``: those whose own loss the
    criterion is."""
    options: dict[str, dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]]] = Field(
        default={}
    )
    """Options of methods to try with every rate: ``{DANN: {trade_off: [0.3, 1, 3]}}``. It takes a
    criterion, since the source can't tell how much of the target a method should heed."""

    def criterion_of(self, method: str) -> str | None:
        """The score that a method is tuned by; None for the source's validation accuracy."""
        return self.criteria.get(method, self.criterion)

    def combinations(self, method: str) -> list[dict[str, Any]]:
        """The combinations of a method's tuned options; an empty one where it has none."""
        return combinations(self.options.get(method, {}))


def combinations(values: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """Every combination of the values of several settings.

    >>> combinations({"a": [1, 2], "b": [3]}), combinations({})
    ([{'a': 1, 'b': 3}, {'a': 2, 'b': 3}], [{}])
    """
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]
