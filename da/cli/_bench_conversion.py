"""What it takes to convert a network's weights for WeightAlign, and how near it comes.

The network is torchvision's, with random weights and batch norms that have seen the images, which
are random too. With --data it is a real one, from --weights, converted on the photographs of each
domain in turn and measured on the rest of that domain and on the others. Agreement and error are of
images that were not converted on.

examples:
  python run.py bench conversion
  python run.py bench conversion --network resnet18 --size 64 --baselines --layers
  python run.py bench conversion --data OfficeCaltech10 --root ~/office_caltech10 --size 160 \\
    --network timm/tf_efficientnet_lite0 --weights efficientnet-lite0.pth --sources amazon,caltech
  python run.py bench conversion --data OfficeCaltech10 --norm wa+bn …
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from da.cli._options import parse, plain_parser
from da.errors import UserError

if TYPE_CHECKING:
    from da.benchmarks.conversion import Measured

HEADER = (
    "| conversion | predictions kept | error | seconds | of processor time | peak memory |",
    "|---|--:|--:|--:|--:|--:|",
)


#: Options that act with --data alone, and those that act without it alone.
OF_DATA = ("norm", "root", "weights", "sources", "min_channels", "min_weights", "exclude", "out")
WITHOUT_DATA = ("baselines", "layers")


def main(argv: list[str]) -> int:
    """Converts, and prints the table."""
    parser = plain_parser("bench conversion", __doc__)
    parser.add_argument("--network", type=str, default="resnet50", help="its name")
    parser.add_argument("--images", type=int, default=512, help="of which a tenth is held out")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch")
    parser.add_argument("--baselines", action="store_true", help="also the two simpler ways")
    parser.add_argument("--layers", action="store_true", help="also the error after each layer")
    parser.add_argument("--data", type=str, help="data set whose photographs are converted on")
    parser.add_argument("--norm", type=str, help="what it is converted to, with --data (wa)")
    parser.add_argument("--root", type=str, help="its folder")
    parser.add_argument("--weights", type=str, help="file of the whole network, for --data")
    parser.add_argument("--sources", type=str, help="domains to convert on, with commas (all)")
    parser.add_argument("--min-channels", type=int, help="layers of fewer stay plain (4)")
    parser.add_argument("--min-weights", type=int, help="of fewer per filter, too, to 2 in 5 (25)")
    parser.add_argument("--exclude", type=str, help="layers that stay plain, with commas")
    parser.add_argument("--out", type=str, help="folder for report.md and table.csv, with --data")
    options = parse(parser, argv)
    for name, least in (("images", 20), ("size", 1), ("threads", 1)):
        if options[name] < least:
            raise UserError(f"--{name}: expected at least {least}, got {options[name]}")
    refuse_without_effect(options)
    from da.ops.torch_settings import torch_settings

    with torch_settings(options.threads):
        if options.data:
            from da.cli._conversion_of_photographs import measure_photographs

            return measure_photographs(options, shlex.join(argv))
        return measure_network(options)


def measure_network(options: Any) -> int:
    """Converts a network of random weights, and prints the table."""
    import torch
    from rich.console import Console

    from da.benchmarks.conversion import measure_conversion
    from da.engine.provenance import describe_machine

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


def refuse_without_effect(options: Any) -> None:
    """Refuses options that would be dropped, as they are of the other way to measure."""
    others = WITHOUT_DATA if options.data else OF_DATA
    named = [name for name in others if options[name] is not None and options[name] is not False]
    dropped = [f"--{name.replace('_', '-')}" for name in named]
    if dropped:
        how = "with" if options.data else "without"
        raise UserError(f"{', '.join(dropped)}: would have no effect {how} --data; leave it out")


def line(row: Measured) -> str:
    """One row of the table."""
    kept = "–" if row.agreement is None else f"{100 * row.agreement:.1f} %"
    return (
        f"| {row.way} | {kept} | {row.error:.4f} | {row.seconds:.1f} | {row.busy:.1f} |"
        f" {row.peak / 1e9:.2f} GB |"
    )
