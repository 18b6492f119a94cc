"""What a trained network predicts of the target with statistics of other images. In workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from da.adapters.base import Adapter, adapter
from da.analysis.target_streams import (
    NOT_SCORED,
    Indices,
    LoadedImages,
    Mixture,
    order_of,
    stream,
)
from da.engine.checkpoints import columns_by_name, load_weights, read_run
from da.engine.components import find_data
from da.engine.evaluation import predict_adapted, predict_stream
from da.engine.provenance import describe_machine, package_versions
from da.engine.spec import RunSpec
from da.engine.training import build_data, build_method_and_data
from da.errors import UserError
from da.grids.statistics_study import REESTIMATED, Measured, Measurements, Question, Questions
from da.methods.base import Method
from da.networks.backbones.base import without_weights
from da.networks.preprocessing import adopt_preprocessing
from da.norms import batch_norms, reestimated
from da.ops.seeding import derive_seed
from da.types import DataModule, Labelled, Segment


def measure(
    cell: RunSpec,
    directory: Path,
    progress: Callable[[float], None],
    questions: dict[str, Any],
    checkpoints: dict[str, str],
) -> Measurements:
    """Answers every question about one trained network; what a worker calls.

    Args:
        cell: what was trained.
        directory: of the measurements; nothing is written there.
        progress: told the finished part, from 0 to 1.
        questions: settings of :class:`Questions`.
        checkpoints: files by the identity of what was trained.

    Raises:
        UserError: the checkpoint is damaged or of another training, or a target has no labels.
    """
    began = perf_counter()
    asked = Questions.model_validate(questions)
    module, data = trained_network(cell, checkpoints[cell.id])
    with torch.random.fork_rng(devices=[]), precision_of(cell):
        network = StudiedNetwork.of(cell, module, data, asked)
        trained = network.accuracy_as_trained()
        measured = []
        places = list(network.places())
        for number, place in enumerate(places):
            progress(number / len(places))
            accuracy = network.accuracy(*place)
            question, other, value, way, draw = place
            measured.append(
                Measured(
                    question=question, other=other, value=value, way=way, draw=draw,
                    n=len(network.test), accuracy=accuracy,
                )
            )  # fmt: skip
    seconds = perf_counter() - began
    return Measurements(
        run=cell.id,
        spec=cell,
        asked=asked.id,
        statistics=network.has_batch_norm,
        images={"train": len(network.train), "test": len(network.test)},
        trained=trained,
        measured=measured,
        seconds={"training": 0.0, "evaluation": seconds, "total": seconds},  # type: ignore[arg-type]
        versions=package_versions(),
        data_manifest=data.manifest,
        machine=describe_machine(),
    )


def trained_network(cell: RunSpec, path: str) -> tuple[Method, DataModule]:
    """The method with a checkpoint's weights, on the device of the training, and its data."""
    content = read_run(path)
    if content["spec"].id != cell.id:
        raise UserError(
            f"checkpoint: '{path}' is of another training ({content['spec'].id}); remove it, and "
            "it is trained again"
        )
    with without_weights():
        module, data = build_method_and_data(cell)
    data.prepare_data()
    data.setup("test")
    if columns_by_name(content["classes"], data.classes, path) is not None:
        raise UserError(f"checkpoint: '{path}' has the classes of the data in another order")
    load_weights(module, content, path)
    kind = {"auto": "cpu"}.get(cell.device, cell.device)
    return module.to(torch.device(kind)), data


def precision_of(cell: RunSpec) -> AbstractContextManager[Any]:
    """The precision that the network was trained and evaluated in."""
    kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    if cell.precision not in kinds:
        return nullcontext()
    return torch.autocast(cell.device, kinds[cell.precision])


Place = tuple[Question, str, str, str, int]
"""Question, what the target is mixed with, the value, the way, and the draw."""


class Condition(NamedTuple):
    """What images a network gets its statistics of, and how.

    Attributes:
        way: re-estimated, or the name of an adapter.
        number: images that statistics are re-estimated on, or in a batch of the stream.
        order: of the images, see :func:`~da.analysis.target_streams.order_of`.
        other: what they are mixed with, if anything.
        share: of that.
        draw: its number.
    """

    way: str
    number: int
    order: str
    other: str
    share: float
    draw: int


