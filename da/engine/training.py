"""One cell of a grid: one training with the real data, method and normaliser."""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

import pytorch_lightning as L
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

import da
from da.discovery import subclasses
from da.engine.evaluation import Recorder, Ticks
from da.engine.result import Result
from da.engine.spec import Cell
from da.errors import UserError, unknown
from da.methods.base import Method
from da.networks import pretrained
from da.networks.backbones.base import unloaded


def methods() -> dict[str, type[Method]]:
    """Every method on disk, by class name."""
    return subclasses("da.methods", Method)


def build(cell: Cell, root: str | None = None) -> tuple[Method, Any]:
    """The module and the data of a cell."""
    package, _, name = cell.data.rpartition(".")
    data_class = getattr(importlib.import_module(package), name)
    data = data_class(
        source=cell.source,
        target=cell.target,
        batch_size=cell.batch_size,
        steps_per_epoch=cell.steps_per_epoch,
        seed=cell.seed,
        **({"root": root} if root else {}),
        **cell.data_args,
    )
    known = methods()
    if cell.method not in known:
        raise unknown("method", cell.method, known)
    try:
        module = known[cell.method](
            num_classes=data.num_classes,
            task=data.task,
            seed=cell.seed,
            norm=cell.norm,
            norm_options=cell.norm_options,
            lr=cell.lr,
            **cell.model_args,
            **cell.method_args,
        )
    except TypeError as error:  # an option that no constructor knows
        raise UserError(f"{cell.method}: {error}") from error
    pretrained.adopt(data, module.hparams["backbone"], module.hparams["weights"])
    return module, data


def run_cell(cell: Cell, directory: Path, progress: Callable[[float], None]) -> Result:
    """Trains and evaluates one cell; goes on from ``directory/last.ckpt`` where there is one.

    Raises:
        Diverged: if the loss or the predictions are not finite.
        UserError: if the settings don't fit together.
    """
    start = perf_counter()
    before = usable(directory / "last.ckpt")
    with unloaded() if before else nullcontext():
        module, data = build(cell)
    manifest = data.manifest  # not after: files may go once the cache holds them
    recorder = Recorder(forms=cell.forms)
    checkpoint = ModelCheckpoint(
        directory, filename="last", enable_version_counter=False, save_on_train_epoch_end=True
    )
    trainer = L.Trainer(
        max_epochs=cell.epochs,
        accelerator=cell.device,
        devices=1,
        precision=cell.precision,  # type: ignore[arg-type]
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[recorder, Ticks(progress), checkpoint],
        default_root_dir=directory,
    )
    trainer.fit(module, datamodule=data, ckpt_path=before)
    return Result(
        schema_version=1,
        cell=cell.id,
        settings=cell.model_dump(mode="json"),
        score="information_maximisation",
        evaluations=recorder.history,  # type: ignore[arg-type]
        seconds={**recorder.seconds, "total": perf_counter() - start},  # type: ignore[arg-type]
        parameters=sum(p.numel() for p in module.parameters()),
        lr_over_norm2=sum(recorder.lr_over_norm2) / len(recorder.lr_over_norm2),
        feature_deviation=recorder.feature_deviation,
        initial_loss=module.initial_loss or 0.0,
        conversion=module.converted,  # type: ignore[arg-type]
        clipped_fraction=sum(module.clipped) / len(module.clipped) if module.clipped else None,
        versions=versions(),
        preprocessing=pretrained.prepared(data),
        data_manifest=manifest,
        machine=machine(),
    )


def usable(checkpoint: Path) -> Path | None:
    """The checkpoint if it can be read; one that a kill has cut short is removed."""
    if not checkpoint.exists():
        return None
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception:  # whatever is wrong with it, the cell starts afresh
        checkpoint.unlink()
        return None
    return checkpoint


@cache
def versions() -> dict[str, str]:
    """Versions of what a result depends on, and a hash of this library's own code."""
    packages = ["torch", "torchvision", "pytorch-lightning", "numpy", "scikit-learn"]
    with suppress(PackageNotFoundError):  # optional
        version("timm")
        packages.append("timm")
    digest = hashlib.sha256()
    for file in sorted(Path(da.__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return {
        "da": da.__version__,
        "code": digest.hexdigest()[:16],
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


@cache
def machine() -> str:
    """Processor, cores and system, in words."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            x.split(":")[1].strip() for x in info.read_text().splitlines() if "model name" in x
        ]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
