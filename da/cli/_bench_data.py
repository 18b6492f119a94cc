"""Images per second, against torchvision's ImageFolder with the same transforms and workers.

On a generated tree like Office-31: a quarter of the images 1000 x 1000, the rest 300 x 300 and
640 x 480. Epoch 1 includes the building of the cache; the files themselves are in the system's
memory before. Both sides run in the same process, in turn.

examples:
  python run.py bench data
  python run.py bench data --images 1600 --workers 0,4 --rounds 5
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

from da.cli._options import command_line, output_folder, parse, plain_parser
from da.data_sets import find_data_set
from da.errors import UserError


def main(argv: list[str]) -> int:
    """Measures, prints the table and saves it."""
    parser = plain_parser("bench data", __doc__)
    parser.add_argument("--images", type=int, default=800, help="images of both domains")
    parser.add_argument("--batch", type=int, default=32, help="images of each domain in a batch")
    parser.add_argument("--workers", type=str, default="0,2", help="processes that load: 0,2")
    parser.add_argument("--rounds", type=int, default=3, help="paired rounds")
    parser.add_argument("--out", type=str, default="runs/bench/data", help="folder of the tables")
    options = parse(parser, argv)
    from da.grids.grid_file import numbers

    workers = numbers(options.workers) or []
    if options.images < 4 * options.batch or options.batch < 1:
        raise UserError(f"--images: expected 4 batches of --batch at least, got {options.images}")
    if options.rounds < 1:
        raise UserError(f"--rounds: expected a whole number from 1, got {options.rounds}")
    import torch
    from rich.console import Console

    from da.engine.provenance import describe_machine
    from da.ops.csv_text import csv_text
    from da.ops.files import write_atomically

    out = output_folder(options.out)
    rows = measure(options, workers)
    lines = [
        "# How fast images arrive",
        "",
        f"- command: `{command_line('bench data', argv)}`",
        f"- machine: {describe_machine()}; torch {torch.__version__}",
        f"- {options.images} images, batches of {options.batch} + {options.batch}, median of "
        f"{options.rounds} rounds",
        "",
        "| workers | loader | images/s, epoch 1 | epoch 2 | times ImageFolder, epoch 1 | epoch 2 |",
        "|--:|---|--:|--:|--:|--:|",
        *(
            f"| {r['workers']} | {r['loader']} | {r['epoch 1']:.0f} | {r['epoch 2']:.0f} | "
            f"{r['ratio 1']:.2f} | {r['ratio 2']:.2f} |"
            for r in rows
        ),
        "",
    ]
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "report.md", "\n".join(lines))
    write_atomically(out / "table.csv", csv_text(rows))
    Console().print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)
    print(f"written: {out / 'report.md'}, {out / 'table.csv'}")
    return 0


def measure(options: Any, workers: list[int]) -> list[dict[str, Any]]:
    """One row per number of workers and loader."""
    from rich.console import Console
    from rich.progress import Progress

    from da.benchmarks.data import median_speedups, race_loaders, write_image_tree

    rows = []
    scratch = Path(tempfile.mkdtemp(prefix="da-bench-"))
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("measuring", total=1 + 3 * options.rounds * len(workers))
            write_image_tree(scratch / "tree", options.images)
            bar.advance(task)
            steps = options.images // (2 * options.batch)
            for number in workers:
                found = race_loaders(
                    scratch / "tree", 2 * options.batch * steps, 2 * options.batch, number,
                    options.rounds, loaders(scratch, options.batch, steps),
                    lambda: bar.advance(task),
                )  # fmt: skip
                for name, speeds in found.items():
                    ratio = median_speedups(found, name)
                    rows.append(
                        {
                            "workers": number,
                            "loader": name,
                            "epoch 1": median(speed.first for speed in speeds),
                            "epoch 2": median(speed.second for speed in speeds),
                            "ratio 1": ratio.first,
                            "ratio 2": ratio.second,
                        }
                    )
    finally:
        os.environ.pop("XDG_CACHE_HOME", None)
        if home is not None:
            os.environ["XDG_CACHE_HOME"] = home
        shutil.rmtree(scratch, ignore_errors=True)
    return rows


def loaders(scratch: Path, batch: int, steps: int) -> Callable[[int, bool], Iterable[object]]:
    """Makes our training loader, with a cache of its own each time, or without."""
    folder = find_data_set("Folder")

    def make(workers: int, cache: bool) -> Iterable[object]:
        # Nothing is known of the images at first, not even their hashes.
        os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="cache", dir=scratch)
        data = folder(
            source="a", target="b", root=str(scratch / "tree"), batch_size=batch,
            steps_per_epoch=steps, num_workers=workers, cache=cache,
        )  # fmt: skip
        return data.train_dataloader()

    return make
