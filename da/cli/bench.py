"""Measure speed and memory on this machine, as ratios to a baseline in the same process.

benchmarks:
  norms        training step, inference and memory of every normaliser
  step         precision, layout, compilation; what the framework adds to a plain loop
  conversion   pretrained weights made a start for WeightAlign: time, memory, what is kept
  data         images per second, with and without the cache, against ImageFolder
  scale        activations and gradients of networks at initialisation
  statistics   how often a report's intervals exclude the truth, in simulated grids

examples:
  python run.py bench norms --networks resnet18@224 --batches 1,8,32
  python run.py bench norms --help
"""

from __future__ import annotations

import importlib
from pathlib import Path

from da.cli._options import parse, plain_parser
from da.errors import unknown


def main(argv: list[str]) -> int:
    """Runs one benchmark, each a file of its own here: ``_bench_norms.py``."""
    known = sorted(file.stem[7:] for file in Path(__file__).parent.glob("_bench_*.py"))
    if argv and argv[0] in known:
        return importlib.import_module(f"da.cli._bench_{argv[0]}").main(argv[1:])
    if argv and not argv[0].startswith("-"):
        raise unknown("benchmark", argv[0], known)
    parser = plain_parser("bench BENCHMARK", __doc__)
    if argv:  # --help, or an option before the benchmark's name
        parse(parser, argv)
    parser.print_help()
    return 2
