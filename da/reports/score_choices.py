"""What label-free scores choose in finished trainings, epochs and settings, and what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Literal

from da.engine.result import Evaluation, Result, validation_scores
from da.engine.run_folder import RESULT, read_result
from da.engine.spec import RunSpec, canonical_json
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

SETTINGS = ("lr", "method_args")
"""What is chosen among several settings; all else must be equal."""

Candidate = tuple[Result, Evaluation]
"""An evaluation, with the training that it is of."""


@dataclass(frozen=True)
class Choice:
    """What one score (or none) picks among some candidates.

    Attributes:
        kind: what the candidates are.
        data, task, method, seed: of the trainings.
        column: the normaliser in one of its forms.
        by: the name of the score, or ``last`` or ``any``.
        candidates: how many there are.
        runs: the trainings that they are of, each once.
        accuracy: of the pick on the target's test images; None where the score is not a number for
            some candidate, and nothing is picked.
        best: the highest accuracy of a candidate: the oracle's.
        source_only: accuracy at the last evaluation of source-only training that is equal in all
            but method, options of the method and, where there is one alone, the learning rate (a
            tuned grid has one of its own for each method); among settings of what is picked in the
            same way from source-only trainings at the same rates. None where there is none, and
            of source-only itself.
        references: the trainings that ``source_only`` is of.
        picked: the training that the pick is of; None where nothing is picked, or no single one.
        epoch: of the pick, as the result counts them; None as before, and of an even draw.
        correlation: of score and accuracy, see :func:`da.ops.rank_correlation.weighted_spearman`.
    """

    kind: Kind
    data: str
    task: str
    method: str
    seed: int
    column: Column
    by: str
    candidates: int
    runs: tuple[str, ...]
    accuracy: float | None
    best: float
    source_only: float | None
    references: tuple[str, ...]
    picked: RunSpec | None
    epoch: int | None
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
        compared: of how many choices that is.
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
    compared: int
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


def is_labelled(result: Result) -> bool:
    """Whether the accuracy on the target is known."""
    return result.evaluations[-1].forms[""]["target/test"].accuracy is not None


def choices(results: Sequence[Result]) -> list[Choice]:
    """Every choice that there is to make, by every score, and by none.

    Raises:
        UserError: there is nothing to choose, or nothing known of what is chosen.
    """
    labelled = [result for result in results if is_labelled(result)]
    if not labelled:
        raise UserError(
            "no target has labels, so nothing is known of what a score would cost; label-free "
            "scores of such trainings are in scores.csv, which report writes"
        )
    source_only = _source_only(labelled)
    made: list[Choice] = []
    for result in labelled:
        rivals = _rivals(source_only, [result])
        for form in result.forms:
            evaluations = [(result, evaluation) for evaluation in result.evaluations]
            made += _choose("epochs", form, evaluations, rivals if len(rivals) == 1 else [])
    for group in _settings(labelled):
        rivals = _rivals(source_only, group)
        for form in group[0].forms:
            if all(form in result.forms for result in group):
                made += _choose("settings", form, [_at_last(one) for one in group], rivals)
    if not made:
        raise UserError(
            "there is nothing to choose: each training was evaluated once, and no two of them "
            "differ in nothing but the learning rate and options of the method"
        )
    return made


def _alike(spec: RunSpec, apart: Iterable[str]) -> str:
    """What decides a training but for some settings."""
    settings = spec.identity()
    return canonical_json({key: settings[key] for key in settings.keys() - {*apart}})


def _settings(results: Sequence[Result]) -> list[list[Result]]:
    """Trainings that differ in :data:`SETTINGS` alone, the lowest learning rate first."""
    groups: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda r: (r.spec.lr, r.run)):
        groups.setdefault(_alike(result.spec, SETTINGS), []).append(result)
    return [group for group in groups.values() if len(group) > 1]


def _source_only(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Source-only trainings by all but their :data:`SETTINGS`."""
    found: dict[str, list[Result]] = {}
    for result in results:
        if result.spec.method == REFERENCE:
            found.setdefault(_alike(result.spec, ("method", *SETTINGS)), []).append(result)
    return found


