"""A step of DANN: what precision, layout and compilation gain, and what the framework adds; and an
image that is evaluated beside one that is trained on.

The figures of a step are relative to a plain float32 PyTorch loop in the same process, without
Lightning and without this library's module; all are medians of paired, interleaved rounds.

examples:
  python run.py bench step                                ResNet-50 at 224, a few minutes
  python run.py bench step --batch 8 --compile
  python run.py bench step --rounds 0 --eval-rounds 0     only what the framework adds
  python run.py bench step --rounds 0 --overhead-rounds 0 --backbone timm/tf_efficientnet_lite0 \
      --size 128                                          only what an evaluation costs
"""

from __future__ import annotations

import csv
import io
import statistics
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from da.cli._options import command_line, output_folder, parse, plain_parser
from da.data_sets import find_data_set
from da.errors import UserError

if TYPE_CHECKING:
    from da.benchmarks.step import Cost
    from da.types import Batch

Rows = list[dict[str, Any]]


def main(argv: list[str]) -> int:
    """Measures, prints the tables and saves them."""
    parser = plain_parser("bench step", __doc__)
    parser.add_argument("--backbone", type=str, default="resnet50", help="the network")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--batch", type=int, default=16, help="images of each domain in a step")
    parser.add_argument("--steps", type=int, default=2, help="timed steps of a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the flags")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well")
    parser.add_argument("--overhead-rounds", type=int, default=30, help="rounds of the overhead")
    parser.add_argument("--overhead-steps", type=int, default=20, help="timed steps of those")
    parser.add_argument("--eval-rounds", type=int, default=5, help="rounds of the evaluation")
    parser.add_argument("--threads", type=int, help="of PyTorch, by default one per core")
    parser.add_argument("--out", type=str, default="runs/bench/step", help="folder of the tables")
    options = parse(parser, argv)
    refuse_sizes(options)
    out = output_folder(options.out)
    import torch
    from rich.console import Console

    from da.cli._lightning import quiet
    from da.engine.provenance import describe_machine
    from da.networks.backbones.base import build_backbone
    from da.ops.files import write_atomically
    from da.ops.torch_settings import torch_settings

    build_backbone(options.backbone)  # a wrong name is refused before anything is measured
    quiet()
    warnings.filterwarnings("ignore", ".*have no `val_dataloader`.*")
    threads = options.threads or torch.get_num_threads()
    with torch_settings(threads):
        gains = flag_rows(options) if options.rounds else []
    with torch_settings(1):  # as a cell of an ablation
        shown = evaluation_rows(options) if options.eval_rounds else []
        costs = overhead_rows(options) if options.overhead_rounds else []
    where = f"{describe_machine()}; {threads} thread(s), torch {torch.__version__}"
    text = report(gains, shown, costs, options, argv, where)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "report.md", text)
    write_atomically(out / "table.csv", as_csv(gains + shown + costs))
    Console().print(text, soft_wrap=True, highlight=False, markup=False)
    print(f"written: {out / 'report.md'}, {out / 'table.csv'}")
    return 0


def refuse_sizes(options: Any) -> None:
    """Refuses numbers that mean nothing."""
    least = {"size": 1, "batch": 2, "steps": 1, "overhead_steps": 1}
    numbers = ("rounds", "eval_rounds", "overhead_rounds")
    least |= dict.fromkeys(numbers, 0)
    for name, value in least.items():
        if options[name] < value:
            option = name.replace("_", "-")
            raise UserError(
                f"--{option}: expected a whole number from {value}, got {options[name]}"
            )
    if options.threads is not None and options.threads < 1:
        raise UserError(f"--threads: expected a whole number from 1, got {options.threads}")
    if not any(options[name] for name in numbers):
        raise UserError(
            "--rounds, --eval-rounds and --overhead-rounds are all 0: nothing would be measured"
        )


def flag_rows(options: Any) -> Rows:
    """One row for each set of flags."""
    from da.benchmarks.step import PLAIN, compare_flags, median_speedup

    o = options
    found = compare_flags(o.backbone, o.batch, o.size, o.steps, o.rounds, o.compile)
    return [
        {
            "what": f"{o.backbone}@{o.size}, {o.batch} + {o.batch}",
            "loop": name,
            "ms": milliseconds(costs),
            "times as fast": median_speedup(costs, found[PLAIN]),
            "rounds": len(costs),
        }
        for name, costs in found.items()
    ]


