"""What stands at the head of a report: command, data, length, machine, versions, checksums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from da.grids.plan import Plan
from da.reports.model import Fact
from da.reports.runs import Run, tidy
from da.reports.stopping import half_widths
from da.reports.texts import SCORED_IMAGES, count, data_remarks, option_text


def facts_of(plan: Plan, runs: list[Run]) -> list[Fact]:
    """What has to be known of a grid, in the order in which it is shown."""
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
        Fact("command", plan.command, is_command=True),
        Fact(
            "data",
            f"{grid.data}, {count(len(plan.tasks), 'task')}, "
            f"{'seeds' if len(grid.seeds) > 1 else 'seed'} {', '.join(map(str, grid.seeds))}",
        ),
        Fact(
            "training",
            f"{length}, batch {', '.join(map(str, batches))} per domain, "
            f"{_model(grid.model)}, {grid.precision} on {grid.device}, "
            f"{count(grid.threads, 'thread')} per run",
        ),
        Fact("runs", f"{len(results)} of {len(runs)} finished"),
    ]
    if plan.scored_images != "held out":
        facts.append(
            Fact(
                "label-free selection",
                "the target has no validation images of its own; scores are of "
                f"{SCORED_IMAGES[plan.scored_images]}",
            )
        )
    facts += [Fact("images", text) for text in data_remarks(runs)]
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
        facts.append(Fact("stopping", text))
    for name, values in {
        "machine": {result.machine for result in results},
        "code": {result.versions.get("code", "") for result in results},
        "versions": {_versions(result.versions) for result in results},
    }.items():
        if values - {""}:
            note = " (they differ: WARNING)" if len(values) > 1 and name != "machine" else ""
            facts.append(Fact(name, f"{'; '.join(sorted(values))}{note}"))
    return facts + _manifests(plan, runs)


def _model(options: Mapping[str, Any]) -> str:
    """The options that every method takes, in words: ``backbone lenet, bottleneck none``."""
    if not options:
        return "default model"
    return ", ".join(f"{name} {option_text(value)}" for name, value in options.items())


def _manifests(plan: Plan, runs: list[Run]) -> list[Fact]:
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
    return [Fact("data manifest", f"{'; '.join(shown)}{note}")] if shown else []


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items() if name != "code")
