"""The part of ``bench conversion`` that converts a real network on photographs."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from da.cli._options import output_folder
from da.errors import UserError, unknown
from da.installation import program

if TYPE_CHECKING:
    from da.benchmarks.conversion_of_photographs import Kept, Row
    from da.norms import WeightAlign

HEADER = (
    "| converted on | images | kept there, % | kept on the others together, % | on each | aligned:"
    " layers | weights | error of the logits | seconds | of processor time |",
    "|---|--:|--:|--:|---|--:|--:|--:|--:|--:|",
)
COLUMNS = (
    *("converted_on", "images", "measured_on", "equal", "count", "kept", "low", "high", "layers"),
    *("of_layers", "weights", "of_weights", "error", "seconds", "busy"),
)


def measure_photographs(options: Any, arguments: str) -> int:
    """Converts on each domain, prints the table and writes it.

    Args:
        options: of the command.
        arguments: as they were given, for the report.
    """
    import torch
    from rich.console import Console

    from da.benchmarks import conversion_of_photographs as bench
    from da.cli._option_names import options as option_names
    from da.data_sets import find_data_set
    from da.engine.provenance import describe_machine

    if not options.weights:
        raise UserError("--weights: expected the file of a whole network, which --data needs")
    out = output_folder(options.out) if options.out else None
    kind = find_data_set(options.data)
    domains = kind.domains
    size = options.size if "image_size" in option_names(kind) else None
    sources = options.sources.split(",") if options.sources else list(domains)
    for source in sources:
        if source not in domains:
            raise unknown("source", source, domains)
    norm = chosen_normaliser(options)
    model = bench.build_classifier(options.network, options.weights)
    machine = f"{describe_machine()}; {options.threads} thread(s), torch {torch.__version__}"
    console, rows = Console(highlight=False, stderr=True), []
    with console.status(options.network) as status:
        images, wanted = {}, {}
        for name in domains:
            status.update(f"{options.network}: predictions of {name}")
            args = options.data, options.root, name, size, options.network
            images[name] = bench.read_domain(*args)
            wanted[name] = bench.predict(model, images[name])
        print("\n".join(HEADER))
        for source in sources:
            rows.append(
                bench.measure_domain(
                    *(model, images, wanted, source, options.images, norm),
                    lambda done, of, source=source: status.update(  # type: ignore[misc]
                        f"{options.network} on {source}: {done} of {of} layers"
                    ),
                )
            )
            print(line(rows[-1]), flush=True)
            left = f"plain: {', '.join(rows[0].coverage.left) or 'none'}"
            if out:  # after each, which takes minutes
                write_report(out, rows, arguments, f"{left}\n\n{machine}")
    print(f"\n{left}\n\n{machine}")
    for row in rows:
        if row.held_out.share < 0.9:
            text = f"converted on {row.source}, fewer than 90 % of predictions are kept there"
            print(f"{options.network}: {text}", file=sys.stderr)
    return 0


def chosen_normaliser(options: Any) -> WeightAlign:
    """The normaliser to convert to, with the defaults of a conversion where it has such options."""
    from da.norms import WeightAlign, normaliser, options_of
    from da.norms.weight_align.conversion import PLAIN

    name = options.norm or "wa"
    kind = type(normaliser(name))
    if not issubclass(kind, WeightAlign):
        raise UserError(f"--norm: expected wa, alone or with another (wa+bn), got '{name}'")
    given = {name: options[name] for name in PLAIN if options[name] is not None}
    if options.exclude:
        given["exclude"] = options.exclude.split(",")
    own = {key: value for key, value in PLAIN.items() if key in options_of(kind)}
    return cast("WeightAlign", normaliser(name, **{**own, **given}))


def line(row: Row) -> str:
    """One row of the table."""
    coverage = row.coverage
    each = ", ".join(f"{kept.domain} {100 * kept.share:.1f}" for kept in row.others)
    return (
        f"| {row.source} | {row.images} | {share(row.held_out)} | {share(row.together)} | {each} |"
        f" {coverage.layers} of {coverage.of_layers}"
        f" ({100 * coverage.layers / coverage.of_layers:.1f} %) |"
        f" {100 * coverage.weights / coverage.of_weights:.1f} % |"
        f" {row.error:.4f} | {row.seconds:.0f} | {row.busy:.0f} |"
    )


def share(kept: Kept) -> str:
    """With its interval and the number of images."""
    low, high = kept.interval
    return f"{100 * kept.share:.1f} [{100 * low:.1f}, {100 * high:.1f}] of {kept.images}"


def write_report(folder: Path, rows: list[Row], arguments: str, notes: str) -> None:
    """Writes ``report.md`` and ``table.csv``."""
    folder.mkdir(parents=True, exist_ok=True)
    text = [
        "# What a conversion keeps",
        f"`{program()} bench conversion {arguments}`",
        "Top-1 predictions of all classes of the weights that stay the same, with Wilson's 95 %"
        " intervals, on images that were not converted on.",
        "\n".join([*HEADER, *map(line, rows)]),
        notes,
    ]
    (folder / "report.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            c = row.coverage
            shares = (c.layers, c.of_layers, c.weights, c.of_weights)
            numbers = (row.error, row.seconds, row.busy)
            for kept in (row.held_out, *row.others, row.together):
                ends = (f"{x:.4f}" for x in (kept.share, *kept.interval))
                writer.writerow(
                    [
                        *(row.source, row.images, kept.domain, kept.equal, kept.images, *ends),
                        *(*shares, *(f"{x:.4f}" for x in numbers)),
                    ]
                )
