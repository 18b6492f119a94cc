"""Evaluation on both domains: scores per stream, and batch norm with re-estimated statistics."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytorch_lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy

from da.errors import Diverged
from da.methods.base import Method
from da.norms import aligned_once, batch_norms, reestimated
from da.ops.optimisation import lr_over_norm2
from da.selection.information_maximisation import InformationMaximisation
from da.types import Domains, Labelled, Predictions, Segment

OfDomains = tuple[Tensor, Domains]
"""Images ``(B, C, H, W)`` of one batch, and which of them are of which domain."""

#: Batch norm in its strongest forms: the same weights, the running statistics re-estimated on
#: training images of one domain (on the target: AdaBN, Li et al. 2017).
FORMS = {"source-stats": "source", "target-stats": "target"}


def scores(logits: Tensor, labels: Tensor, by_class: bool = False) -> dict[str, Any]:
    """What is kept of the predictions of one stream.

    Args:
        logits: ``(N, K)`` float.
        labels: ``(N,)`` int64.
        by_class: also keep ``per_class``, the accuracy of each class, None where it is absent.

    Returns:
        n; accuracy over the samples; class_mean, the mean of the accuracies of the classes that
        are present; cross_entropy in nats; information_maximisation, which uses no labels.
    """
    classes = logits.shape[1]
    # torchmetrics' macro average counts a class that is predicted but absent as 0, so the mean
    # is taken here, over the classes that are present.
    per_class = multiclass_accuracy(logits, labels, num_classes=classes, average=None)
    present = torch.bincount(labels, minlength=classes) > 0
    found: dict[str, Any] = {
        "n": len(labels),
        "accuracy": multiclass_accuracy(
            logits, labels, num_classes=classes, average="micro"
        ).item(),
        "class_mean": per_class[present].mean().item(),
        "cross_entropy": F.cross_entropy(logits, labels).item(),
        "information_maximisation": InformationMaximisation()(logits).item(),
    }
    if by_class:
        pairs = zip(per_class.tolist(), present.tolist(), strict=True)
        found["per_class"] = [round(value, 6) if there else None for value, there in pairs]
    return found


def scored(name: str, found: Predictions) -> dict[str, Any]:
    """The scores of a stream: class by class of the target's test images, which tables show."""
    assert found.labels is not None  # for the type checker
    return scores(found.logits, found.labels, by_class=name == "target/test")


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the mode of every part is restored."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad(), aligned_once(module):
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def predict(module: Method, loader: Iterable[Labelled], domain: str = "target") -> Predictions:
    """Runs the network over one evaluation stream."""
    out: list[tuple[Tensor, Tensor, Tensor]] = []
    with evaluating(module):
        for batch in loader:
            a = module.activations(batch.images.to(module.device), domain)
            out.append((a.logits.float().cpu(), batch.labels, a.features.float().cpu()))
    logits, labels, features = (torch.cat(x) for x in zip(*out, strict=True))
    return Predictions(logits, labels, features)


def restated(module: Method, data: Any, form: str, images: Iterable[Tensor] | None = None) -> Any:
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
    batches = data.images(domain, "train") if images is None else images
    on_device = (x.to(module.device) for x in batches)
    return reestimated(
        module.evaluated(), joined((x, (Segment(domain, len(x)),)) for x in on_device)
    )


def joined(batches: Iterable[OfDomains]) -> Iterator[OfDomains]:
    """The same images, a batch of one joined to the batch before: it has no statistics.

    >>> batches = [(torch.zeros(n, 2), (Segment("source", n),)) for n in (4, 4, 1)]
    >>> [(len(images), [part.size for part in domains]) for images, domains in joined(batches)]
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


class Recorder(L.Callback):
    """Scores every evaluation of a run, on every stream, in every form of the network.

    Args:
        forms: also evaluate batch norm with re-estimated statistics, where there is any.

    Attributes:
        history: one entry per evaluation: ``{epoch, step, forms: {form: {stream: scores}}}``; the
            form ``""`` is the network as trained, streams are named ``"target/test"``.
        seconds: time spent in training steps (data and optimiser included) and in evaluation.
    """

    def __init__(self, forms: bool = True):
        self.forms = forms
        self.history: list[dict[str, Any]] = []
        self.seconds = {"training": 0.0, "evaluation": 0.0}
        self.lr_over_norm2: list[float] = []
        self.feature_deviation = 0.0
        self._since = 0.0

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on with."""
        return {
            "history": self.history,
            "seconds": self.seconds,
            "lr_over_norm2": self.lr_over_norm2,
            "feature_deviation": self.feature_deviation,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with it."""
        vars(self).update(state_dict)

    def _lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] += now - self._since
        self._since = now

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock of the training steps."""
        self._since = time.perf_counter()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Ends it."""
        if not trainer.sanity_checking:
            self._lap("training")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Scores what the module collected, then the other forms of the network."""
        if trainer.sanity_checking or not isinstance(pl_module, Method):
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        names = ["/".join(pair) for pair in data.evaluations]
        found = dict(zip(names, pl_module.predictions, strict=True))
        forms = {"": {name: scored(name, p) for name, p in found.items()}}
        if not all(math.isfinite(s["cross_entropy"]) for s in forms[""].values()):
            raise Diverged(
                f"diverged: predictions after step {trainer.global_step} are not finite; "
                f"lower the learning rate (now {pl_module.hparams['lr']:g}) or check the data"
            )
        if self.forms and batch_norms(pl_module.evaluated()):
            for form in FORMS:
                precision: Any = trainer.precision_plugin
                with precision.forward_context(), restated(pl_module, data, form):
                    forms[form] = {
                        name: scored(name, predict(pl_module, loader, name.partition("/")[0]))
                        for name, loader in zip(names, data.val_dataloader(), strict=True)
                    }
        for streams in forms.values():  # what holds the same images has the same scores
            streams.update({name: streams[same] for name, same in data.same_as.items()})
        self.history.append(
            {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, "forms": forms}
        )
        self.lr_over_norm2.append(lr_over_norm2(pl_module.optimizers()))
        self.feature_deviation = found.get("source/test", pl_module.predictions[0]).deviation
        self._lap("evaluation")


class Ticks(L.Callback):
    """Reports the finished part of a run, from 0 to 1, after every step."""

    def __init__(self, report: Callable[[float], None]):
        self.report = report

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Reports."""
        self.report(trainer.global_step / max(1, int(trainer.estimated_stepping_batches)))
