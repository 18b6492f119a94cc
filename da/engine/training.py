"""One training, from its specification to its result: what `fit` and a cell of a grid are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import pytorch_lightning as L
from pytorch_lightning.callbacks import ModelCheckpoint, ProgressBar
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from da.engine.alarms.watch import Watch
from da.engine.checkpoint_io import VerifiedCheckpointIO
from da.engine.checkpoints import KeepRun, read_run
from da.engine.components import build_method, find_data
from da.engine.evaluation import Recorder
from da.engine.last_evaluation import LastEvaluation
from da.engine.monitors import (
    CheckMonitors,
    refuse_unknown_monitors,
    warn_of_target_labels,
)
from da.engine.progress import ProgressTicks
from da.engine.provenance import describe_machine, package_versions, say_remarks
from da.engine.result import Result
from da.engine.resuming import describe_images, refuse_other_data, refuse_other_spec
from da.engine.spec import RunSpec
from da.engine.trainer import MethodTrainer
from da.engine.trainer_settings import (
    refuse_callbacks,
    refuse_interval,
    refuse_stages_cut_off,
    refuse_trainer_settings,
)
from da.errors import UserError
from da.methods.base import Method
from da.networks.backbones.base import without_weights
from da.networks.preprocessing import adopt_preprocessing, describe_preprocessing
from da.ops.torch_settings import torch_settings
from da.selection.base import refuse_unfit_scores
from da.types import DataModule

log = logging.getLogger(__name__)

LOGS = "logs"
"""Where a cell's loggers write."""

LAST = "last.ckpt"
"""The checkpoint of the last evaluation, from which a training goes on."""


def train(
    spec: RunSpec,
    directory: str | Path,
    progress: Callable[[float], None] | None = None,
    checkpoint: str | Path | None = None,
    root: str | None = None,
    loggers: Sequence[str] = (),
) -> Result:
    """Trains and evaluates; goes on from a checkpoint where there is one.

    Args:
        spec: what to train.
        directory: of the checkpoints; made where it is missing.
        progress: told the finished part, from 0 to 1, after every step.
        checkpoint: to go on from; by default ``directory/last.ckpt`` if that is whole.
        root: folder of the data, in place of the specification's.
        loggers: names of what records its curves, in ``directory/logs``: ``tensorboard``, …

    Returns:
        What the training leaves behind. It is not written: see
        :func:`da.engine.run_folder.write_result`.

    Raises:
        Diverged: if the loss or the predictions are not finite.
        UserError: if the settings don't fit together.
    """
    directory = Path(directory)
    before = Path(checkpoint) if checkpoint else usable_checkpoint(directory / LAST)
    training = Training(spec, before, root)
    if not loggers:
        return training.run(directory, progress)
    from da.engine.loggers import loggers as make_loggers

    return training.run(directory, progress, logger=make_loggers(loggers, directory / LOGS))


