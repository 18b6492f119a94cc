"""What callbacks can decide by: the values that a training logs."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytorch_lightning as L

from da.engine.trainer_settings import refuse_monitors
from da.methods.base import Method
from da.types import DataModule

log = logging.getLogger(__name__)


def logged_names(module: Method, data: DataModule) -> list[str]:
    """The names of what a training logs, but for terms of the loss other than the task's."""
    labelled = [pair for pair in data.evaluations if (data.set_of(*pair).labels >= 0).any()]
    names = ["loss/task", *(f"accuracy/{role}/{split}" for role, split in labelled)]
    names.append("clipped")
    for kind in type(module).__mro__:  # what a method logs besides
        if issubclass(kind, Method) and kind is not Method:
            with suppress(OSError, TypeError):  # a class may have no file, as in a notebook
                names += re.findall(r"self\.log\(\s*\"([\w/]+)\"", inspect.getsource(kind))
    return names


def refuse_unknown_monitors(
    callbacks: Sequence[L.Callback], module: Method, data: DataModule
) -> None:
    """Refuses callbacks that wait for what is never logged, before anything is trained.

    Raises:
        UserError: listing what can be monitored.
    """
    refuse_monitors(callbacks, logged_names(module, data))


def warn_of_target_labels(callbacks: Sequence[L.Callback]) -> None:
    """Says which callbacks decide by target labels: allowed, but nobody has them in practice."""
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if isinstance(monitor, str) and monitor.startswith("accuracy/target/"):
            log.warning(
                "%s decides by '%s', which takes target labels: the run is an oracle's, not one of "
                "unsupervised adaptation",
                *(type(callback).__name__, monitor),
            )


class CheckMonitors(L.Callback):
    """Refuses callbacks that wait for a term of the loss that the first batch did not have."""

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Looks at the first batch of an epoch."""
        if batch_idx == 0 and isinstance(pl_module, Method):
            names = [*logged_names(pl_module, pl_module.data), *pl_module.logged_terms]
            refuse_monitors(trainer.callbacks, names, terms=True)  # type: ignore[attr-defined]