def evaluation_rows(options: Any) -> Rows:
    """One row for each normaliser: an image in a training step, and one in evaluation."""
    from da.benchmarks.evaluation import compare_evaluation

    o = options
    found = compare_evaluation(o.backbone, ("bn", "wa"), o.batch, o.size, o.steps, o.eval_rounds)
    return [
        {
            "what": f"{o.backbone}@{o.size}, {o.batch} + {o.batch}",
            "loop": norm,
            "ms": milliseconds(evaluated),
            "ms per image trained on": milliseconds(trained),
            "share of an image trained on": statistics.median(
                one.wall / other.wall for one, other in zip(evaluated, trained, strict=True)
            ),
            "rounds": len(trained),
        }
        for norm, (trained, evaluated) in found.items()
    ]


def overhead_rows(options: Any) -> Rows:
    """One row for each way to run the small network, on noise made beforehand and on digits."""
    from da.benchmarks.step import PLAIN, measure_overhead, median_added, random_batches

    steps, batch = options.overhead_steps, 32
    rows: Rows = []
    for what, batches in (
        ("batches made beforehand", random_batches(batch, 32)),
        ("batches of the data", digits(batch, steps + 2)),
    ):
        found = measure_overhead(batches, batch, steps, options.overhead_rounds)
        for name, costs in found.items():
            more = median_added(costs, found[PLAIN])
            rows.append(
                {
                    "what": what,
                    "loop": name,
                    "ms": milliseconds(costs),
                    "added ms": 1e3 * more.wall,
                    "added ms of processor time": 1e3 * more.cpu,
                    "rounds": len(costs),
                }
            )
    return rows


def digits(batch: int, steps: int) -> Iterable[Batch]:
    """The training loader of the default data, which makes its batches when they are asked for."""
    data = find_data_set("Digits")(
        source="rendered", target="optical", batch_size=batch, steps_per_epoch=steps
    )
    data.prepare_data()
    return data.train_dataloader()


def milliseconds(costs: list[Cost]) -> float:
    """The median of the rounds."""
    return 1e3 * statistics.median(cost.wall for cost in costs)


def report(gains: Rows, shown: Rows, costs: Rows, options: Any, argv: list[str], where: str) -> str:
    """The tables as Markdown."""
    lines = [
        "# What a step costs",
        "",
        f"- command: `{command_line('bench step', argv)}`",
        f"- machine: {where}",
    ]
    if gains:
        lines += [
            "",
            f"A DANN step of {gains[0]['what']} images, median of {options.rounds} rounds:",
            "",
            "| loop | ms | times as fast |",
            "|---|--:|--:|",
            *(f"| {r['loop']} | {r['ms']:.0f} | {r['times as fast']:.2f} |" for r in gains),
        ]
    if shown:
        lines += [
            "",
            f"An image that is evaluated beside one in a DANN step of {shown[0]['what']} images, "
            f"float32, 1 thread, median of {options.eval_rounds} rounds:",
            "",
            "| normaliser | ms trained | ms evaluated | evaluated / trained |",
            "|---|--:|--:|--:|",
            *(
                f"| {r['loop']} | {r['ms per image trained on']:.2f} | {r['ms']:.2f} | "
                f"{r['share of an image trained on']:.2f} |"
                for r in shown
            ),
        ]
    if costs:
        lines += [
            "",
            "What the framework adds to a DANN step of digits_resnet@32, 32 + 32 images, float32, "
            f"1 thread, median of {options.overhead_rounds} rounds:",
            "",
            "| batches | loop | ms | added ms | added ms of processor time |",
            "|---|---|--:|--:|--:|",
            *(
                f"| {r['what']} | {r['loop']} | {r['ms']:.2f} | {r['added ms']:.2f} | "
                f"{r['added ms of processor time']:.2f} |"
                for r in costs
            ),
        ]
    return "\n".join([*lines, ""])


def as_csv(rows: Rows) -> str:
    """All rows under the columns of all tables."""
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
