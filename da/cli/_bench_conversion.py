"""What it takes to convert a network's weights for WeightAlign, and how near it comes.

The network is torchvision's, with random weights and batch norms that have seen the images, which
are random too. Agreement and error are of images that were not converted on.

examples:
  python run.py bench conversion
  python run.py bench conversion --network resnet18 --size 64 --baselines --layers
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from da.cli._options import parse, plain_parser
from da.errors import UserError

if TYPE_CHECKING:
    from da.benchmarks.conversion import Measured

HEADER = (
    "| conversion | predictions kept | error | seconds | of processor time | peak memory |",
    "|---|--:|--:|--:|--:|--:|",
)


def main(argv: list[str]) -> int:
    """Converts, and prints the table."""
    parser = plain_parser("bench conversion", __doc__)
    parser.add_argument("--network", type=str, default="resnet50", help="torchvision's name of it")
    parser.add_argument("--images", type=int, default=512, help="of which a tenth is held out")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch")
    parser.add_argument("--baselines", action="store_true", help="also the two simpler ways")
    parser.add_argument("--layers", action="store_true", help="also the error after each layer")
    options = parse(parser, argv)
    for name, least in (("images", 20), ("size", 1), ("threads", 1)):
        if options[name] < least:
            raise UserError(f"--{name}: expected at least {least}, got {options[name]}")
    import torch
    from rich.console import Console

    from da.benchmarks.conversion import measure_conversion
    from da.engine.provenance import describe_machine

    torch.set_num_threads(options.threads)
    console = Console(highlight=False)
    with console.status(options.network) as status:
        rows = measure_conversion(
            options.network,
            options.images,
            options.size,
            options.baselines,
            lambda done, of: status.update(f"{options.network}: {done} of {of} layers"),
        )
    print("\n".join([*HEADER, *map(line, rows)]))
    if options.layers:
        print("\n".join(["", "| layer | error |", "|---|--:|"]))
        print("\n".join(f"| {name} | {error:.4f} |" for name, error in rows[0].layers))
    print(
        f"\n{options.network}, {options.images} images of {options.size} × {options.size};"
        f" {describe_machine()}; {options.threads} thread(s), torch {torch.__version__}"
    )
    return 0


def line(row: Measured) -> str:
    """One row of the table."""
    kept = "–" if row.agreement is None else f"{100 * row.agreement:.1f} %"
    return (
        f"| {row.way} | {kept} | {row.error:.4f} | {row.seconds:.1f} | {row.busy:.1f} |"
        f" {row.peak / 1e9:.2f} GB |"
    )
