"""The watch over a training: hears its critics, tries its losses, looks at its evaluations."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pytorch_lightning as L
from torch import Tensor

from da.engine.alarms.critics import EVERY, WINDOW, Critic
from da.engine.alarms.evaluations import (
    Evaluated,
    feature_scale,
    judge_evaluations,
    most_predicted,
)
from da.engine.alarms.losses import Term
from da.engine.alarms.record import Alarm, Verdict
from da.methods.base import Method

log = logging.getLogger(__name__)


class Watch(L.Callback):
    """Raises alarms. A training computes the same with it as without, and as fast.

    A step is delayed by no more than the accuracies that critics have anyway, added up on the
    device in one of ``EVERY``; the device is asked once a ``WINDOW``. A loss term is tried with a
    backward pass through the heads until it has reached the backbone, which it nearly always has
    when it is tried first. What evaluations are judged by is there already.

    Attributes:
        alarms: those raised so far, in order.
        whole: whether the training was watched from its first step. One that goes on from a
            checkpoint of before there was a watch is not: of its start nothing is known.
    """

    def __init__(self) -> None:
        self.alarms: list[Alarm] = []
        self.whole = True
        self._critics: dict[str, Critic] = {}
        self._terms: dict[str, Term] = {}
        self._evaluations: list[Evaluated] = []
        self._window_end = 0
        self._tries = False
        self._module: Method | None = None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on with, so that it raises the same alarms."""
        critics = {
            name: {**vars(critic), "total": float(critic.total)}
            for name, critic in self._critics.items()
        }
        return {
            "alarms": [alarm.model_dump() for alarm in self.alarms],
            "critics": critics,
            "terms": {name: asdict(term) for name, term in self._terms.items()},
            "evaluations": [asdict(one) for one in self._evaluations],
            "window_end": self._window_end,
            "whole": self.whole,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from what :meth:`state_dict` kept."""
        self.alarms = [Alarm.model_validate(alarm) for alarm in state_dict["alarms"]]
        self._critics = {name: Critic(**kept) for name, kept in state_dict["critics"].items()}
        self._terms = {name: Term(**kept) for name, kept in state_dict["terms"].items()}
        self._evaluations = [Evaluated(**kept) for kept in state_dict["evaluations"]]
        self._window_end = state_dict["window_end"]
        self.whole = state_dict.get("whole", True)

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Notes where a training goes on that was not watched so far; comes before its state."""
        self.whole = self.state_key in checkpoint["callbacks"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begins to look at losses, before they are differentiated."""
        assert isinstance(pl_module, Method)  # for the type checker
        self._module = pl_module
        # Some versions of PyTorch refuse a second pass through what was compiled for one.
        if not pl_module.hparams["compile"]:
            pl_module.before_backward.append(self._try_losses)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leaves the module as it was."""
        if self._module is not None:
            self._module.listener = None
            self._module.before_backward = [
                look for look in self._module.before_backward if look != self._try_losses
            ]

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Leaves the module as it was, of a training that diverged, too."""
        self.on_train_end(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Says whether this step is listened to, and whether its losses are tried."""
        assert isinstance(pl_module, Method)
        step = trainer.global_step
        if step == pl_module.stage_began:
            self._critics.clear()  # what a critic is to do begins anew, and so do its windows
        listens = pl_module.critics and (step - pl_module.stage_began) % EVERY == 0
        pl_module.listener = self._hear if listens else None
        self._tries = step > 0 and step % WINDOW == 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Judges the critics at the end of a window."""
        assert isinstance(pl_module, Method)
        pl_module.listener = None
        step, began = trainer.global_step, pl_module.stage_began
        # Several batches that make one update end at the same step.
        if (step - began) % WINDOW == 0 and step > max(began, self._window_end):
            self._window_end = step
            for name, critic in self._critics.items():
                self._raise(critic.end_window(name, pl_module.stage_progress), step)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Judges an evaluation by what was collected of it."""
        if trainer.sanity_checking or not isinstance(pl_module, Method):
            return
        data = pl_module.data
        names = ["/".join(pair) for pair in data.evaluations]
        streams = dict(zip(names, pl_module.predictions, strict=True))
        streams |= {name: streams[same] for name, same in data.same_as.items() if same in streams}
        source = streams.get("source/test", streams.get("source/validation"))
        target = streams["target/test"]
        if source is None or source.labels is None:
            return
        label, share, source_share = most_predicted(target, source)
        correct = source.logits.argmax(dim=1) == source.labels
        terms = pl_module.logged_terms
        self._evaluations.append(
            Evaluated(
                step=trainer.global_step,
                epoch=trainer.current_epoch + 1,
                label=data.classes[label],
                share=share,
                source_share=source_share,
                scale=max(feature_scale(source), feature_scale(target)),
                source_accuracy=correct.float().mean().item(),
                adapts="loss/task" in terms and len(terms) > 1,
            )
        )
        self._judge_evaluations()

    def finish(self) -> list[Alarm] | None:
        """All alarms, with those of the last evaluation, after which nothing can get better.

        None of a training that was not watched from its first step.
        """
        self._judge_evaluations(last=True)
        return self.alarms if self.whole else None

    def _hear(self, name: str, value: Tensor) -> None:
        """Takes what a method logs, where it is the accuracy of a critic."""
        assert self._module is not None
        if name in self._module.critics:
            self._critics.setdefault(name, Critic()).add(value)

    def _try_losses(self, losses: Mapping[str, Tensor]) -> None:
        """Looks whether the terms of an update reach the backbone, where it is updated at all."""
        module = self._module
        if not self._tries or module is None:
            return
        parameters = [p for p in module.network.backbone.parameters() if p.requires_grad]
        if parameters:
            for name, loss in losses.items():
                term = self._terms.setdefault(name, Term(module.batches_done))
                self._raise(term.look(name, loss, module, parameters), module.batches_done)

    def _judge_evaluations(self, last: bool = False) -> None:
        for verdict in judge_evaluations(self._evaluations, last):
            now = self._evaluations[-1]
            self._raise(verdict, now.step, now.epoch)

    def _raise(self, verdict: Verdict | None, step: int, epoch: int | None = None) -> None:
        """Keeps an alarm and says it, unless the same was raised before."""
        if verdict is None or (verdict.name == "critic-at-chance" and not self.whole):
            return  # the windows that it is of were not the first
        if any((alarm.name, alarm.about) == (verdict.name, verdict.about) for alarm in self.alarms):
            return
        if epoch is None:
            assert self._module is not None
            epoch = self._module.current_epoch + 1
        self.alarms.append(Alarm(step=step, epoch=epoch, **verdict._asdict()))
        log.warning("alarm: %s", self.alarms[-1])
