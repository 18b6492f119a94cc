"""Evaluation on both domains: scores per stream, and batch norm with re-estimated statistics."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as L
import torch
from torch import Tensor

from da.adapters.base import Adapter
from da.engine.label_free import (
    KeptSets,
    label_free_scores,
    score_sets,
    scored_stream,
    sets_of_logits,
)
from da.engine.prediction_scores import score_predictions
from da.errors import Diverged
from da.methods.base import Method
from da.networks.network import evaluating
from da.norms import batch_norms, reestimated
from da.ops.acceleration import evaluation_layout
from da.ops.optimisation import lr_over_norm2
from da.types import DataModule, Domains, Labelled, Predictions, Role, Segment, Split

OfDomains = tuple[Tensor, Domains]
"""Images ``(B, C, H, W)`` of one batch, and which of them are of which domain."""

Tick = Callable[[int], None]
"""Told how many images have just gone through the network, and again and again."""

#: Batch norm in its strongest forms: the same weights, the running statistics re-estimated on
#: training images of one domain (on the target: AdaBN, Li et al. 2017).
FORMS: dict[str, Role] = {"source-stats": "source", "target-stats": "target"}


def score_streams(
    predictions: Mapping[str, Predictions],
    data: DataModule,
    names: Sequence[str],
    forwarder: Forwarder,
) -> dict[str, dict[str, Any]]:
    """What is kept of one form of a network, by stream; label-free scores at their stream.

    Args:
        predictions: by stream, ``"target/test"``.
        data: its classes, and which streams hold the same images.
        names: of the label-free scores.
        forwarder: forwards what a score needs and no evaluation shows.
    """
    scores = {
        name: score_predictions(p, data.classes, by_class=name == "target/test")
        for name, p in predictions.items()
    }
    place = scored_stream(predictions, data)
    scores[place]["label_free"] = label_free_scores(predictions, place, data, names, forwarder)
    # What holds the same images has the same scores.
    return {
        **scores,
        **{name: scores[same] for name, same in data.same_as.items() if same in scores},
    }


@dataclass(frozen=True)
class Forwarder:
    """Forwards images through the network at hand, in the precision of the run.

    Attributes:
        module: whose evaluated network it is.
        data: the data module.
        context: in which it computes, such as a precision.
        tick: told of the images of every batch of :meth:`predict`.
    """

    module: Method
    data: DataModule
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    tick: Tick = lambda images: None

    def predict(self, role: Role, split: Split) -> Predictions:
        """Predictions on one split of a domain."""
        with self.context():
            batches = counted(self.data.evaluation(role, split), self.tick)
            return predict_stream(self.module, batches, role)

    def images(self, stream: str, n: int, order: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches ``(B, C, H, W)`` of a stream with the positions ``(B,)`` of their images in it.

        Args:
            stream: ``"target/test"``.
            n: how many of its images are evaluated, the first ones.
            order: a seed to draw the order from; None for the stream's own.
        """
        for role, split in self.data.evaluations:
            if f"{role}/{split}" == stream:
                for batch in self.data.evaluation(role, split, order_seed=order):
                    seen = batch.indices < n
                    yield batch.images[seen], batch.indices[seen]

    def logits(self, batches: Iterable[Tensor]) -> Tensor:
        """Logits ``(N, K)`` float32 on the CPU of images of the target that a score has made."""
        with self.context(), evaluating(self.module):
            logits = [
                self.module.activations(images.to(self.module.device)).logits.float().cpu()
                for images in batches
            ]
        return torch.cat(logits)


def counted(batches: Iterable[Any], tick: Tick) -> Iterator[Any]:
    """The same batches, of images or of :class:`da.types.Labelled`; tells how many are done."""
    for batch in batches:
        yield batch
        tick(len(batch if isinstance(batch, Tensor) else batch.images))


def predict_stream(
    module: Method, loader: Iterable[Labelled], domain: str = "target"
) -> Predictions:
    """Runs the evaluated network over one stream."""
    out: list[tuple[Tensor, Tensor, Tensor]] = []
    with evaluating(module):
        for batch in loader:
            a = module.activations(batch.images.to(module.device), domain)
            out.append((a.logits.float().cpu(), batch.labels, a.features.float().cpu()))
    logits, labels, features = (torch.cat(x) for x in zip(*out, strict=True))
    return Predictions(logits, labels, features)


def restated_statistics(
    module: Method, data: DataModule, form: str, images: Iterable[Tensor] | None = None
) -> Any:
    """Context in which batch norms of the evaluated network have the statistics of a form.

    Args:
        module: whose network it is.
        data: its domains.
        form: of ``FORMS``, or ``""`` for the network as it is.
        images: batches ``(B, C, H, W)`` to take the statistics of instead; without a form they
            are the target's.
    """
    if images is None and not form:
        return nullcontext()
    domain = FORMS.get(form, "target")
    batches = data.images(domain, "train", mixed=True) if images is None else images
    on_device = (evaluation_layout(x.to(module.device)) for x in batches)
    return reestimated(
        module.evaluated(), join_single_images((x, (Segment(domain, len(x)),)) for x in on_device)
    )