@dataclass
class StudiedNetwork:
    """A trained network, the images of its target, and what is asked of it.

    Attributes:
        module: whose evaluated network it is.
        asked: the questions.
        target: name of the domain; draws are by it, the same for every normaliser.
        train: the target's training images, which statistics are re-estimated on.
        test: the target's test images, which streams are made of.
        others: by what the target is mixed with, other domains' training and test images.
        adapters: by name.
        batch_size: of evaluation.
        seed: of the training; of the draws, too.
    """

    module: Method
    asked: Questions
    target: str
    train: LoadedImages
    test: LoadedImages
    others: dict[str, tuple[list[LoadedImages], list[LoadedImages]]]
    adapters: dict[str, Adapter]
    batch_size: int
    seed: int
    has_batch_norm: bool = field(init=False)
    can_reestimate: bool = field(init=False)
    _known: dict[Condition, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        network = self.module.evaluated()
        self.has_batch_norm = bool(batch_norms(network, within_domain_layers=True))
        self.can_reestimate = bool(batch_norms(network))  # not where each domain has its own

    @classmethod
    def of(
        cls, cell: RunSpec, module: Method, data: DataModule, asked: Questions
    ) -> StudiedNetwork:
        """Loads the images that the questions want.

        Raises:
            UserError: where the target has no labels.
        """
        test = LoadedImages.of(data, "target", "test", asked.test_images)
        if (test.labels < 0).any():
            raise UserError(f"{data.target} has images without labels, and accuracies need them")
        return cls(
            module=module,
            asked=asked,
            target=data.target,
            train=LoadedImages.of(data, "target", "train"),
            test=test,
            others={
                other: _images_of_others(cell, module, data, other, asked)
                for other in asked.mixture
            },
            adapters={name: adapter(name, options) for name, options in asked.adapters.items()},
            batch_size=data.eval_batch_size,
            seed=cell.seed,
        )

    def places(self) -> Iterator[Place]:
        """All that is to be measured: not what can't change a network, or is not defined for it."""
        for question, other, values in self.asked.series():
            for value in values:
                for way in self.asked.ways:
                    if not self.measures(way):
                        continue
                    # With all images there is nothing to draw, and in one batch no order.
                    draws = 1 if (question, value) == ("images", "all") else self.asked.draws
                    for draw in range(draws):
                        yield question, other, value, way, draw

    def measures(self, way: str) -> bool:
        """Whether a way changes the network."""
        if way == REESTIMATED:
            return self.can_reestimate
        return self.has_batch_norm or not self.adapters[way].statistics_alone

    def accuracy_as_trained(self) -> float:
        """Of the network as it is, on the test images."""
        return self._score(predict_stream(self.module, self._plain_stream()))

    def accuracy(self, question: Question, other: str, value: str, way: str, draw: int) -> float:
        """What one way makes of one value of a question, with one draw of images."""
        condition = self._condition(question, other, value, way, draw)
        if condition not in self._known:
            measured = self._reestimated if way == REESTIMATED else self._adapted
            self._known[condition] = measured(condition)
        return self._known[condition]

    def _condition(
        self, question: Question, other: str, value: str, way: str, draw: int
    ) -> Condition:
        """The images that a place means: several questions have a value in common."""
        asked, again = self.asked, way == REESTIMATED
        number, there = (
            (asked.statistics_images, len(self.train))
            if again
            else (asked.batch_size, len(self.test))
        )
        if question == "images":
            number = there if value == "all" else int(value)
        share = float(value) if question == "mixture" else 0.0
        order = value if question == "label_shift" else "iid"
        return Condition(way, min(number, there), order, other if share else "", share, draw)

    def _mixture(self, condition: Condition) -> Mixture | None:
        if not condition.other:
            return None
        domains = self.others[condition.other][condition.way != REESTIMATED]
        return Mixture(domains, self._key(condition, condition.other))

    def _key(self, condition: Condition, what: str) -> int:
        return derive_seed("target statistics", self.seed, self.target, what, condition.draw)

    def _adapted(self, condition: Condition) -> float:
        """Of the test images as a stream that an adapter sees batch after batch."""
        order = order_of(condition.order, self.test.labels, self._key(condition, "test"))
        mixture, share = self._mixture(condition), condition.share
        images = stream(self.test, order, condition.number, mixture, share)
        return self._score(predict_adapted(self.module, self.adapters[condition.way], images))

    def _reestimated(self, condition: Condition) -> float:
        """Of the test images with statistics of training images, the first ones in an order."""
        order = order_of(condition.order, self.train.labels, self._key(condition, "train"))
        mixture, share = self._mixture(condition), condition.share
        batches = self._statistics_images(order, condition.number, mixture, share)
        with reestimated(self.module.evaluated(), batches, single_image=True):
            return self._score(predict_stream(self.module, self._plain_stream()))

    def _statistics_images(
        self, order: Indices, number: int, mixture: Mixture | None, share: float
    ) -> Iterator[tuple[Tensor, tuple[Segment, ...]]]:
        """Batches of the first images in an order, with a share of others among each.

        Where a domain has fewer images, all are fewer: the shares stay. All are told to be of the
        target, as a network must take them that does not know better.
        """
        number = min(number, int(len(order) / (1 - share)))
        if mixture is not None and share:
            number = min(number, int(mixture.available / share))
        count = -(-number // self.batch_size)
        parts = np.array_split(order[: number - round(share * number)], count)
        for k, part in enumerate(parts):
            first, last = (round(share * number * i / count) for i in (k, k + 1))
            others = mixture.part(first, last - first) if mixture is not None else []
            images = torch.cat([self.train.batch(part), *others]).to(self.module.device)
            yield images, (Segment("target", len(images)),)

    def _plain_stream(self) -> Iterable[Labelled]:
        return stream(self.test, np.arange(len(self.test)), self.batch_size)

    def _score(self, predictions: Any) -> float:
        scored = predictions.labels != NOT_SCORED
        right = predictions.logits.argmax(dim=1) == predictions.labels
        return float(right[scored].double().mean())


def _images_of_others(
    cell: RunSpec, module: Method, data: DataModule, other: str, asked: Questions
) -> tuple[list[LoadedImages], list[LoadedImages]]:
    """Training and test images of the domains that the target is mixed with."""
    modules = [data] if other == "source" else list(_other_domains(cell, module))
    return (
        [LoadedImages.of(m, "source", "train", asked.statistics_images) for m in modules],
        [LoadedImages.of(m, "source", "test", asked.test_images) for m in modules],
    )


def _other_domains(cell: RunSpec, module: Method) -> Iterator[DataModule]:
    """Data whose source is a domain that the training saw nothing of, prepared as the training's.

    Raises:
        UserError: where there is none.
    """
    kind = find_data(cell.data)
    for domain in kind.available(cell.data_args.get("root")):
        if domain not in (cell.source, cell.target):
            data = build_data(cell.model_copy(update={"source": domain}))
            adopt_preprocessing(data, module.hparams["backbone"], module.hparams["weights"])
            data.prepare_data()
            yield data
