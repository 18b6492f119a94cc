"""Short trainings of a method on the digits, for tests that need updates to be made."""

from __future__ import annotations

from typing import Any

from long_cases import rest_long
from pytorch_lightning.callbacks import ModelCheckpoint

from da.engine.trainer import MethodTrainer
from da.methods.base import Method
from da.methods.stages import stage_of
from da.norms import normaliser, normaliser_names
from datasets.digits import Digits

CLASSES = 10

SHORT_FIT = [
    *("--data.steps_per_epoch", "2", "--trainer.max_epochs", "1"),
    *("--model.bottleneck", "8", "--trainer.accelerator", "cpu"),
]
"""Options of ``fit``: two steps of a small network."""
MOST_EPOCHS = 20

KINDS_OF_NORMALISERS = (
    *("bn", "bn-frozen", "dsbn", "transnorm", "gn", "none", "folded", "wa", "wa+bn", "wn"),
)
"""One normaliser of each kind: of the batch, frozen, of each domain, of both, of the image, none,
of the weights, and two at once."""


def some_normalisers() -> list[Any]:
    """One of each kind, as parameters of a test; the others that a CPU trains in the long tests."""
    on_a_cpu = [name for name in normaliser_names() if not normaliser(name).needs_gpu]
    return rest_long(on_a_cpu, KINDS_OF_NORMALISERS)


def digits(**options: Any) -> Digits:
    return Digits(**{"batch_size": 4, "steps_per_epoch": 3} | options)


def small(kind: type[Method], **options: Any) -> Method:
    """A method with a narrow bottleneck and what it says itself of being small."""
    return kind(num_classes=CLASSES, **{"bottleneck": 16} | dict(kind.small) | options)


def epochs_of_all_stages(module: Method) -> int:
    """The fewest epochs of which each stage of a method gets one."""
    stages = module.stages()
    for epochs in range(1, MOST_EPOCHS + 1):
        if {stage_of(stages, epoch, epochs) for epoch in range(epochs)} == set(stages):
            return epochs
    shares = ", ".join(f"{stage.name} until {stage.until}" for stage in stages)
    raise AssertionError(
        f"{type(module).__name__}: {MOST_EPOCHS} epochs don't reach all stages ({shares}); each is "
        "to end later than the one before, the last at 1, and `small` to make none of them short"
    )


def fit(module, data=None, folder=None, epochs=1, callbacks=(), ckpt_path=None, **options):
    """Trains without evaluations; gives the trainer. Gradients are clipped only where asked."""
    last = (
        []
        if folder is None
        else [
            ModelCheckpoint(
                folder, filename="last", enable_version_counter=False, save_on_train_epoch_end=True
            )
        ]
    )
    trainer = MethodTrainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=folder is not None,
        num_sanity_val_steps=0,
        callbacks=[*callbacks, *last],
        **{"limit_val_batches": 0, "gradient_clip_val": None} | options,
    )
    trainer.fit(module, datamodule=data or digits(), ckpt_path=ckpt_path)
    return trainer
