"""What a training step costs: precision, layout and compilation, and what the framework adds.

Everything is measured in one process as paired, interleaved rounds, and given as a ratio or a
difference to a plain PyTorch loop without Lightning and without this library's module.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from operator import sub
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import pytorch_lightning as L
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from rich.progress import track
from torch import Tensor, nn

from da.engine.evaluation import Recorder
from da.engine.progress import ProgressTicks
from da.engine.trainer import MethodTrainer
from da.methods.critics import build_critic
from da.methods.dann import DANN
from da.networks.backbones.base import build_backbone
from da.ops.gradient_reversal import gradient_reversal
from da.ops.schedules import annealing, reversal_strength
from da.types import Batch, Labelled, Unlabelled, View

CLASSES = 10
LR = 1e-3

PLAIN = "plain loop"

Like = Literal["fit", "ablate", "steps alone"]
"""What goes on around the steps: ``fit`` logs to a file, ``ablate`` reports its progress, and both
save a checkpoint; or none of it."""

#: The framework's own path under its flags: the trainer's precision and the module's options.
FLAGS: dict[str, tuple[str, dict[str, bool]]] = {
    "fit": ("32-true", {}),
    "fit, bf16-mixed": ("bf16-mixed", {}),
    "fit, channels_last": ("32-true", {"channels_last": True}),
    "fit, bf16-mixed, channels_last": ("bf16-mixed", {"channels_last": True}),
    "fit, bf16-mixed, channels_last, compile": (
        "bf16-mixed",
        {"channels_last": True, "compile": True},
    ),
}


class Cost(NamedTuple):
    """Of one step, or of the median step of a round.

    Attributes:
        wall: seconds that passed.
        cpu: seconds of this thread's processor time, which other processes do not disturb. With
            more than one thread of PyTorch it is only a part.
    """

    wall: float
    cpu: float


class ClockedBatches:
    """Batches that note the time whenever one is asked for.

    The time between two of them is all of a step: what the loop does around it, too.

    Args:
        batches: anything that can be passed over again and again.
        steps: how many batches to give.
    """

    def __init__(self, batches: Iterable[Batch], steps: int):
        self.batches = batches
        self.steps = steps
        self.marks: list[Cost] = []

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        self.marks = []
        count = 0
        while count < self.steps:
            for batch in self.batches:
                if count == self.steps:
                    break
                self.marks.append(read_clocks())
                count += 1
                yield batch

    def costs(self) -> list[Cost]:
        """Of every step but the first, which warms up, and the last, which ends the epoch."""
        pairs = zip(self.marks[1:], self.marks[2:], strict=False)
        return [Cost(b.wall - a.wall, b.cpu - a.cpu) for a, b in pairs]


def read_clocks() -> Cost:
    """Both clocks."""
    return Cost(time.perf_counter(), time.thread_time())


def random_batches(batch: int, size: int, count: int = 2) -> list[Batch]:
    """Noise images of both domains with labels, made beforehand.

    Args:
        batch: images of each domain.
        size: their height and width.
        count: how many batches.
    """
    noise = torch.Generator().manual_seed(0)
    labels = torch.arange(batch) % CLASSES

    def images() -> Tensor:
        return torch.randn(batch, 3, size, size, generator=noise)

    return [
        Batch(Labelled((images(),), labels, labels), Unlabelled((images(),), labels))
        for _ in range(count)
    ]


# The two loops.


class PlainDANN(nn.Module):
    """The parts of a DANN network with batch norm, and nothing of :mod:`da.methods.base`.

    Args:
        backbone: name of the network.
    """

    def __init__(self, backbone: str):
        super().__init__()
        self.backbone = build_backbone(backbone)
        width = self.backbone.num_features
        self.bottleneck = nn.Sequential(
            nn.Linear(width, 256, bias=False), nn.BatchNorm1d(256), nn.ReLU()
        )
        self.classifier = nn.Linear(256, CLASSES)
        self.critic = build_critic(256, 1024)


def run_plain_loop(network: PlainDANN, batches: ClockedBatches) -> None:
    """DANN on joint batches with its schedules, as one would write it by hand."""
    optimiser = torch.optim.SGD(
        network.parameters(), lr=LR, momentum=0.9, weight_decay=1e-3, nesterov=True
    )
    for step, (source, target) in enumerate(batches):
        progress = step / len(batches)
        for group in optimiser.param_groups:
            group["lr"] = LR * annealing(progress)
        assert source is not None  # for the type checker
        n = len(source.images)
        features = network.bottleneck(network.backbone(torch.cat([source.images, target.images])))
        logits = network.classifier(features)
        domain = network.critic(gradient_reversal(features, reversal_strength(progress)))
        is_source = torch.cat([torch.ones(n, 1), torch.zeros(len(target.images), 1)])
        loss = F.cross_entropy(logits[:n], source.labels)
        loss = loss + F.binary_cross_entropy_with_logits(domain, is_source)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


class PremadeData(L.LightningDataModule):
    """As much of a data module as training without evaluation asks for."""

    evaluations = ()
    classes = tuple(map(str, range(CLASSES)))

    def __init__(self, batches: ClockedBatches, batch_size: int):
        super().__init__()
        self.batches = batches
        self.batch_size = batch_size

    def serve_views(self, source: Sequence[View], target: Sequence[View]) -> None:
        """They are made already."""

    def train_dataloader(self) -> Any:
        """The clocked batches."""
        return self.batches


def run_framework(
    module: DANN, data: PremadeData, precision: str, like: Like, folder: Path
) -> None:
    """Lightning's loop with this library's module.

    Args:
        module: trained on; its optimiser is a new one.
        data: one epoch of it is trained.
        precision: of the trainer.
        like: what goes on around the steps, see :data:`Like`.
        folder: for what is written.
    """
    callbacks: list[L.Callback] = [Recorder()]
    if like != "steps alone":
        callbacks.append(
            ModelCheckpoint(
                folder, filename="last", enable_version_counter=False, save_on_train_epoch_end=True
            )
        )
    if like == "ablate":
        callbacks.append(ProgressTicks(lambda _: None))
    trainer = MethodTrainer(
        max_epochs=1,
        accelerator="cpu",
        precision=precision,
        logger=CSVLogger(folder, name="", version="metrics") if like == "fit" else False,
        log_every_n_steps=10,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=like != "steps alone",
        num_sanity_val_steps=0,
        limit_val_batches=0,
        gradient_clip_val=None,  # as in the plain loop
        callbacks=callbacks,
        default_root_dir=folder,
    )
    trainer.fit(module, datamodule=data)


# Rounds.

Round = Callable[[], Cost]


def time_plain_loop(network: PlainDANN, batches: Iterable[Batch], steps: int) -> Cost:
    """The median step of a short run of the plain loop."""
    clocked = ClockedBatches(batches, steps + 2)
    run_plain_loop(network, clocked)
    return median_cost(clocked.costs())


def time_framework(
    module: DANN, batches: Iterable[Batch], steps: int, precision: str, like: Like, size: int
) -> Cost:
    """The median step of a short run of the framework; what it writes is thrown away."""
    clocked = ClockedBatches(batches, steps + 2)
    with tempfile.TemporaryDirectory() as folder:
        run_framework(module, PremadeData(clocked, size), precision, like, Path(folder))
    gc.collect()  # a trainer is full of cycles, and holds an optimiser
    return median_cost(clocked.costs())


def median_cost(costs: Sequence[Cost]) -> Cost:
    """Of both clocks."""
    return Cost(*(statistics.median(x) for x in zip(*costs, strict=True)))


def interleave_rounds(rounds: dict[str, Round], count: int) -> dict[str, list[Cost]]:
    """What every variant took in every round, each once per round, in turn.

    A drift of the machine's speed meets all of them. One round before is not counted.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in rounds}
    names = list(rounds)
    for i in track(range(count + 1), description="rounds", transient=True):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            cost = rounds[name]()
            if i:
                costs[name].append(cost)
    return costs