def _rivals(source_only: dict[str, list[Result]], group: Sequence[Result]) -> list[Result]:
    """Source-only trainings like those of a group at each of its rates; none if a rate lacks.

    Trainings of one rate may also be compared with the only source-only training that there is: in
    a tuned grid each method has its own rate, and source-only another one.
    """
    if group[0].spec.method == REFERENCE:
        return []
    alike = source_only.get(_alike(group[0].spec, ("method", *SETTINGS)), [])
    rates = {one.spec.lr for one in group}
    if len(rates) == len(alike) == 1:
        return alike
    found = [one for one in alike if one.spec.lr in rates]
    return found if {one.spec.lr for one in found} == rates else []


def _at_last(result: Result) -> Candidate:
    return result, result.evaluations[-1]


def _accuracy(evaluation: Evaluation, form: str) -> float:
    accuracy = evaluation.forms[form]["target/test"].accuracy
    assert accuracy is not None  # of a target with labels
    return accuracy


@dataclass(frozen=True)
class _Pick:
    """What one score picks: its number among the candidates, if it is one, and its accuracy."""

    accuracy: float | None
    number: int | None = None
    correlation: float | None = None


def _picks(kind: Kind, form: str, candidates: Sequence[Candidate]) -> dict[str, _Pick]:
    """What each score picks among candidates, the first of equal ones, and what none picks."""
    accuracies = [_accuracy(evaluation, form) for _, evaluation in candidates]
    picks = {EVEN: _Pick(fmean(accuracies))}
    if kind == "epochs":
        picks = {LAST: _Pick(accuracies[-1], len(accuracies) - 1), **picks}
    free = [validation_scores(evaluation.forms[form]).label_free for _, evaluation in candidates]
    for name in dict.fromkeys(name for one in free for name in one):
        if kind == "settings" and not compares_trainings(name):
            continue
        values = [one.get(name) for one in free]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            picks[name] = _Pick(None)
            continue
        best = known.index(max(known))
        picks[name] = _Pick(accuracies[best], best, weighted_spearman(known, accuracies))
    return picks


def _choose(
    kind: Kind, form: str, candidates: Sequence[Candidate], rivals: Sequence[Result]
) -> list[Choice]:
    """The choices among some candidates; nothing among one.

    Args:
        kind: what the candidates are.
        form: of the network.
        candidates: of one training, or one of each of several.
        rivals: what they are compared with.
    """
    if len(candidates) < 2:
        return []
    spec = candidates[0][0].spec
    runs = tuple(dict.fromkeys(result.run for result, _ in candidates))
    rivals = rivals if all(form in rival.forms for rival in rivals) else []
    others = _picks(kind, form, [_at_last(rival) for rival in rivals]) if rivals else {}
    made = []
    for by, pick in _picks(kind, form, candidates).items():
        # Of one training it is the last evaluation, whatever picks among those of the other.
        other = others.get(LAST if kind == "epochs" else by)
        picked, at = (None, None) if pick.number is None else candidates[pick.number]
        choice = Choice(
            kind=kind,
            data=spec.data,
            task=spec.task,
            method=spec.method,
            seed=spec.seed,
            column=Column(spec.norm, form),
            by=by,
            candidates=len(candidates),
            runs=runs,
            accuracy=pick.accuracy,
            best=max(_accuracy(evaluation, form) for _, evaluation in candidates),
            source_only=other.accuracy if other else None,
            references=tuple(rival.run for rival in rivals),
            picked=picked.spec if picked else None,
            epoch=at.epoch if at else None,
            correlation=pick.correlation,
        )
        made.append(choice)
    return made


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
        compared=len(gains),
        correlation=fmean(correlations) if correlations else None,
    )
