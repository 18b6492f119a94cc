"""Writes a report from nothing but the results on disk: Markdown, CSV, tidy CSV and pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from da.grids.plan import Plan
from da.grids.store import Store
from da.ops.files import write_atomically
from da.reports.runs import Column, Run, load_runs, scores, tidy
from da.reports.tables import Difference, Field, Line, Table, tables, verdict

LEGEND = (
    "Accuracy in percent, mean ± standard deviation over {seeds} seeds; bold: the highest mean of "
    "the line, which is no claim that the difference is more than noise. Differences in points, "
    "paired over seeds, with a 95 % interval (Student's t) corrected for the {comparisons} "
    "lines of a table (Bonferroni); ▲ and ▼: the interval excludes 0. Sampling error: the "
    "binomial standard error of an accuracy on that many test images, the largest in the line. "
    "bn@source-stats and bn@target-stats: the same weights with statistics re-estimated on "
    "unlabelled images of one domain. The line of the average holds the difference of task means "
    "with an uncorrected interval over tasks and Wilcoxon's exact test, for these tasks: they "
    "share domains and are not independent."
)


def percent(value: float) -> str:
    """One decimal.

    >>> percent(0.98765)
    '98.8'
    """
    return f"{100 * value:.1f}"


def field_text(field: Field, average: bool = False) -> str:
    """``93.1 ± 0.4``, or a dash with what is missing."""
    if field.summary is not None:
        std = field.summary.std
        return percent(field.summary.mean) + (f" ± {percent(std)}" if std is not None else "")
    if average:
        return "–"
    if not field.planned:
        return "no rate"
    if field.diverged:
        return f"diverged ({field.diverged} of {field.planned})"
    return f"– ({field.done} of {field.planned})" if field.done else "–"


def difference_text(difference: Difference) -> str:
    """``+1.2 [+0.3, +2.1] ▲``, or why there is no interval."""
    paired = difference.paired
    if paired is None:
        return "–"
    text = f"{100 * paired.difference:+.1f}"
    if paired.low is None or paired.high is None:
        return f"{text} (not testable: {paired.reason})"
    mark = {1: " ▲", -1: " ▼", 0: ""}[paired.sign]
    return f"{text} [{100 * paired.low:+.1f}, {100 * paired.high:+.1f}]{mark}"


def over_tasks(line: Line) -> list[str]:
    """The tests of an average line, in words."""
    texts = []
    for difference in line.differences:
        paired, rank = difference.paired, difference.signed_rank
        if paired is None or rank is None:
            continue
        tests = [f"t-test p = {paired.p:.3f}"] if paired.p is not None else []
        if rank.p is not None:
            tests.append(f"exact Wilcoxon p = {rank.p:.3f}")
        else:
            tests.append(f"exact Wilcoxon not testable ({rank.reason})")
        over = f"{paired.n} task{'s' * (paired.n > 1)}"
        texts.append(
            f"{difference.name} over {over}, for these tasks: {difference_text(difference)}; "
            + "; ".join(tests)
        )
    return texts


def title(table: Table) -> str:
    """What a table shows: the selection and how it chose."""
    counts = " or ".join(map(str, table.evaluations)) or "no"
    plural = "" if counts == "1" else "s"
    how = {
        "last": "the last epoch",
        "label-free": f"the epoch with the highest {table.score or 'score'} on unlabelled target "
        "validation images",
        "oracle": f"the maximum over {counts} evaluation{plural} on the target's test labels, "
        "which flatters the noisier normaliser",
    }[table.selection]
    domain = "source test accuracy, " if table.stream == "source/test" else ""
    return f"{domain}{table.selection}: {how}"


def unlabelled_notes(shown: list[Table]) -> list[str]:
    """What to say in place of the tables of a target without labels."""
    if all(table.has_labels for table in shown):
        return []
    return [
        "The target has no labels: nothing is shown as an accuracy of it. Its label-free scores "
        "are in scores.csv."
    ]


def missing(runs: Iterable[Run], out: str = "") -> list[str]:
    """One line per place of the grid without a result; logs are named from ``out``."""
    words = {"pending": "not run", "failed": "failed", "diverged": "diverged"}
    return [
        f"{run.entry.cell} [{run.entry.row}]: {words[run.state]}"
        + (f" ({run.reason}; log: {out}cells/{run.entry.cell.id}/log.txt)" if run.reason else "")
        for run in runs
        if run.state != "done"
    ]


def markdown(plan: Plan, runs: list[Run], shown: list[Table]) -> str:
    """The whole report."""
    grid = plan.grid
    comparisons = shown[0].comparisons if shown else 1
    lines = ["# BN or WA under shift", "", *_facts(plan, runs), ""]
    lines += [LEGEND.format(seeds=len(grid.seeds), comparisons=comparisons), ""]
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
                for line in table.lines:
                    lines += [f"- {text}" for text in over_tasks(line)]
                if table.left_out:
                    names = ", ".join(map(str, table.left_out))
                    lines.append(f"- complete in no task, so left out of the average: {names}")
                lines += [""] if lines[-1] else []
            lines += unlabelled_notes(mine)
            lines += [f"- {verdict(t)}" for t in mine if t.stream == "target/test" and t.has_labels]
            lines.append("")
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
        lengths = {c.method: f"{c.epochs} epochs x {c.steps_per_epoch} steps" for c in plan.cells}
        length = ", ".join(f"{method} {text}" for method, text in lengths.items())
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
    """Checksums of the data, which are those of a task; one task must have one."""
    sums_of: dict[str, set[str]] = {task: set() for task in plan.tasks}
    for run in runs:
        if run.result is not None and run.result.data_manifest:
            sums_of[run.entry.cell.task].add(run.result.data_manifest[:12])
    shown = [f"{task} {' and '.join(sorted(sums))}" for task, sums in sums_of.items() if sums]
    differ = any(len(sums) > 1 for sums in sums_of.values())
    note = " (they differ within a task: WARNING)" if differ else ""
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
    rows = [[line.label, *map(difference_text, line.differences)] for line in table.lines]
    return grid_table(header, rows)


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


def grid_table(header: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table."""
    line = "|".join(["---", *["--:"] * (len(header) - 1)])
    return [
        f"| {' | '.join(header)} |",
        f"|{line}|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


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
                paired = difference.paired
                row[difference.name] = _scaled(paired.difference if paired else None)
                row[f"{difference.name} low"] = _scaled(paired.low if paired else None)
                row[f"{difference.name} high"] = _scaled(paired.high if paired else None)
            rows.append(row)
    return rows


def _scaled(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 4)


def csv_text(rows: list[dict[str, Any]]) -> str:
    """Rows with equal keys as CSV; None is an empty field."""
    buffer = io.StringIO()
    if rows:
        names = list(dict.fromkeys(key for row in rows for key in row))
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
