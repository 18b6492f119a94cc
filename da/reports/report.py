"""Writes a report from nothing but the results on disk: Markdown, CSV, tidy CSV and pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from da.grids.plan import Plan
from da.grids.store import Store
from da.ops.files import write_atomically
from da.reports import alarms, rate_range, setting_scores, stability, unlabelled_scores
from da.reports.runs import Column, Run, load_runs, scores, tidy
from da.reports.stopping import half_widths
from da.reports.tables import Line, Table, tables
from da.reports.texts import (
    LEGEND,
    SCORED_IMAGES,
    data_remarks,
    difference_rows,
    field_text,
    grid_table,
    left_out_texts,
    missing,
    notes,
    partial,
    percent,
    title,
    unlabelled_notes,
)
from da.reports.verdicts import verdict


def markdown(plan: Plan, runs: list[Run], shown: list[Table]) -> str:
    """The whole report."""
    grid = plan.grid
    comparisons = shown[0].comparisons if shown else 1
    lines = ["# BN or WA under shift", ""]
    if incomplete := partial(runs):
        lines += [f"**{incomplete[0].upper()}{incomplete[1:]}.**", ""]
    lines += [*_facts(plan, runs), ""]
    for paragraph in LEGEND:
        lines += [paragraph.format(seeds=len(grid.seeds), comparisons=comparisons), ""]
    if any(table.has_labels for table in shown):
        lines += ["![accuracy by task and normaliser](figure.png)", ""]
    for row in grid.rows:
        for method in grid.methods:
            mine = [t for t in shown if t.row == row and t.method == method]
            lines += [f"## {method}, {row} learning rate", ""]
            for table in mine:
                if not table.has_labels:
                    continue
                lines += [f"### {title(table)}", "", *_accuracies(table), ""]
                if table.stream == "target/test":
                    lines += [*_differences(table), ""]
                    lines += [f"- {text}" for text in notes(table)]
                lines += [f"- {text}" for text in left_out_texts(table)]
                lines += [""] if lines[-1] else []
            if noted := unlabelled_notes(mine):
                lines += [*noted, ""]
            lines += unlabelled_scores.markdown(plan, runs, row, method)
            lines += [f"- {verdict(t)}" for t in mine if t.stream == "target/test" and t.has_labels]
            lines.append("")
    lines += stability.markdown(stability.stabilities(runs))
    lines += alarms.markdown(runs)
    lines += setting_scores.markdown(setting_scores.setting_scores(plan, runs), grid.score)
    lines += rate_range.markdown(rate_range.rate_ranges(plan, shown))
    if absent := missing(runs):
        lines += [f"## Missing: {len(absent)} of {len(runs)} runs", ""]
        lines += [f"- {text}" for text in absent] + [""]
    if plan.refused:
        lines += ["## Refused", "", *(f"- {text}" for text in plan.refused), ""]
    lines += ["## Learning rates", "", *_rates(runs), ""]
    return "\n".join(lines)


def _facts(plan: Plan, runs: list[Run]) -> list[str]:
    grid = plan.grid
    length = (
        f"{grid.samples} samples of each domain in {grid.epochs} epochs"
        if grid.samples
        else f"{grid.epochs} epochs x {grid.steps_per_epoch} steps"
    )
    batches: tuple[Any, ...] = grid.sweep.get("batch_size", (grid.batch_size,))
    if grid.overrides or grid.quick:  # they differ by method or task: what the cells say
        lengths: dict[str, dict[str, None]] = {}
        for c in plan.cells:
            text = f"{c.epochs} epochs x {c.steps_per_epoch} steps"
            lengths.setdefault(c.method, {})[text] = None
        length = ", ".join(f"{method} {' or '.join(texts)}" for method, texts in lengths.items())
        batches = tuple(dict.fromkeys(c.batch_size for c in plan.cells))
    results = [run.result for run in runs if run.result is not None]
    facts = [
        f"- command: `{plan.command}`",
        f"- data: {grid.data}, {len(plan.tasks)} tasks, seeds {', '.join(map(str, grid.seeds))}",
        f"- training: {length}, batch {', '.join(map(str, batches))} per domain, "
        f"model {grid.model or 'default'}, {grid.precision} on {grid.device}, "
        f"{grid.threads} thread(s) per run",
        f"- runs: {len(results)} of {len(runs)} finished",
    ]
    if plan.scored_images != "held out":
        facts.append(
            "- label-free selection: the target has no validation images of its own; scores are "
            f"of {SCORED_IMAGES[plan.scored_images]}"
        )
    facts += [f"- data: {text}" for text in data_remarks(runs)]
    if grid.stop_at is not None:
        text = (
            f"seeds were added until all averages on these tasks are known to ± {grid.stop_at:g} "
            "points, which was named beforehand, or none was left"
        )
        if not half_widths(tidy(runs), grid):
            text = (
                f"± {grid.stop_at:g} points were named beforehand, and nothing can be compared: "
                "the rule was not applied"
            )
        facts.append(f"- stopping: {text}")
    for name, values in {
        "machine": {result.machine for result in results},
        "code": {result.versions.get("code", "") for result in results},
        "versions": {_versions(result.versions) for result in results},
    }.items():
        if values - {""}:
            note = " (they differ: WARNING)" if len(values) > 1 and name != "machine" else ""
            facts.append(f"- {name}: {'; '.join(sorted(values))}{note}")
    return facts + _manifests(plan, runs)


def _manifests(plan: Plan, runs: list[Run]) -> list[str]:
    """Checksums of the data, which are those of a task; one task must have one.

    Where a share of the images is held out it is drawn by seed, and so each seed has one.
    """
    sums_of: dict[str, set[str]] = {task: set() for task in plan.tasks}
    alike: dict[tuple[str, int | None], set[str]] = {}
    for run in runs:
        if run.result is not None and run.result.data_manifest:
            cell, manifest = run.entry.cell, run.result.data_manifest[:12]
            seed = cell.seed if cell.data_args.get("validation") else None
            sums_of[cell.task].add(manifest)
            alike.setdefault((cell.task, seed), set()).add(manifest)
    shown = [f"{task} {' and '.join(sorted(sums))}" for task, sums in sums_of.items() if sums]
    note = ""
    if any(seed is not None for _, seed in alike):
        note = " (each seed holds out images of its own)"
    if any(len(sums) > 1 for sums in alike.values()):
        note = " (they differ within a task: WARNING)"
    return [f"- data manifest: {'; '.join(shown)}{note}"] if shown else []


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items() if name != "code")


def _accuracies(table: Table) -> list[str]:
    header = ["task", *map(str, table.columns), "sampling error (n)"]
    rows = []
    for line in table.lines:
        texts = [_bold(line, column) for column in table.columns]
        error = "–" if line.sampling_error is None else f"{percent(line.sampling_error)} ({line.n})"
        rows.append([line.label, *texts, "" if line.is_average else error])
    return grid_table(header, rows)


def _bold(line: Line, column: Column) -> str:
    text = field_text(line.fields[column], line.is_average)
    return f"**{text}**" if column in line.best else text


def _differences(table: Table) -> list[str]:
    if not table.lines or not table.lines[0].differences:
        return []
    header = ["task", *(difference.name for difference in table.lines[0].differences)]
    return grid_table(header, [[label, *texts] for label, texts, _ in difference_rows(table)])


def _rates(runs: list[Run]) -> list[str]:
    """Learning rates by method, normaliser and batch size."""
    rates: dict[tuple[str, ...], dict[str, None]] = {}
    for run in runs:
        cell = run.entry.cell
        key = (run.entry.row, cell.method, cell.norm, str(cell.batch_size))
        rates.setdefault(key, {})[f"{cell.lr:g}"] = None  # by task, where overrides say so
    return grid_table(
        ["row", "method", "normaliser", "batch", "learning rate"],
        [[*key, ", ".join(values)] for key, values in rates.items()],
    )


def table_rows(shown: list[Table]) -> list[dict[str, Any]]:
    """The tables as rows of a CSV, accuracies and differences in percent, unrounded."""
    rows = []
    for table in shown:
        for line in table.lines:
            row: dict[str, Any] = {
                "lr_row": table.row,
                "method": table.method,
                "selection": table.selection,
                "stream": table.stream,
                "task": line.task or "average",
                **line.point,
                "tasks": len(line.tasks) if line.is_average else 1,
                "sampling_error": _scaled(line.sampling_error),
            }
            for column, field in line.fields.items():
                whole = field.summary
                row[f"{column} mean"] = _scaled(whole.mean if whole else None)
                row[f"{column} std"] = _scaled(whole.std if whole else None)
                row[f"{column} seeds"] = whole.n if whole else field.done
            for difference in line.differences:
                these = difference.these
                row[difference.name] = _scaled(these.difference if these else None)
                for question, paired in (
                    ("on these tasks", these),
                    ("on tasks like these", difference.like),
                ):
                    for key in ("low", "high", "detectable"):
                        value = getattr(paired, key) if paired else None
                        row[f"{difference.name} {question} {key}"] = _scaled(value)
            rows.append(row)
    return rows


def _scaled(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 4)


def csv_text(rows: list[dict[str, Any]], header: Sequence[str] = ()) -> str:
    """Rows with equal keys as CSV; None is an empty field.

    Args:
        rows: nothing is written of none, unless there is a header.
        header: the keys, for tables that may have no row.
    """
    buffer = io.StringIO()
    names = list(dict.fromkeys([*header, *(key for row in rows for key in row)]))
    if names:
        writer = csv.DictWriter(buffer, names, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)
    return buffer.getvalue()


def files(out: Path) -> str:
    """What a report consists of."""
    pictures = ", figure.png, figure.svg" if (out / "figure.png").exists() else ""
    return f"{out}/report.md, table.csv, runs.csv, scores.csv{pictures}"


def write(out: Path, plan: Plan) -> tuple[list[Run], list[Table]]:
    """Rebuilds all files of a report and returns what they show."""
    from da.reports.figures import save

    runs = load_runs(Store(out), plan)
    shown = tables(plan, runs)
    write_atomically(out / "report.md", markdown(plan, runs, shown))
    write_atomically(out / "table.csv", csv_text(table_rows(shown)))
    write_atomically(out / "runs.csv", csv_text(tidy(runs)))
    write_atomically(out / "scores.csv", csv_text(scores(runs)))
    save(out, plan, shown)
    return runs, shown
