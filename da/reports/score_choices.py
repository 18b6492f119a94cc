"""What label-free scores choose in finished trainings, epochs and settings, and what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Literal

from da.engine.result import Result, Scores, validation_scores
from da.engine.run_folder import RESULT, read_result
from da.engine.spec import NOT_OF_THE_DATA, RunSpec, canonical_json
from da.errors import UserError
from da.grids import plan as plans
from da.grids.store import PLAN, Store
from da.ops.rank_correlation import weighted_spearman
from da.reports.runs import Column
from da.reports.stability import REFERENCE
from da.selection.base import compares_trainings

Kind = Literal["epochs", "settings"]
"""What is chosen among: the evaluations of one training, or trainings that differ in a setting."""

LAST = "last"
EVEN = "any"
"""No score: the last evaluation, and one that is drawn evenly, of which the expectation counts."""

Place = tuple[str, str, str, int]
"""Data with its options, task, normaliser, seed: what trainings must share to be compared."""


@dataclass(frozen=True)
class Choice:
    """What one score (or none) picks among some candidates.

    Attributes:
        kind: what the candidates are.
        task, method, seed: of the trainings.
        column: the normaliser in one of its forms.
        by: the name of the score, or ``last`` or ``any``.
        candidates: how many there are.
        accuracy: of the pick on the target's test images; None where the score is not a number for
            some candidate, and nothing is picked.
        best: the highest accuracy of a candidate: the oracle's.
        source_only: accuracy of source-only training in the same place at its last evaluation, the
            mean over its settings; None where there is none, and of source-only itself.
        correlation: of score and accuracy, see :func:`da.ops.rank_correlation.weighted_spearman`.
    """

    kind: Kind
    task: str
    method: str
    seed: int
    column: Column
    by: str
    candidates: int
    accuracy: float | None
    best: float
    source_only: float | None
    correlation: float | None = None

    @property
    def regret(self) -> float | None:
        """What the choice costs against the oracle's."""
        return None if self.accuracy is None else self.best - self.accuracy

    @property
    def gain(self) -> float | None:
        """How far the pick is above source-only."""
        known = self.accuracy is not None and self.source_only is not None
        return self.accuracy - self.source_only if known else None  # type: ignore[operator]


@dataclass(frozen=True)
class Summary:
    """The choices of one score with one normaliser; shares and means are over those that it makes.

    Attributes:
        kind, column, by: as of :class:`Choice`.
        choices: how many it makes.
        unanswered: where it is not a number for some candidate.
        mean, median: of the regrets; None without any.
        within: share of regrets of at most 2 points.
        above: share of more than 10 points.
        gain: mean gain over source-only, where there is such a training.
        correlation: mean weighted correlation, where score and accuracy vary.
    """

    kind: Kind
    column: Column
    by: str
    choices: int
    unanswered: int
    mean: float | None
    median: float | None
    within: float | None
    above: float | None
    gain: float | None
    correlation: float | None


def load_results(folders: Iterable[Path]) -> list[Result]:
    """The finished trainings in output folders of ``ablate``, ``tune`` or ``fit``, each once.

    Of a grid they are those of its plan.

    Raises:
        UserError: a folder holds none, or one of them is damaged.
    """
    found: dict[str, Result] = {}
    for folder in folders:
        mine = _results_in(folder)
        if not mine:
            raise UserError(
                f"'{folder}' holds no finished training; expected an output folder of ablate, tune "
                "or fit"
            )
        found |= {result.run: result for result in mine}
    return list(found.values())


def _results_in(folder: Path) -> list[Result]:
    if (folder / PLAN).is_file():
        store = Store(folder)
        results = (store.result(cell) for cell in plans.read(folder).cells)
        return [result for result in results if result is not None]
    files = [folder / RESULT, *sorted(folder.glob(f"{Store.folder}/*/{RESULT}"))]
    return [read_result(file.parent) for file in files if file.is_file()]


def choices(results: Sequence[Result]) -> list[Choice]:
    """Every choice that there is to make, by every score, and by none.

    Raises:
        UserError: there is nothing to choose, or nothing known of what is chosen.
    """
    labelled = [
        result
        for result in results
        if result.evaluations[-1].forms[""]["target/test"].accuracy is not None
    ]
    if not labelled:
        raise UserError(
            "no target has labels, so nothing is known of what a score would cost; label-free "
            "scores of such trainings are in scores.csv, which report writes"
        )
    source_only = _source_only(labelled)
    made: list[Choice] = []
    for result in labelled:
        for form in result.forms:
            candidates = [evaluation.forms[form] for evaluation in result.evaluations]
            made += _choose("epochs", result.spec, form, candidates, source_only)
    for group in _settings(labelled):
        for form in group[0].forms:
            if any(form not in result.forms for result in group):
                continue
            candidates = [result.evaluations[-1].forms[form] for result in group]
            made += _choose("settings", group[0].spec, form, candidates, source_only)
    if not made:
        raise UserError(
            "there is nothing to choose: each training was evaluated once, and no two of them "
            "differ in nothing but a setting"
        )
    return made