def join_single_images(batches: Iterable[OfDomains]) -> Iterator[OfDomains]:
    """The same images, a batch of one joined to the batch before: it has no statistics.

    >>> batches = [(torch.zeros(n, 2), (Segment("source", n),)) for n in (4, 4, 1)]
    >>> joined = join_single_images(batches)
    >>> [(len(images), [part.size for part in domains]) for images, domains in joined]
    [(4, [4]), (5, [4, 1])]
    """
    held: OfDomains | None = None
    for batch in batches:
        if held is not None and len(batch[0]) == 1:
            held = torch.cat([held[0], batch[0]]), held[1] + batch[1]
            continue
        if held is not None:
            yield held
        held = batch
    if held is not None:
        yield held


def predict_adapted(
    module: Method,
    adapter: Adapter,
    loader: Iterable[Labelled],
    domain: str = "target",
) -> Predictions:
    """What an adapter predicts on one stream, starting from the evaluated network.

    Args:
        module: whose network it is; it stays as it is.
        adapter: gets a copy of the network.
        loader: the stream.
        domain: which domain it is of.

    Returns:
        Logits and labels in the order of the stream; features are those of no network, empty.
    """
    network = copy.deepcopy(module.evaluated())
    labels: list[Tensor] = []

    def images() -> Iterator[Tensor]:
        for batch in loader:
            labels.append(batch.labels)
            yield batch.images.to(module.device)

    logits = [x.detach().float().cpu() for x in adapter.predict(network, images(), domain)]
    return Predictions(torch.cat(logits), torch.cat(labels), torch.empty(len(torch.cat(labels)), 0))


class Recorder(L.Callback):
    """Scores every evaluation of a run, on every stream, in every form of the network.

    Args:
        forms: also evaluate batch norm with re-estimated statistics, where there is any.
        score_names: label-free scores to compute.

    Attributes:
        history: one entry per evaluation: ``{epoch, step, forms: {form: {stream: scores}}}``; the
            form ``""`` is the network as trained, streams are named ``"target/test"``.
        kept: where a score compares evaluations with one another, what it needs of those so far,
            here and in every checkpoint.
        seconds: time spent in training steps (data and optimiser included) and in evaluation.
        tick: told of the images of every batch that the other forms are evaluated on, and that
            their statistics are re-estimated on.
    """

    def __init__(self, forms: bool = True, score_names: Sequence[str] = ()):
        self.forms = forms
        self.score_names = tuple(score_names)
        self.history: list[dict[str, Any]] = []
        self.kept: KeptSets = {}
        self.seconds = {"training": 0.0, "evaluation": 0.0}
        self.lr_over_norm2: list[float] = []
        self.feature_deviation = 0.0
        self.tick: Tick = lambda images: None
        self._since = 0.0

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run continues from: the evaluations and times so far."""
        return {
            "history": self.history,
            "kept": self.kept,
            "seconds": self.seconds,
            "lr_over_norm2": self.lr_over_norm2,
            "feature_deviation": self.feature_deviation,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from what :meth:`state_dict` kept."""
        vars(self).update(state_dict)
        if any(isinstance(key, int) for key in self.kept):  # by an earlier version: all logits
            earlier: Any = self.kept
            self.kept = sets_of_logits(earlier, self.score_names)

    def other_forms(self, module: Method) -> tuple[str, ...]:
        """The forms that are evaluated beside the network as trained."""
        return tuple(FORMS) if self.forms and batch_norms(module.evaluated()) else ()

    def _stop_clock(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] += now - self._since
        self._since = now

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock where a training goes on within an epoch: none starts then."""
        self._since = time.perf_counter()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock of the training steps."""
        self._since = time.perf_counter()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Adds the time since the last evaluation to the training's."""
        if not trainer.sanity_checking:
            self._stop_clock("training")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Scores what the module collected, then the other forms of the network."""
        if trainer.sanity_checking or not isinstance(pl_module, Method):
            return
        data = pl_module.data
        names = ["/".join(pair) for pair in data.evaluations]
        predictions = dict(zip(names, pl_module.predictions, strict=True))
        if not all(p.logits.isfinite().all() for p in predictions.values()):
            raise Diverged(
                f"diverged: predictions after step {trainer.global_step} are not finite; "
                f"lower the learning rate (now {pl_module.hparams['lr']:g}) or check the data"
            )
        plugin: Any = trainer.precision_plugin
        forwarder = Forwarder(pl_module, data, plugin.forward_context, self.tick)
        forms = {"": score_streams(predictions, data, self.score_names, forwarder)}
        place = scored_stream(predictions, data)
        logits = {"": predictions[place].logits}
        for form in self.other_forms(pl_module):
            images = counted(data.images(FORMS[form], "train", mixed=True), self.tick)
            with plugin.forward_context(), restated_statistics(pl_module, data, form, images):
                again = {
                    name: forwarder.predict(role, split)
                    for name, (role, split) in zip(names, data.evaluations, strict=True)
                }
                forms[form] = score_streams(again, data, self.score_names, forwarder)
            logits[form] = again[place].logits
        for streams in self.history[-1]["forms"].values() if self.history else ():
            for scores in streams.values():
                scores.pop("confusion", None)  # it is large where there are many classes
        self.history.append(
            {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, "forms": forms}
        )
        score_sets(self.history, self.kept, logits, self.score_names)
        self.lr_over_norm2.append(lr_over_norm2(pl_module.optimizers()))
        self.feature_deviation = predictions.get("source/test", pl_module.predictions[0]).deviation
        self._stop_clock("evaluation")
