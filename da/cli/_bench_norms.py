"""Training step, inference and memory of every normaliser.

The whole table takes about half an hour on 2 cores; name a part of it for less.

examples:
  python run.py bench norms --networks digits_resnet@32 --batches 64 --threads 1
  python run.py bench norms --networks resnet50@224 --batches 1,8,32 --precisions bfloat16
  python run.py bench norms --device cuda --compile --out runs/bench/gpu
  python run.py bench norms --norms all --networks resnet50@224 --batches 32
  python run.py bench norms --norms 'in,torch in,gn,torch gn' --networks resnet18@32 --batches 64
"""

from __future__ import annotations

import csv
import io
import statistics
from typing import TYPE_CHECKING, Any

from da.cli._options import command_line, output_folder, parse, plain_parser
from da.errors import UserError, unknown

if TYPE_CHECKING:
    from pathlib import Path

    from da.benchmarks.norms import Case, Measured

DEFAULT = "bn,none,wa,wa naive,gn"
NETWORKS = "resnet18@224,resnet50@224,resnet18@32,digits_resnet@32"


def main(argv: list[str]) -> int:
    """Measures, prints each row as it comes, and saves the table."""
    parser = plain_parser("bench norms", __doc__)
    parser.add_argument("--networks", type=str, default=NETWORKS, help="backbone@size, …")
    parser.add_argument("--batches", type=str, default="1,2,8,32,64", help="images in a step")
    parser.add_argument("--precisions", type=str, default="float32,bfloat16", help="or one of them")
    parser.add_argument("--norms", type=str, default=DEFAULT, help="or others, or all")
    parser.add_argument("--seconds", type=float, default=20.0, help="time for a row, at least")
    parser.add_argument("--threads", type=int, help="of PyTorch, by default one per core")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where to run")
    parser.add_argument("--compile", action="store_true", help="networks through torch.compile")
    parser.add_argument("--out", type=str, default="runs/bench/norms", help="folder of the table")
    options = parse(parser, argv)
    import torch

    from da.ops.torch_settings import torch_settings

    cases, norms, out = cases_of(options), norms_of(options), output_folder(options.out)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device: PyTorch finds no GPU here; leave it out to run on the CPU")
    if options.threads is not None and options.threads < 1:
        raise UserError(f"--threads: expected a whole number from 1, got {options.threads}")
    with torch_settings(options.threads):
        measure(cases, norms, out, options, argv)
    return 0


def measure(cases: list[Case], norms: list[str], out: Path, options: Any, argv: list[str]) -> None:
    """Measures row by row; prints the table and writes what there is of it."""
    import torch
    from rich.console import Console

    from da.benchmarks.norms import measure_case
    from da.engine.provenance import describe_machine
    from da.ops.files import write_atomically

    console = Console(highlight=False)
    where = torch.cuda.get_device_name() if options.device == "cuda" else describe_machine()
    head = [
        "# What a normaliser costs",
        "",
        f"- command: `{command_line('bench norms', argv)}`",
        f"- machine: {where}; {torch.get_num_threads()} thread(s), torch {torch.__version__}",
        "",
        *HEADER,
    ]
    out.mkdir(parents=True, exist_ok=True)
    console.print("\n".join(HEADER), soft_wrap=True)
    rows: list[dict[str, Any]] = []
    for i, case in enumerate(cases):
        with console.status(f"{i} of {len(cases)} rows; {', '.join(map(str, case))}"):
            found = measure_case(case, norms, options.seconds, options.device, options.compile)
        rows.append(row(case, found))
        console.print(line(rows[-1]), soft_wrap=True)
        each = every_normaliser(rows, norms)
        write_atomically(out / "report.md", "\n".join([*head, *map(line, rows), *each, ""]))
        write_atomically(out / "table.csv", as_csv(rows))
    console.print("\n".join(each), soft_wrap=True)
    console.print(f"written: {out / 'report.md'}, {out / 'table.csv'}")


def cases_of(options: Any) -> list[Case]:
    """The rows of the table.

    Raises:
        UserError: for a network, size, batch or precision that does not exist.
    """
    from da.benchmarks.norms import Case
    from da.grids.grid_file import names
    from da.networks.backbones.base import build_backbone

    found: list[Case] = []
    for network in names(options.networks) or ():
        name, _, size = network.partition("@")
        if not size.isdecimal() or int(size) < 1:
            raise UserError(f"--networks: expected backbone@size such as resnet18@224: {network}")
        build_backbone(name)  # a wrong name is refused before anything is measured
        for precision in names(options.precisions) or ():
            if precision not in ("float32", "bfloat16"):
                raise unknown("precision", precision, ("float32", "bfloat16"))
            for batch in names(options.batches) or ():
                if not batch.isdecimal() or int(batch) < 1:
                    raise UserError(f"--batches: expected whole numbers from 1, got '{batch}'")
                found.append(Case(name, int(size), precision, int(batch)))  # type: ignore[arg-type]
    if not found or options.seconds <= 0:
        raise UserError("expected a network, a precision and a batch, and --seconds above 0")
    return found