class Training:
    """A training that has been checked and can be run: nothing is written before.

    Args:
        spec: what to train.
        checkpoint: to go on from.
        root: folder of the data, in place of the specification's.

    Attributes:
        module: the method.
        data: the data module.
        before: content of the checkpoint, if any.
        recorder: of the evaluations.
        watch: raises alarms.
        remarks: what is to be said of the images.

    Raises:
        UserError: for whatever could not be trained.
    """

    def __init__(
        self, spec: RunSpec, checkpoint: str | Path | None = None, root: str | None = None
    ):
        self.began = perf_counter()
        self.spec = spec
        refuse_trainer_settings(spec)
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.before = read_run(str(checkpoint)) if checkpoint else None
        if self.before:
            refuse_other_spec(spec, self.before["spec"], str(checkpoint))
        with without_weights() if self.before else nullcontext():
            self.module, self.data = build_method_and_data(spec, root)
        self.data.prepare_data()
        self.data.setup("fit")  # so that bad data is refused before anything is written
        # Not after: files may go once the cache holds them.
        self.images = describe_images(self.data)
        refuse_other_data(self.images, self.before, str(checkpoint))
        refuse_unfit_scores(spec.scores, self.data)
        self.module.refuse_data(self.data)
        batches: Any = self.data.train_dataloader()
        refuse_interval(spec, len(batches))
        refuse_stages_cut_off(spec, self.module.stages(), len(batches))
        self.remarks = say_remarks(self.data)
        self.recorder = Recorder(spec.forms, spec.scores)
        self.watch = Watch()

    def trainer(
        self,
        directory: Path,
        progress: Callable[[float], None] | None = None,
        callbacks: Sequence[L.Callback] = (),
        logger: Any = False,
        keep: bool = True,
        options: Mapping[str, Any] | None = None,
    ) -> MethodTrainer:
        """The trainer of the specification.

        Args:
            directory: of the checkpoints.
            progress: told the finished part after every step.
            callbacks: others than those that every training has.
            logger: of Lightning, or several.
            keep: write a checkpoint at the end of every epoch.
            options: of Lightning's trainer that change nothing of what is computed.
        """
        spec = self.spec
        refuse_callbacks(callbacks)
        refuse_unknown_monitors(callbacks, self.module, self.data)
        content = {"spec": spec.model_dump(mode="json"), "classes": list(self.data.classes)}
        if (preparation := self.data.preparation) is not None:
            content["preparation"] = preparation.as_dict()
        own: list[L.Callback] = [
            KeepRun({**content, **self.images}),
            self.recorder,
            self.watch,  # after it, which refuses predictions that are not finite
            CheckMonitors(),
            LastEvaluation(),
        ]
        if progress is not None:
            own.append(ProgressTicks(progress))
        if keep:
            own.append(
                LastCheckpoint(
                    directory,
                    filename=Path(LAST).stem,
                    enable_version_counter=False,
                    save_on_train_epoch_end=True,
                )
            )
        settings: dict[str, Any] = {
            "enable_progress_bar": any(isinstance(c, ProgressBar) for c in callbacks),
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            **spec.trainer.changed(),
            **(options or {}),
        }
        try:
            return MethodTrainer(
                max_epochs=spec.epochs,
                accelerator=spec.device,
                devices=1,
                precision=spec.precision,
                logger=logger,
                callbacks=[*callbacks, *own],
                default_root_dir=directory,
                enable_checkpointing=keep or any(isinstance(c, ModelCheckpoint) for c in callbacks),
                plugins=[VerifiedCheckpointIO()],
                **settings,
            )
        except UserError:
            raise
        except (ValueError, TypeError, MisconfigurationException) as error:
            raise UserError(f"trainer: {' '.join(str(error).split())}") from error

    def run(
        self, directory: Path, progress: Callable[[float], None] | None = None, **kwargs: Any
    ) -> Result:
        """Trains to the end.

        Args:
            directory: of the checkpoints; made where it is missing.
            progress: told the finished part after every step.
            kwargs: of :meth:`trainer`.

        Raises:
            Diverged: if the loss or the predictions are not finite.
        """
        directory.mkdir(parents=True, exist_ok=True)
        for callback in kwargs.get("callbacks", ()):
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(directory / "checkpoints")
        with torch_settings(self.spec.threads):
            trainer = self.trainer(directory, progress, **kwargs)
            warn_of_target_labels(kwargs.get("callbacks", ()))
            trainer.fit(
                self.module,
                datamodule=cast(L.LightningDataModule, self.data),
                ckpt_path=self.checkpoint,
            )
        return self.result()

    def is_finished(self) -> bool:
        """Whether the checkpoint is at the end of what is to be trained.

        Raises:
            UserError: where what is left is the rest of an epoch that ``max_steps`` has cut, which
                Lightning takes for a whole one.
        """
        before, epochs, steps = self.before, self.spec.epochs, self.spec.trainer.max_steps
        if before is None:
            return False
        if 0 < steps <= before["global_step"]:
            return True
        begun = before["epoch"] + 1
        whole = before["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"]
        if epochs == begun and not whole:
            raise UserError(
                f"trainer.max_epochs: '{self.checkpoint}' lies within epoch {begun}, at step "
                f"{before['global_step']}, and the rest of an epoch is trained by steps; give "
                "--trainer.max_steps instead"
            )
        return 0 < epochs <= begun

    def result(self) -> Result:
        """What the training leaves behind, once it has been evaluated."""
        recorder, module, spec = self.recorder, self.module, self.spec
        if not recorder.history:
            raise UserError(
                "trainer: no epoch was trained and evaluated; raise --trainer.max_epochs, or "
                "evaluate more often (--trainer.val_check_interval)"
            )
        rates = recorder.lr_over_norm2
        return Result.model_validate(
            {
                "run": spec.id,
                "spec": spec,
                "sources": list(self.data.sources),
                "target": self.data.target,
                "classes": list(self.data.classes),
                "evaluations": recorder.history,
                "seconds": {**recorder.seconds, "total": perf_counter() - self.began},
                "parameters": sum(p.numel() for p in module.parameters() if p.requires_grad),
                "lr_over_norm2": sum(rates) / len(rates),
                "feature_deviation": recorder.feature_deviation,
                "initial_loss": module.initial_loss,
                "conversion": module.converted,
                "alignment": module.alignment(),
                "part_norms": module.part_norms,
                "clipped_fraction": module.clipped_share(),
                "alarms": self.watch.finish(),
                "versions": package_versions(),
                "preprocessing": describe_preprocessing(self.data),
                "data_manifest": self.images["data_manifest"],
                "remarks": self.remarks,
                "machine": describe_machine(),
            }
        )


def build_method_and_data(spec: RunSpec, root: str | None = None) -> tuple[Method, DataModule]:
    """The method and the data of a specification.

    Args:
        spec: what to train.
        root: folder of the data, in place of the specification's.

    Raises:
        UserError: for names and options that don't exist.
    """
    data = build_data(spec, root)
    module = build_method(spec, data.num_classes, data.task)
    adopt_preprocessing(data, module.hparams["backbone"], module.hparams["weights"])
    return module, data


def build_data(spec: RunSpec, root: str | None = None) -> DataModule:
    """The data of a specification; see :func:`build_method_and_data`."""
    try:
        return find_data(spec.data)(
            source=spec.source,
            target=spec.target,
            batch_size=spec.batch_size,
            steps_per_epoch=spec.steps_per_epoch,
            seed=spec.seed,
            **{**spec.data_args, **({"root": root} if root else {})},
        )
    except TypeError as error:  # an option that no constructor knows
        raise UserError(f"{spec.data}: {error}") from error


def usable_checkpoint(checkpoint: Path) -> Path | None:
    """The checkpoint if it can be read; a damaged one is named and removed."""
    if not checkpoint.exists():
        return None
    try:
        read_run(str(checkpoint))
    except UserError as error:
        log.warning("%s: it is removed, and the training starts afresh", error)
        checkpoint.unlink()
        return None
    return checkpoint


class LastCheckpoint(ModelCheckpoint):
    """The checkpoint that every training keeps, apart from those that its user asks for."""
