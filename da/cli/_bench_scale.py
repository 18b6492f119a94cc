"""Measure how activations and gradients grow or shrink through networks at initialisation.

examples:
  python run.py bench scale                                          all six, noise images
  python run.py bench scale --networks resnet50 --size 64 --seeds 0,1,2
  python run.py bench scale --options balanced:depth,he:one --data datasets.digits.Digits
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from da.cli._options import parse, plain_parser
from da.errors import UserError

if TYPE_CHECKING:
    from da.analysis.initial_scale import Scales

#: What is compared where nothing else is asked for: gain and residual of WeightAlign.
OPTIONS = "he:one,he:depth,variance-preserving:one,variance-preserving:depth,balanced:depth"


def main(argv: list[str]) -> int:
    """Measures the networks and prints the table."""
    parser = plain_parser("bench scale", (__doc__ or "").strip())
    parser.add_argument("--networks", type=str, default="all", help="some of them, with commas")
    parser.add_argument("--options", type=str, default=OPTIONS, help="gain:residual,... of wa")
    parser.add_argument("--size", type=int, default=128, help="height and width of the images")
    parser.add_argument("--batch", type=int, default=8, help="images")
    parser.add_argument("--seeds", type=str, default="0", help="of weights and images: 0,1,2")
    parser.add_argument("--data", type=str, help="data module for images instead of noise")
    parser.add_argument("--source", type=str, default="rendered", help="domain of --data")
    parser.add_argument("--target", type=str, default="optical", help="another domain of --data")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    options = parse(parser, argv)
    for name, least in (("size", 32), ("batch", 2), ("threads", 1)):
        if options[name] < least:
            raise UserError(f"--{name}: expected at least {least}, got {options[name]}")
    variants = [("bn", {}), *(_variant(text) for text in options.options.split(","))]
    from da.analysis.initial_scale import STAGES
    from da.grids.grid_file import numbers
    from da.ops.torch_settings import torch_settings

    seeds = numbers(options.seeds) or [0]
    networks = list(STAGES) if options.networks == "all" else options.networks.split(",")
    with torch_settings(options.threads):
        rows = [
            (name, _title(norm, of), [_measured(name, norm, of, seed, options) for seed in seeds])
            for name in networks
            for norm, of in variants
        ]
    show(rows, options)
    return 0


def _variant(text: str) -> tuple[str, dict[str, str]]:
    gain, colon, residual = text.strip().partition(":")
    if not colon:
        raise UserError(f"--options: expected gain:residual, such as he:one, got '{text}'")
    return "wa", {"gain": gain, "residual": residual}


def _title(norm: str, options: dict[str, str]) -> str:
    return f"{norm} {', '.join(options.values())}".strip()


def _measured(
    name: str, norm: str, norm_options: dict[str, str], seed: int, options: Any
) -> Scales:
    from da.analysis.initial_scale import (
        STAGES,
        build_network,
        measure_scales,
        noise_images,
        source_images,
    )

    model = build_network(name, norm, seed, **norm_options)
    if options.data is None:
        images = noise_images(options.batch, options.size, seed)
    else:
        domains = (options.source, options.target)
        images = source_images(options.data, *domains, options.batch, options.size, seed)
    return measure_scales(model, images, STAGES[name], seed)


def _factor(values: Iterable[float]) -> str:
    largest = max(values)
    return f"{largest:.1f}" if largest < 100 else f"{largest:.2g}"


def show(rows: list[tuple[str, str, list[Scales]]], options: Any) -> None:
    """Prints the scales at the first and last stage and the factor between any two stages: the
    geometric mean over the seeds of the scales, the largest of the factors."""
    from rich.console import Console
    from rich.table import Table

    from da.analysis.initial_scale import geometric_mean, largest_over_smallest
    from da.engine.provenance import describe_machine

    images = "noise" if options.data is None else options.source
    table = Table(
        title=f"scale at initialisation, {options.batch} images ({images}) of "
        f"{options.size} × {options.size}, seeds {options.seeds}"
    )
    for column in ("network", "normaliser"):
        table.add_column(column)
    for column in ("forward: first", "last", "factor", "backward: first / last", "factor"):
        table.add_column(column, justify="right")
    table.add_column("weights' factor", justify="right")
    before = None
    for name, title, found in rows:
        if before not in (None, name):
            table.add_section()
        before = name
        table.add_row(
            name,
            title,
            f"{geometric_mean(s.forward[0] for s in found):.2g}",
            f"{geometric_mean(s.forward[-1] for s in found):.2g}",
            _factor(largest_over_smallest(s.forward) for s in found),
            f"{geometric_mean(s.backward[0] for s in found):.2g}",
            _factor(largest_over_smallest(s.backward) for s in found),
            _factor(largest_over_smallest(s.weights) for s in found),
        )
    console = Console()
    console.print(table)
    console.print(
        "forward: standard deviation of the activations leaving a stage; backward: norm of the "
        "gradient there; weights: ‖gradient‖ · ‖weight‖ of each convolution; factor: largest over "
        f"smallest of the stages, the largest of the seeds; {describe_machine()}"
    )