def norms_of(options: Any) -> list[str]:
    """The variants, with the two that the others are compared with."""
    from da.benchmarks.norms import VARIANTS
    from da.grids.grid_file import names

    found = names(options.norms) or []
    if found == ["all"]:
        found = list(VARIANTS)
    for name in found:
        if name not in VARIANTS:
            raise unknown("variant", name, VARIANTS)
    return list(dict.fromkeys(["bn", "none", *found]))


def row(case: Case, found: dict[str, Measured]) -> dict[str, Any]:
    """The figures of one case: milliseconds, and ratios to BN and to no normaliser."""
    from da.benchmarks.norms import median_ratio

    cells: dict[str, Any] = case._asdict()
    for name, m in found.items():
        for kind in ("training", "inference"):
            values = getattr(m, kind)
            cells[f"{name} {kind} ms"] = 1e3 * statistics.median(values) if values else None
            for base in ("bn", "none"):
                cells[f"{name} {kind} / {base}"] = median_ratio(values, getattr(found[base], kind))
            if by_hand := found.get(f"torch {name}"):
                cells[f"{name} {kind} / torch"] = median_ratio(values, getattr(by_hand, kind))
        cells[f"{name} rounds"] = len(m.training)
        cells[f"{name} kept MB"] = m.kept / 1e6
    return cells


#: The columns of the report: their titles, and the keys of :func:`row` or the two of a quotient.
COLUMNS: dict[str, tuple[str, ...]] = {
    "bn, ms": ("bn training ms",),
    "wa / bn": ("wa training / bn",),
    "wa / none": ("wa training / none",),
    "naive wa / none": ("wa naive training / none",),
    "gn / none": ("gn training / none",),
    "wa+bn / none": ("wa+bn training / none",),
    "inference folded: wa / bn": ("wa inference / bn",),
    "wa / none ": ("wa inference / none",),
    "kept: wa / bn": ("wa kept MB", "bn kept MB"),
    "wa / none  ": ("wa kept MB", "none kept MB"),
    "naive wa / none ": ("wa naive kept MB", "none kept MB"),
}
HEADER = (
    "| network | precision | batch | " + " | ".join(COLUMNS) + " |",
    "|---|---|--:|" + "--:|" * len(COLUMNS),
)


def line(cells: dict[str, Any]) -> str:
    """One row of the report; what was not measured or can't run is a dash."""
    shown = [f"{cells['network']}@{cells['size']}", cells["precision"], str(cells["batch"])]
    for keys in COLUMNS.values():
        values = [float(value) for key in keys if (value := cells.get(key))]
        if len(values) < len(keys):
            shown.append("–")
        elif keys[0].endswith(" ms"):
            shown.append(f"{values[0]:.1f}")
        else:
            shown.append(f"{values[0] / (values[1] if len(values) > 1 else 1):.2f}")
    return "| " + " | ".join(shown) + " |"


#: What the second table holds of each normaliser, by the keys of :func:`row`.
#: ``/ torch`` is over torch's own fused kernel in the same network, put together by hand.
RATIOS = (
    *("training / bn", "training / none", "training / torch"),
    *("inference / bn", "inference / none", "inference / torch"),
)


def every_normaliser(rows: list[dict[str, Any]], norms: list[str]) -> list[str]:
    """A table with a row for each case and normaliser; nothing where the first one shows all.

    Args:
        rows: of :func:`row`.
        norms: the variants.
    """
    if set(norms) <= {*DEFAULT.split(","), "wa+bn"}:
        return []
    titles = ["network", "precision", "batch", "normaliser", *RATIOS, "kept / bn"]
    lines = ["", f"| {' | '.join(titles)} |", "|---|---|--:|---|" + "--:|" * (len(titles) - 4)]
    for cells in rows:
        case = [f"{cells['network']}@{cells['size']}", cells["precision"], str(cells["batch"])]
        for name in norms:
            found = [cells.get(f"{name} {key}") for key in RATIOS]
            kept, of_bn = cells[f"{name} kept MB"], cells["bn kept MB"]
            found.append(kept / of_bn if kept and of_bn else None)
            shown = ["–" if value is None else f"{value:.2f}" for value in found]
            lines.append(f"| {' | '.join([*case, name, *shown])} |")
    return lines


def as_csv(rows: list[dict[str, Any]]) -> str:
    """All figures, one line per row of the table."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {k: round(v, 4) if isinstance(v, float) else v for k, v in cells.items()} for cells in rows
    )
    return file.getvalue()
