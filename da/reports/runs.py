"""The results of a plan as runs, and as tidy rows for other tools."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from da.engine.result import (
    DEFAULT_SCORE,
    SELECTIONS,
    Evaluation,
    Result,
    Selection,
    select_evaluation,
)
from da.grids.plan import Entry, Plan
from da.grids.store import State, Store
from da.ops.files import path_from

FORMS = ("", "source-stats", "target-stats")
"""Known forms in the order in which they are shown."""


@dataclass(frozen=True)
class Column:
    """A normaliser in one of its forms, ``bn@target-stats``."""

    norm: str
    form: str = ""

    def __str__(self) -> str:
        return f"{self.norm}@{self.form}" if self.form else self.norm

    @classmethod
    def named(cls, name: str) -> Column:
        """The column of ``bn@target-stats``, as a grid names it."""
        norm, _, form = name.partition("@")
        return cls(norm, form)


@dataclass(frozen=True)
class Run:
    """One place of the grid and what came of it."""

    entry: Entry
    state: State
    reason: str = ""
    result: Result | None = None
    score: str = DEFAULT_SCORE
    """The label-free score that picks the epoch."""
    folder: str = ""
    """Where its files lie, from the report's folder on."""

    def selected(self, form: str, selection: Selection) -> Evaluation | None:
        """The evaluation that a selection picks, None where it can't tell."""
        if self.result is None or form not in self.result.forms:
            return None
        return select_evaluation(self.result, form, selection, self.score)

    def accuracy(
        self, form: str, selection: Selection, stream: str = "target/test"
    ) -> float | None:
        """The accuracy of the selected epoch on a stream, None where there is none."""
        chosen = self.selected(form, selection)
        return None if chosen is None else chosen.forms[form][stream].accuracy


def load_runs(store: Store, plan: Plan, out: Path | None = None) -> list[Run]:
    """Every place of the grid with its result, in the order of the plan.

    Args:
        store: the folder of the results.
        plan: what was to be trained.
        out: where the runs' folders are named from, by default the same.
    """
    loaded: dict[str, tuple[State, str, Result | None]] = {}
    for cell in plan.cells:
        result = store.result(cell)
        failure = None if result else store.failure(cell)
        state: State = "done" if result else failure.state if failure else "pending"
        loaded[cell.id] = (state, failure.reason if failure else "", result)
    return [
        Run(
            entry,
            *loaded[entry.cell.id],
            score=plan.grid.score,
            folder=path_from(out or store.root, store.directory(entry.cell)),
        )
        for entry in plan.entries
    ]


def columns(runs: list[Run], norms: list[str]) -> list[Column]:
    """The normalisers in the grid's order, each followed by the forms that any run has."""
    shown: list[Column] = []
    for norm in norms:
        present = {""}
        for run in runs:
            if run.entry.cell.norm == norm and run.result is not None:
                present |= set(run.result.forms)
        others = sorted(present - set(FORMS))
        shown += [Column(norm, form) for form in (*FORMS, *others) if form in present]
    return shown


def tidy(runs: list[Run]) -> list[dict[str, Any]]:
    """One row per run, with its accuracy on the target's test images in every form.

    The columns are ``last``, ``label-free``, ``oracle``, then the same ``@source-stats`` and so on.
    """
    return _filled(
        [
            _settings(run)
            | {
                str(Column(selection, form)): run.accuracy(form, selection)
                for form in (run.result.forms if run.result else ())
                for selection in SELECTIONS
            }
            for run in runs
        ]
    )


def scores(runs: list[Run]) -> list[dict[str, Any]]:
    """One row per finished run, form and pick, with every score of every stream.

    Picks are the selections, and what the other scores of the run pick without labels.
    """
    return _filled(
        [
            _settings(run) | _scores(by, run.result, form, selection, title)
            for run in runs
            if run.result is not None
            for form in run.result.forms
            for by, selection, title in _picks(run)
        ]
    )


def _picks(run: Run) -> list[tuple[Run, Selection, str]]:
    """The run by the score of each pick, the selection, and what the pick is called."""
    others = [score for score in run.entry.cell.scores if score != run.score]
    return [(run, selection, selection) for selection in SELECTIONS] + [
        (replace(run, score=score), "label-free", f"label-free ({score})") for score in others
    ]


def _filled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return [{key: row.get(key) for key in keys} for row in rows]


def _settings(run: Run) -> dict[str, Any]:
    cell = run.entry.cell
    row: dict[str, Any] = {
        "cell": cell.id,
        "folder": None if run.state == "pending" else run.folder,
        "state": run.state,
        "lr_row": run.entry.row,
        "task": cell.task,
        "source": cell.source,
        "target": cell.target,
        "method": cell.method,
        "norm": cell.norm,
        "seed": cell.seed,
        "backbone": cell.backbone,
        "batch_size": cell.batch_size,
        # What is swept stands between these two, which may be swept, too.
        **{k: v for k, v in run.entry.point.items() if k not in ("batch_size", "lr")},
        "lr": cell.lr,
    }
    if run.result is not None:
        result = run.result
        row |= {
            "parameters": result.parameters,
            "lr_over_norm2": result.lr_over_norm2,
            "feature_deviation": result.feature_deviation,
            "initial_loss": result.initial_loss,
            "clipped_fraction": result.clipped_fraction,
            "alarms": _alarms(result),
            "seconds_training": result.seconds.training,
            "seconds_evaluation": result.seconds.evaluation,
            "seconds_total": result.seconds.total,
        }
    return row


def _alarms(result: Result) -> str | None:
    """``one-class@120 critic-perfect@250``, each with its step; None where nothing watched."""
    if result.alarms is None:
        return None
    return " ".join(f"{alarm.name}@{alarm.step}" for alarm in result.alarms) or "none"


def _scores(
    run: Run, result: Result, form: str, selection: Selection, title: str
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "normaliser": str(Column(run.entry.cell.norm, form)),
        "form": form,
        "selection": title,
        "evaluations": len(result.evaluations),
    }
    chosen = run.selected(form, selection)
    if chosen is None:
        return row
    row["epoch"] = chosen.epoch
    for stream, scores in chosen.forms[form].items():
        name = stream.replace("/", "_")
        row |= {
            f"{name}_n": scores.n,
            f"{name}_accuracy": scores.accuracy,
            f"{name}_class_mean": scores.class_mean,
            f"{name}_cross_entropy": scores.cross_entropy,
            **{f"{name}_{score}": value for score, value in scores.label_free.items()},
        }
    return row
