"""Look into networks and trainings: what layers put out for both domains, and what grows.

activations: mean and deviation of every layer's output per domain, before its normaliser, beside
the running statistics that batch norm normalises both with in evaluation; and how far the domains
are apart after it. One column of panels per network: checkpoints, or without any the network that
training would start with; batch norm then has the statistics that it would first see.

training: trains once for each normaliser and limit of the gradient, and draws at every step the
scale of the features, how far the source's logits depend on the target in the batch (of a joint
forward), the largest gain, the critic's logits, the gradient of the critic's loss at its input
(before the reversal multiplies it by its strength) and the whole gradient.

examples:
  python run.py inspect activations runs/bn/last.ckpt runs/wa/last.ckpt --out runs/activations
  python run.py inspect activations --norms bn,wa,gn --model DANN --model.backbone resnet18
  python run.py inspect activations last.ckpt --split train --images 2000
  python run.py inspect training --model DANN --model.lr 0.1 --norms bn,wa --clip off,5
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal

from da.cli._options import output_folder
from da.errors import UserError, unknown

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from da.analysis.activation_figures import InspectedNetwork
    from da.analysis.activations import LayerSpreads
    from da.cli._lightning import CLI
    from da.types import Role

WHAT = ("activations", "training")

OPTIONS: dict[str, dict[str, Any]] = {
    "--out": {"type": str, "default": "runs/activations", "help": "folder of the files"},
    "--images": {
        "type": int,
        "default": 512,
        "help": "how many of each domain: as many as both have, at most this number",
    },
    "--split": {
        "type": Literal["train", "validation", "test"],
        "default": "test",
        "help": "where the images come from; they are not augmented",
    },
    "--norms": {
        "type": str | None,
        "default": None,
        "help": "without a checkpoint: a network for each, bn,wa,gn",
    },
}


PROG = "run.py inspect activations"

BEFORE = "before training"
"""What a network without a checkpoint is called."""

TOP = 5
"""How many layers of each network are printed."""


def main(argv: list[str]) -> int:
    """Measures every network, writes the figure and the table, prints the largest gaps."""
    if not argv:
        raise UserError(
            f"expected what to inspect ({' or '.join(WHAT)}): python {PROG} [CHECKPOINT ...] "
            "[options], or --help"
        )
    if argv[0] not in (*WHAT, "-h", "--help"):
        raise unknown("inspection", argv[0], WHAT)
    if argv[0] == "training":
        from da.cli import _inspect_training

        return _inspect_training.main(argv[1:], __doc__ or "")
    from da.analysis.activation_figures import InspectedNetwork, save_figure_and_table
    from da.reports.terminal import console

    networks = []
    for path, cli in commands(argv[1:] if argv[0] in WHAT else argv):
        out = output_folder(cli.config["out"])
        method = ("" if path else "before ") + type(cli.model).__name__
        found = measure(cli, path)
        name, norm = path or BEFORE, cli.model.hparams["norm"]
        networks.append(InspectedNetwork(name, cli.data.task, norm, method, found))
    files = save_figure_and_table(out, networks)
    show(console(), networks)
    print(f"written: {', '.join(map(str, files))}")
    return 0


def commands(args: list[str]) -> Iterator[tuple[str | None, CLI]]:
    """The networks that a command line names, one at a time, each with its checkpoint if any."""
    from da.cli._checkpoints import TRAINER, from_checkpoint
    from da.cli._lightning import CLI, value_of
    from da.norms import normaliser

    paths = list(takewhile(lambda word: not word.startswith("-"), args))
    options = args[len(paths) :]
    norms = value_of("--norms", options)
    if norms is not None and (paths or value_of("--model.norm", options)):
        given = "a checkpoint has its own normaliser" if paths else "--model.norm names one, too"
        raise UserError(f"norms: {given}; leave --norms out")
    for path in paths:
        yield path, from_checkpoint([path, *options], PROG, __doc__ or "", OPTIONS)[0]
    if paths:
        return
    names = [] if norms is None else [name.strip() for name in norms.split(",")]
    for name in names:
        normaliser(name)  # a wrong one is refused before anything is measured
    for line in [["--model.norm", name] for name in names] or [[]]:
        cli = CLI(
            [*options, *line], f"{PROG} [CHECKPOINT ...]", __doc__ or "", None, OPTIONS, TRAINER
        )
        cli.model.to(cli.trainer.strategy.root_device)
        yield None, cli


def measure(cli: CLI, path: str | None) -> list[LayerSpreads]:
    """Both domains' moments at every layer of a command's network.

    Without a checkpoint it is the network with which training would start. From random weights,
    batch norm's statistics are first taken of the same images in the batches that training would
    show it: they are 0 and 1 before, which normalise nothing.
    """
    from rich.progress import Progress

    from da.analysis.activations import measure_layers, pick_images, training_batches
    from da.engine.evaluation import join_single_images
    from da.norms import batch_norms, reestimated
    from da.ops.acceleration import uncompiled
    from da.reports.terminal import console

    module, data, split = cli.model, cli.data, cli.config["split"]
    most = cli.config["images"]
    if most < 2:
        raise UserError(f"images: expected a whole number from 2, got {most}")
    data.prepare_data()
    data.setup("test")
    if path is None:
        module.prepare(data)  # pretrained weights and own parts, as fit would start from them
    network = module.evaluated()
    count = min(most, *(len(data.set_of(role, split)) for role in ("source", "target")))
    bare = path is None and module.hparams["weights"] is None and bool(batch_norms(network))
    with Progress(console=console(), transient=True, disable=not console().is_terminal) as bar:
        passes = 2 + (bare and 1 + module.needs.target)
        task = bar.add_task(path or f"{module.hparams['norm']} {BEFORE}", total=passes * count)

        def shown(role: Role) -> Iterable[Tensor]:
            return pick_images(
                data, role, split, count, module.device, lambda n: bar.advance(task, n)
            )

        source, target = shown("source"), shown("target")
        seen = reestimated(network, join_single_images(training_batches(module, source, target)))
        precision = cli.trainer.precision_plugin.forward_context()
        with precision, uncompiled(module), seen if bare else nullcontext():
            return measure_layers(module, source, target)


def show(target: Console, networks: list[InspectedNetwork]) -> None:
    """Prints the layers of each network at which the domains are furthest apart."""
    from rich.table import Table

    from da.analysis.activation_figures import layer_rows

    for network in networks:
        title = f"{network.norm}, {network.method}: where the domains are furthest apart"
        table = Table(title=title, title_justify="left")
        table.add_column("layer", overflow="fold")
        for column in ("means, in σ", "σ target / source", "running mean to source, target"):
            table.add_column(column, justify="right")
        at: dict[int, dict[tuple[str, str], dict[str, Any]]] = {}
        for row in layer_rows(network):
            at.setdefault(row["depth"], {})[row["point"], row["of"]] = row
        # A gap that is not a number sorts as the smallest.
        ordered = sorted(at.values(), key=lambda found: -max(0.0, found["out", "target"]["gap"]))
        for found in ordered[:TOP]:
            last = found["out", "target"]
            away = [found["into", domain]["to_running"] for domain in ("source", "target")]
            table.add_row(
                last["layer"],
                f"{last['gap']:.3f}",
                f"{last['std_ratio']:.3f}",
                "-" if away[0] is None else ", ".join(f"{value:.3f}" for value in away),
            )
        target.print(table)
