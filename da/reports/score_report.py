"""What label-free scores cost in finished trainings: Markdown, CSV and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from da.engine.result import Result
from da.engine.spec import canonical_json
from da.ops.csv_text import csv_text
from da.ops.files import write_atomically
from da.reports.figure_style import write
from da.reports.figures import column_styles
from da.reports.score_choices import EVEN, LAST, Choice, Kind, Summary, is_labelled
from da.reports.stability import REFERENCE
from da.reports.texts import grid_table, percent

TITLES: dict[Kind, str] = {
    "epochs": "Which evaluation of a training",
    "settings": "Which of several settings",
}

HEADER = [
    *("normaliser", "by", "choices", "mean regret", "median", "≤ 2", "> 10", "over source-only"),
    *("weighted Spearman", "no choice"),
]

LEGEND = (
    "Regret: accuracy of the oracle's pick less that of the score's, in points, on the target's "
    "test images; ≤ 2 and > 10: the share of choices in percent. The oracle knows these labels, so "
    "no regret is below 0, and some of it is chance. Scores are of the target's validation images, "
    "or of its test images where there are no others; of equal values the first counts.",
    f"*{LAST}*: the last evaluation. *{EVEN}*: one that is drawn evenly, the mean over candidates. "
    "What does not beat these two chooses nothing. Over source-only: accuracy of the pick less "
    "that of source-only training at its last evaluation, all else the same but the method and its "
    "options, and the learning rate where source-only was trained at one alone, as in a tuned "
    "grid; among settings less that of what the same score (or draw) picks from source-only "
    "trainings at the same rates. In points, the mean over the choices for which there is such a "
    "training, with their number where they are not all: source-only itself is none of them, and "
    "two normalisers compare where the numbers are the same. Weighted Spearman: of score and "
    "accuracy over the candidates, weights max(rank, rank)², the mean over the choices in which "
    "both vary. No choice: the score is not a number for some candidate.",
)

SETTINGS_LEGEND = (
    "Candidates are trainings at their last evaluation that differ in the learning rate and in "
    "options of the method; all else is equal: data, task, method, normaliser and seed, backbone, "
    "length, batch size and the rest. Those that diverged have no result and are none. Scores that "
    "compare the evaluations of one training with one another (EnsV) can't choose here."
)


def rows(found: Sequence[Summary], kind: Kind) -> list[list[str]]:
    """The table of one kind of choice, as texts under :data:`HEADER`."""
    return [
        [
            str(one.column),
            one.by,
            str(one.choices),
            _points(one.mean),
            _points(one.median),
            _points(one.within, 0),
            _points(one.above, 0),
            _gain(one),
            "–" if one.correlation is None else f"{one.correlation:.2f}",
            str(one.unanswered or ""),
        ]
        for one in found
        if one.kind == kind
    ]


def _gain(one: Summary) -> str:
    if one.gain is None:
        return "–"
    number = "" if one.compared == one.choices else f" ({one.compared})"
    return f"{round(100 * one.gain, 1) + 0:+.1f}{number}"


def _points(value: float | None, decimals: int = 1) -> str:
    if value is None:
        return "–"
    return percent(value) if decimals else f"{100 * value:.0f}"


def markdown(
    command: str, results: Sequence[Result], made: Sequence[Choice], found: Sequence[Summary]
) -> str:
    """The whole report."""
    lines = [
        "# What label-free scores choose",
        "",
        f"- command: `{command}`",
        *_trainings(results, made),
        "",
    ]
    for paragraph in LEGEND:
        lines += [paragraph, ""]
    lines += ["![mean regret by score and normaliser](figure.png)", ""]
    for kind, title in TITLES.items():
        numbers = [choice.candidates for choice in made if choice.kind == kind]
        lines += [f"## {title}", ""]
        if not numbers:
            lines += ["There is none to choose.", ""]
            continue
        lines += [SETTINGS_LEGEND, ""] if kind == "settings" else []
        few, many = min(numbers), max(numbers)
        lines += [f"Candidates of a choice: {few if few == many else f'{few} to {many}'}.", ""]
        lines += [*grid_table(HEADER, rows(found, kind), left=(0, 1)), ""]
    return "\n".join(lines)


def _trainings(results: Sequence[Result], made: Sequence[Choice]) -> list[str]:
    """How many trainings entered a choice, those of what, and how many did not, and why."""
    chosen = {run for choice in made for run in choice.runs}
    compared = {run for choice in made for run in choice.references} - chosen
    used = [result for result in results if result.run in chosen]
    lines = [
        f"- trainings: {len(used)}, of {_named(r.spec.method for r in used)} on "
        f"{_named(r.spec.data for r in used)}: {_named(r.spec.task for r in used)}; seeds "
        f"{_named(str(r.spec.seed) for r in used)}"
    ]
    if compared:
        lines.append(f"- {len(compared)} more of {REFERENCE} are compared with, and no choice")
    rest = [result for result in results if result.run not in chosen | compared]
    unlabelled = sum(not is_labelled(result) for result in rest)
    reasons = {
        "whose target has no labels": unlabelled,
        "evaluated once, and unlike every other in more than learning rate and options of the "
        "method": len(rest) - unlabelled,
    }
    return lines + [f"- left out: {number}, {why}" for why, number in reasons.items() if number]


def _named(names: Any) -> str:
    return ", ".join(dict.fromkeys(names))


def tidy(made: Sequence[Choice]) -> list[dict[str, Any]]:
    """One row per choice, accuracies and differences as shares, with the runs that it is among."""
    return [
        {
            "kind": one.kind,
            "data": one.data,
            "task": one.task,
            "method": one.method,
            "normaliser": str(one.column),
            "seed": one.seed,
            "by": one.by,
            "candidates": one.candidates,
            "runs": " ".join(one.runs),
            "picked_run": one.picked.id if one.picked else None,
            "picked_epoch": one.epoch,
            "lr": one.picked.lr if one.picked else None,
            "method_args": canonical_json(one.picked.method_args) if one.picked else None,
            "accuracy": one.accuracy,
            "oracle": one.best,
            "regret": one.regret,
            "source_only": one.source_only,
            "source_only_runs": " ".join(one.references),
            "weighted_spearman": one.correlation,
        }
        for one in made
    ]


def table_rows(found: Sequence[Summary]) -> list[dict[str, Any]]:
    """The tables as rows of a CSV, unrounded."""
    return [
        {
            "kind": one.kind,
            "normaliser": str(one.column),
            "by": one.by,
            "choices": one.choices,
            "no_choice": one.unanswered,
            "mean_regret": one.mean,
            "median_regret": one.median,
            "share_within_2": one.within,
            "share_above_10": one.above,
            "gain_over_source_only": one.gain,
            "compared_with_source_only": one.compared,
            "weighted_spearman": one.correlation,
        }
        for one in found
    ]


def draw(found: Sequence[Summary]) -> Any:
    """A panel for each kind of choice: mean regrets, and medians as strokes, by score."""
    from matplotlib.figure import Figure

    kinds = [kind for kind in TITLES if any(one.kind == kind for one in found)]
    names = _by_regret(found)
    figure = Figure(figsize=(1.5 + 4.2 * len(kinds), 1.5 + 0.32 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    styles = column_styles(list(dict.fromkeys(one.column for one in found)))
    for panel, kind in zip(panels, kinds, strict=True):
        for index, (column, style) in enumerate(styles.items()):
            offset = 0.6 * ((index + 0.5) / len(styles) - 0.5)
            mine = [one for one in found if (one.kind, one.column) == (kind, column)]
            known = [one for one in mine if one.mean is not None]
            places = [names.index(one.by) + offset for one in known]
            means = [100 * one.mean for one in known if one.mean is not None]
            medians = [100 * one.median for one in known if one.median is not None]
            panel.plot(means, places, ls="none", ms=5, label=str(column), clip_on=False, **style)
            panel.plot(
                medians, places, ls="none", marker="|", ms=7, color=style["color"], clip_on=False
            )
        panel.set_title(TITLES[kind], fontsize="medium")
        panel.set_xlabel("regret (points)")
        panel.set_xlim(left=0)
        panel.grid(color="0.9")
        panel.set_axisbelow(True)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    figure.suptitle("mean over choices; stroke: median", fontsize="small")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
    return figure


def _by_regret(found: Sequence[Summary]) -> list[str]:
    """Names of scores, those of no score first, then by their mean regret over all tables."""
    means: dict[str, list[float]] = {}
    for one in found:
        means.setdefault(one.by, []).extend([] if one.mean is None else [one.mean])
    order = {name: sum(values) / len(values) if values else 9.0 for name, values in means.items()}
    return sorted(means, key=lambda name: (name not in (LAST, EVEN), order[name], name))


def write_report(
    out: Path,
    command: str,
    results: Sequence[Result],
    made: Sequence[Choice],
    found: Sequence[Summary],
) -> str:
    """Writes all files; names them."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "report.md", markdown(command, results, made, found))
    write_atomically(out / "table.csv", csv_text(table_rows(found)))
    write_atomically(out / "choices.csv", csv_text(tidy(made)))
    write(draw(found), out / "figure")
    return f"{out}/report.md, table.csv, choices.csv, figure.png, figure.svg"