def compare_flags(
    backbone: str, batch: int, size: int, steps: int, rounds: int, compiled: bool
) -> dict[str, list[Cost]]:
    """The plain float32 loop, and the framework under each of ``FLAGS``.

    Args:
        backbone: name of the network.
        batch: images of each domain in a step.
        size: their height and width.
        steps: in each round.
        rounds: how many.
        compiled: also with ``compile``.
    """
    batches = random_batches(batch, size)
    variants: dict[str, Round] = {
        PLAIN: partial(time_plain_loop, PlainDANN(backbone), batches, steps),
    }
    for name, (precision, options) in FLAGS.items():
        if compiled or "compile" not in options:
            module = DANN(num_classes=CLASSES, backbone=backbone, lr=LR, **options)
            variants[name] = partial(
                time_framework, module, batches, steps, precision, "steps alone", batch
            )
    return interleave_rounds(variants, rounds)


def measure_overhead(
    batches: Iterable[Batch], batch: int, steps: int, rounds: int
) -> dict[str, list[Cost]]:
    """The plain loop and the framework in float32 on the small network of the digits.

    Args:
        batches: the same for all.
        batch: images of each domain in them.
        steps: in each round.
        rounds: how many.
    """
    variants: dict[str, Round] = {
        PLAIN: partial(time_plain_loop, PlainDANN("digits_resnet"), batches, steps)
    }
    for like in get_args(Like):
        module = DANN(num_classes=CLASSES, lr=LR)
        variants[like] = partial(time_framework, module, batches, steps, "32-true", like, batch)
    return interleave_rounds(variants, rounds)


def median_speedup(costs: Sequence[Cost], base: Sequence[Cost]) -> float:
    """How many times as fast as ``base``, the median of the paired rounds."""
    return statistics.median(b.wall / c.wall for c, b in zip(costs, base, strict=True))


def median_added(costs: Sequence[Cost], base: Sequence[Cost]) -> Cost:
    """Seconds per step more than ``base``, medians of the paired rounds."""
    return median_cost([Cost(*map(sub, c, b)) for c, b in zip(costs, base, strict=True)])
