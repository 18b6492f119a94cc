"""Scores without target labels, of one evaluation and of all of a training's so far."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from da.selection.base import Evidence, Score, SetScore, SetState, find_score
from da.types import DataModule, Predictions, Split

if TYPE_CHECKING:
    from da.engine.evaluation import Forwarder


def scored_stream(streams: Iterable[str], data: DataModule) -> str:
    """The stream of the target that label-free scores are of, by name."""
    place = data.same_as.get("target/validation", "target/validation")
    return place if place in streams else "target/test"


def label_free_scores(
    predictions: Mapping[str, Predictions],
    place: str,
    data: DataModule,
    names: Sequence[str],
    forwarder: Forwarder,
) -> dict[str, float | None]:
    """Scores by name, None where one is not a number. They see no label of the target.

    Scores of a set are left out: see :func:`score_sets`.
    """
    found = {name: find_score(name) for name in names}
    chosen = {name: one for name, one in found.items() if isinstance(one, Score)}
    source: dict[Split, Predictions] = {}
    for split in {split for one in chosen.values() for split in one.needs}:
        stream = data.same_as.get(f"source/{split}", f"source/{split}")
        seen = stream in predictions
        source[split] = predictions[stream] if seen else forwarder.predict("source", split)
    evidence = Evidence(
        predictions[place]._replace(labels=None),
        source,
        data.seed,
        partial(forwarder.images, place, len(predictions[place].logits)),
        forwarder.logits,
    )
    values = {name: one(evidence) for name, one in chosen.items()}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


KeptSets = dict[str, dict[str, tuple[list[int], SetState]]]
"""Of each score of a set and each form of the network: the numbers of the evaluations that the set
is of, and what the score keeps of them."""


def score_sets(
    history: Sequence[dict[str, Any]],
    kept: KeptSets,
    logits: Mapping[str, Tensor],
    names: Sequence[str],
) -> None:
    """Scores all evaluations so far against one another; earlier values change with each of them.

    Args:
        history: the evaluations, of which the last is new; their scores are filled in.
        kept: of the earlier evaluations, to which the new one is added. Those from before a resumed
            training that asked for no such score are missing.
        logits: of the new one on the target, by form, ``(N, K)``.
        names: of all scores; nothing happens, and nothing is kept, where none is of a set.
    """
    scores = {name: find_score(name) for name in names}
    sets = {name: one for name, one in scores.items() if isinstance(one, SetScore)}
    for (name, score), (form, one) in itertools.product(sets.items(), logits.items()):
        numbers, before = kept.setdefault(name, {}).get(form, ([], None))
        numbers, state = [*numbers, len(history) - 1], score.extend(before, evidence_of_logits(one))
        kept[name][form] = numbers, state
        for number, value in zip(numbers, score.values(state), strict=True):
            for stream in history[number]["forms"][form].values():
                if "label_free" in stream:
                    stream["label_free"][name] = value if math.isfinite(value) else None


def sets_of_logits(kept: Mapping[int, Mapping[str, Tensor]], names: Sequence[str]) -> KeptSets:
    """What is kept by now, from what earlier versions kept: all logits.

    Args:
        kept: logits by number of the evaluation and form.
        names: of all scores.
    """
    found: KeptSets = {}
    for name in names:
        score = find_score(name)
        if not isinstance(score, SetScore):
            continue
        for number, logits in kept.items():
            for form, one in logits.items():
                numbers, before = found.setdefault(name, {}).get(form, ([], None))
                state = score.extend(before, evidence_of_logits(one))
                found[name][form] = [*numbers, number], state
    return found


def evidence_of_logits(logits: Tensor) -> Evidence:
    """What is known of a network of which only its logits ``(N, K)`` on the target are."""
    return Evidence(Predictions(logits, None, torch.empty(len(logits), 0)), {})
