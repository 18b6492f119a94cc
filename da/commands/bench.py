"""Measure speed on this machine: every figure is a ratio to a baseline in the same process.

examples:
  python run.py bench norms                                 the default digits network
  python run.py bench norms --backbone resnet18 --size 224 --batch 8 --threads 2
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from da.commands._options import parse, plain_parser
from da.errors import UserError, unknown

#: What is compared, in the order of the table: its name, the normaliser, naive alignment or not.
VARIANTS = {
    "bn": ("bn", False),
    "no normaliser": ("none", False),
    "wa": ("wa", False),
    "wa, naive": ("wa", True),
    "wa+bn": ("wa+bn", False),
    "gn": ("gn", False),
}


def main(argv: list[str]) -> int:
    """Runs one benchmark and prints its table."""
    parser = plain_parser("bench", (__doc__ or "").strip())
    parser.add_argument("what", choices=["norms"], help="norms: one training step per normaliser")
    parser.add_argument("--backbone", type=str, default="digits_resnet", help="the network")
    parser.add_argument("--batch", type=int, default=32, help="images of each domain in a step")
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--rounds", type=int, default=40, help="rounds; each times every variant")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    options = parse(parser, argv)
    for name in ("batch", "size", "rounds", "threads"):
        if options[name] < 1:
            raise UserError(f"--{name}: expected a whole number from 1, got {options[name]}")
    import torch

    from da.backbones.base import families

    if options.backbone not in families():
        raise unknown("backbone", options.backbone, families())
    torch.set_num_threads(options.threads)
    steps = {
        name: training_step(norm, naive, options.backbone, options.batch, options.size)
        for name, (norm, naive) in VARIANTS.items()
    }
    show(measure(steps, options.rounds), options)
    return 0


def training_step(
    norm: str, naive: bool, backbone: str, batch: int, size: int
) -> Callable[[], None]:
    """One source-only step on a joint batch: forward, backward, SGD with Nesterov's momentum."""
    import torch
    import torch.nn.functional as F

    from da.methods.source_only import SourceOnly

    module = SourceOnly(num_classes=10, backbone=backbone, norm=norm)
    images = torch.randn(2 * batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(2 * batch) % 10
    optimiser = torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9, nesterov=True)

    def step() -> None:
        with naive_alignment() if naive else contextlib.nullcontext():
            optimiser.zero_grad()
            F.cross_entropy(module(images), labels).backward()
            optimiser.step()

    return step


@contextlib.contextmanager
def naive_alignment() -> Iterator[None]:
    """Aligned layers compute their weight by a chain of eager operations within this block."""
    from da.norms import aligned

    fused = aligned.align
    aligned.align = aligned.naive_align
    try:
        yield
    finally:
        aligned.align = fused


def measure(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each step in each round, ``{name: (rounds,)}``.

    Every round runs every variant once, in turn, so that a drift of the machine's speed meets all
    of them. Three rounds before are not counted.
    """
    from rich.progress import track

    seconds: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for i in track(range(rounds + 3), description="rounds", transient=True):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.perf_counter()
            steps[name]()
            if i >= 3:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def show(seconds: dict[str, list[float]], options: Any) -> None:
    """Prints the median step of each variant and its median ratio to BN and to no normaliser."""
    from rich.console import Console
    from rich.table import Table

    from da.experiments.training import machine

    table = Table(
        title=f"training step of {options.backbone}, {options.batch} + {options.batch} images of "
        f"{options.size} × {options.size}, float32, median of {options.rounds} rounds"
    )
    table.add_column("normaliser")
    for column in ("ms", "ratio to bn", "ratio to no normaliser"):
        table.add_column(column, justify="right")
    for name, values in seconds.items():
        ratios = [
            statistics.median(a / b for a, b in zip(values, seconds[base], strict=True))
            for base in ("bn", "no normaliser")
        ]
        table.add_row(
            name, f"{1e3 * statistics.median(values):.1f}", *(f"{ratio:.2f}" for ratio in ratios)
        )
    console = Console()
    console.print(table)
    console.print(f"{machine()}; {options.threads} thread(s); ratios are medians of paired rounds")
