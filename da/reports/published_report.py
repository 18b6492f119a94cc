"""The comparison with published numbers as Markdown and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from da.engine.result import SELECTIONS
from da.grids.grid import Grid
from da.grids.plan import Plan
from da.reports.published_comparison import ClassLine, Line
from da.reports.published_ranges import Published, Range, distance, inside, tolerance
from da.reports.references import BASE
from da.reports.statistics import Summary
from da.reports.texts import grid_table

METRICS = {"accuracy": "mean over samples", "class_mean": "mean over classes"}


def number(ours: Summary | None, line: Line | None = None) -> str:
    """``86.1 ± 0.4 (3)``, or how much of it is there."""
    if ours is not None:
        spread = "" if ours.std is None else f" ± {ours.std:.1f}"
        return f"{ours.mean:.1f}{spread} ({ours.n})"
    if line is None:
        return "–"
    gone = f", {line.diverged} diverged" if line.diverged else ""
    return f"missing ({line.done} of {line.planned}{gone})"


def verdict(line: Line) -> str:
    """Whether ours is inside the band."""
    if line.reference is None:
        return "no number of these settings"
    if line.inside is None:
        return "missing" if line.selection else "selection not stated"
    alone = ", one seed: error unknown" if line.compared and line.compared.std is None else ""
    return f"{'inside' if line.inside else 'OUTSIDE'} (±{line.band:.1f}{alone})"


def rows(lines: Sequence[Line]) -> list[list[str]]:
    """The fields of a table."""
    return [
        [
            line.label,
            METRICS[line.metric],
            f"{line.reference.value:.1f}" if line.reference else "–",
            line.reference.selection if line.reference else "–",
            *(number(line.ours[s], line) for s in SELECTIONS),
            "–" if line.difference is None else f"{line.difference:+.1f}",
            verdict(line),
        ]
        for line in lines
    ]


HEADER = ["task", "accuracy in %", "published", "its selection", *SELECTIONS, "Δ", "inside"]


def title(group: tuple[str, str, str, str], shown: Sequence[Line]) -> str:
    """Method, normaliser and what the number is called elsewhere."""
    method, norm, row, swept = group
    theirs = next((line.reference.method for line in shown if line.reference), None)
    named = f" (published as {theirs})" if theirs and theirs != method else ""
    return f"{method}{named}, {norm}, {row} learning rate" + (f", {swept}" if swept else "")


def notes(grid: Grid, lines: Sequence[Line], other: Sequence[str] = ()) -> list[str]:
    """What has to be known to read the numbers.

    Args:
        grid: that was run.
        lines: of the tables.
        other: see :func:`da.reports.published_comparison.other_images`.
    """
    used = {line.reference for line in lines if line.reference}
    texts = [
        "Ours: mean ± standard deviation over seeds (number of seeds), for the last epoch, the "
        "epoch that a label-free score picks, and the best epoch on target labels (oracle). Δ is "
        "ours minus the published number at the selection that the number used; inside: |Δ| is at "
        "most 2 standard errors of our mean or 1.5 points, whichever is more.",
        *(f"Published numbers: {source}." for source in sorted({r.source for r in used})),
        *sorted({f"{r.note[0].upper()}{r.note[1:]}." for r in used if r.note}),
    ]
    if any(line.group[1] != "bn" for line in lines):
        texts.append("The published numbers are of batch norm, under every normaliser here.")
    texts += [f"OTHER IMAGES: {text}." for text in other]
    if grid.quick:
        texts.append("QUICK: at most 5,000 steps, where the published runs may be longer.")
    return texts


RANGE_HEADER = [
    *("method", "task", "accuracy in %", "at", "ours", "published by sources", "inside"),
    *("our gain", "published gains", "gain inside"),
]


def range_tables(shown: Sequence[Range]) -> list[str]:
    """How far sources disagree, with ours, and every source by name."""
    if not shown:
        return []
    fields = [
        [
            ", ".join(filter(None, (*each.group[:2], each.group[3]))),
            each.label,
            METRICS[each.metric],
            each.selection,
            number(each.ours),
            _span(each.values, "{:.1f}"),
            _range_verdict(each.ours, each.values),
            *(["–"] * 3 if each.group[0] == BASE else _gain_fields(each)),
        ]
        for each in shown
    ]
    named = dict.fromkeys(
        f"- {each.group[0]}, {each.label}, {METRICS[each.metric]}: {_of_source(source)}"
        for each in shown
        for source in each.sources
    )
    differing = dict.fromkeys(
        f"- {each.group[0]}, {source.reference.method} of {source.reference.source}: "
        f"{source.reference.note}"
        for each in shown
        for source in each.sources
        if source.reference.note
    )
    return [
        *("## Beside the range over sources", ""),
        *grid_table(RANGE_HEADER, fields),
        "",
        "Gains are over source-only training: ours over our own with the same normaliser and rate, "
        "seed by seed; each source's over that source's own. Inside: within the range, or outside "
        "by at most 2 standard errors of our mean or 1.5 points, whichever is more.",
        *("", *named, ""),
        *(("What has to be known of them:", "", *differing, "") if differing else ()),
    ]


def _span(values: Sequence[float], form: str) -> str:
    """``78.2 to 86.6 (5)``: lowest, highest, how many."""
    if not values:
        return "–"
    low, high = (form.format(value) for value in (min(values), max(values)))
    return f"{low} (1)" if len(values) == 1 else f"{low} to {high} ({len(values)})"


def _range_verdict(ours: Summary | None, values: Sequence[float]) -> str:
    within = inside(ours, values)
    if ours is None or within is None:
        return "no published number" if ours else "missing"
    beyond = distance(ours, values)
    alone = ", one seed: error unknown" if ours.std is None else ""
    verdict = "inside" if within else f"OUTSIDE by {beyond:.1f}"
    return f"{verdict} (±{tolerance(ours):.1f}{alone})"


def _gain_fields(each: Range) -> list[str]:
    ours = "–" if each.our_gain is None else f"{each.our_gain.mean:+.1f} ({each.our_gain.n})"
    return [ours, _span(each.gains, "{:+.1f}"), _range_verdict(each.our_gain, each.gains)]


def _of_source(source: Published) -> str:
    reference = source.reference
    kind = "quoted from papers" if reference.metric == "paper" else reference.selection
    forward = f", {reference.forward} forward" if reference.forward else ""
    gain = "" if source.gain is None else f", gain {source.gain:+.1f}"
    return f"{reference.value:.1f}{gain} ({reference.source}; {kind}{forward})"


def markdown(
    plan: Plan,
    lines: Sequence[Line],
    by_class: Sequence[ClassLine],
    other: Sequence[str] = (),
    shown: Sequence[Range] = (),
) -> str:
    """``reproduce.md``."""
    text = ["# Beside published numbers", "", f"- command: `{plan.command}`"]
    seeds = ", ".join(map(str, plan.grid.seeds))
    text += [f"- data: {plan.grid.data}, seeds {seeds}, device {plan.grid.device}", ""]
    text += [*tables(lines, by_class), *range_tables(shown), *notes(plan.grid, lines, other), ""]
    return "\n".join(text)


def tables(lines: Sequence[Line], by_class: Sequence[ClassLine]) -> list[str]:
    """All tables, with their titles."""
    text = []
    for group, of_group in groupby(lines, key=lambda line: line.group):
        shown = list(of_group)
        text += [f"## {title(group, shown)}", "", *grid_table(HEADER, rows(shown)), ""]
        mine = [line for line in by_class if line.group == group]
        if mine:
            fields = [
                [x.name, "–" if x.published is None else f"{x.published:.1f}", number(x.ours)]
                for x in mine
            ]
            text += [*grid_table(["class", "published", "oracle epoch"], fields), ""]
    return text


def csv_rows(lines: Sequence[Line], by_class: Sequence[ClassLine]) -> list[dict[str, Any]]:
    """``reproduce.csv``: one row per line, in percent."""
    keys = ("method", "norm", "lr_row", "swept")
    written = []
    for line in lines:
        row: dict[str, Any] = dict(zip(keys, line.group, strict=True))
        row |= {"task": line.task, "label": line.label, "metric": line.metric}
        theirs = line.reference
        row["published"] = theirs.value if theirs else None
        row["selection"] = theirs.selection if theirs else None
        row["source"] = theirs.source if theirs else None
        for selection in SELECTIONS:
            row |= _summary(selection, line.ours[selection])
        row |= {"difference": line.difference, "band": line.band, "inside": line.inside}
        written.append(row | {"done": line.done, "planned": line.planned})
    for item in by_class:
        row = dict(zip(keys, item.group, strict=True))
        row |= {"task": item.task, "label": item.name, "metric": f"class:{item.name}"}
        written.append(row | {"published": item.published} | _summary("oracle", item.ours))
    return written


def range_rows(shown: Sequence[Range]) -> list[dict[str, Any]]:
    """``reproduce_ranges.csv``: one row per source, method, task and metric, in percent."""
    keys = ("method", "norm", "lr_row", "swept")
    written = []
    for each in shown:
        ours = dict(zip(keys, each.group, strict=True)) | {
            **{"task": each.task, "metric": each.metric, "selection": each.selection},
            **_summary("ours", each.ours),
            **_summary("our gain", each.our_gain),
            "inside": inside(each.ours, each.values),
            "gain inside": inside(each.our_gain, each.gains),
        }
        for source in each.sources:
            reference = source.reference
            theirs = {"source": reference.source, "published": reference.value}
            theirs |= {"published gain": source.gain, "its selection": reference.selection}
            theirs |= {"its metric": reference.metric, "forward": reference.forward}
            written.append(ours | theirs)
    return written


def _summary(name: str, ours: Summary | None) -> dict[str, Any]:
    return {
        f"{name} mean": ours and round(ours.mean, 4),
        f"{name} std": None if ours is None or ours.std is None else round(ours.std, 4),
        f"{name} seeds": ours and ours.n,
    }