def _place(spec: RunSpec) -> Place:
    options = {k: v for k, v in spec.data_args.items() if k not in NOT_OF_THE_DATA}
    data = canonical_json([spec.data, spec.data_version, options])
    return (data, spec.task, spec.norm, spec.seed)


def _settings(results: Sequence[Result]) -> list[list[Result]]:
    """Trainings of one method in one place, of several settings, the lowest learning rate first."""
    groups: dict[tuple[Place, str], list[Result]] = {}
    for result in sorted(results, key=lambda r: (r.spec.lr, r.run)):
        groups.setdefault((_place(result.spec), result.spec.method), []).append(result)
    return [group for group in groups.values() if len(group) > 1]


def _source_only(results: Sequence[Result]) -> dict[tuple[Place, str], float]:
    """Accuracy by place and form at the last evaluation, the mean over settings."""
    found: dict[tuple[Place, str], list[float]] = {}
    for result in results:
        if result.spec.method == REFERENCE:
            for form, streams in result.evaluations[-1].forms.items():
                accuracy = _accuracy(streams)
                found.setdefault((_place(result.spec), form), []).append(accuracy)
    return {key: fmean(values) for key, values in found.items()}


def _accuracy(streams: dict[str, Scores]) -> float:
    accuracy = streams["target/test"].accuracy
    assert accuracy is not None  # of a target with labels
    return accuracy


def _choose(
    kind: Kind,
    spec: RunSpec,
    form: str,
    candidates: Sequence[dict[str, Scores]],
    source_only: dict[tuple[Place, str], float],
) -> list[Choice]:
    """What each score picks among the candidates, the first of equal ones; nothing among one."""
    if len(candidates) < 2:
        return []
    accuracies = [_accuracy(streams) for streams in candidates]
    picks: dict[str, tuple[float | None, float | None]] = {EVEN: (fmean(accuracies), None)}
    if kind == "epochs":
        picks = {LAST: (accuracies[-1], None), **picks}
    free = [validation_scores(streams).label_free for streams in candidates]
    for name in dict.fromkeys(name for one in free for name in one):
        if kind == "settings" and not compares_trainings(name):
            continue
        values = [one.get(name) for one in free]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            picks[name] = (None, None)
            continue
        picked = accuracies[known.index(max(known))]
        picks[name] = (picked, weighted_spearman(known, accuracies))
    reference = None if spec.method == REFERENCE else source_only.get((_place(spec), form))
    return [
        Choice(
            kind=kind,
            task=spec.task,
            method=spec.method,
            seed=spec.seed,
            column=Column(spec.norm, form),
            by=by,
            candidates=len(candidates),
            accuracy=accuracy,
            best=max(accuracies),
            source_only=reference,
            correlation=correlation,
        )
        for by, (accuracy, correlation) in picks.items()
    ]


def summaries(made: Sequence[Choice]) -> list[Summary]:
    """One for each kind, normaliser and score; those by no score first, then by mean regret."""
    groups: dict[tuple[Kind, Column, str], list[Choice]] = {}
    for choice in made:
        groups.setdefault((choice.kind, choice.column, choice.by), []).append(choice)
    places = list(dict.fromkeys((kind, column) for kind, column, _ in groups))
    order = sorted(places, key=lambda place: (place[0], str(place[1])))
    found = [_summary(*key, mine) for key, mine in groups.items()]
    return sorted(
        found,
        key=lambda s: (
            order.index((s.kind, s.column)),
            s.by not in (LAST, EVEN),
            s.mean is None,
            s.mean or 0.0,
            s.by,
        ),
    )


def _summary(kind: Kind, column: Column, by: str, mine: Sequence[Choice]) -> Summary:
    regrets = [choice.regret for choice in mine if choice.regret is not None]
    gains = [choice.gain for choice in mine if choice.gain is not None]
    correlations = [choice.correlation for choice in mine if choice.correlation is not None]
    return Summary(
        kind=kind,
        column=column,
        by=by,
        choices=len(regrets),
        unanswered=len(mine) - len(regrets),
        mean=fmean(regrets) if regrets else None,
        median=median(regrets) if regrets else None,
        # Accuracies are ratios of whole numbers: 2 points are 2 points, whatever their sum.
        within=fmean(regret <= 0.02 + 1e-9 for regret in regrets) if regrets else None,
        above=fmean(regret > 0.1 + 1e-9 for regret in regrets) if regrets else None,
        gain=fmean(gains) if gains else None,
        correlation=fmean(correlations) if correlations else None,
    )
