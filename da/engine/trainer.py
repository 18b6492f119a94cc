"""Lightning's trainer, with updates that are made by methods and not by Lightning."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as L

from da.engine.environment import OneProcess, say_what_is_ignored
from da.methods.updates import Updates
from da.ops.clipping import GRADIENT_CLIP_VAL

NO_FOLDER = "no-folder-of-lightning"

#: Arguments of Lightning's trainer that :class:`MethodTrainer` hands on, with their defaults.
DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(L.Trainer).parameters.items()
    if name != "plugins"
}


def given_all(options: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """All arguments of Lightning's trainer: it takes those that are not given from the
    environment (``PL_METHODTRAINER_…``)."""
    return {**DEFAULTS, **options, **more}


class MethodTrainer(L.Trainer):
    """A trainer of methods: gradients are clipped and averaged in their own steps.

    It trains in this process, and takes nothing from environment variables: those of Lightning
    (``PL_TRAINER_…``) are named after another class, and no cluster is looked for.

    Args:
        gradient_clip_val: largest norm (or value) of the gradient; nothing for any.
        gradient_clip_algorithm: clip the ``norm`` of all gradients, or each ``value``.
        accumulate_grad_batches: batches whose gradients are averaged for one update.
        kwargs: of Lightning's trainer.

    Attributes:
        resuming: whether the training at hand goes on from a checkpoint.
    """

    def __init__(
        self,
        *,
        gradient_clip_val: float | None = GRADIENT_CLIP_VAL,
        gradient_clip_algorithm: Literal["norm", "value"] | None = None,
        accumulate_grad_batches: int = 1,
        **kwargs: Any,
    ):
        say_what_is_ignored()
        plugins = kwargs.pop("plugins", None) or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        # Under Slurm Lightning goes on from any hpc_ckpt_N.ckpt in its root folder. There is no
        # such folder, and nothing is written to it: loggers and checkpoints have their own.
        root = Path(kwargs.get("default_root_dir") or ".") / NO_FOLDER
        kwargs.update(given_all(kwargs, default_root_dir=root))
        super().__init__(plugins=[OneProcess(), *plugins], **kwargs)
        self.updates = Updates(
            gradient_clip_val, gradient_clip_algorithm or "norm", accumulate_grad_batches
        )
        self.resuming = False

    def fit(self, *args: Any, ckpt_path: Any = None, **kwargs: Any) -> None:
        """As Lightning's, which tells nobody before a checkpoint is read that one will be."""
        self.resuming = ckpt_path is not None
        super().fit(*args, ckpt_path=ckpt_path, **kwargs)  # type: ignore[misc]
