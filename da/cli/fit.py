"""Train one model on one pair of domains.

Everything can be named on the command line or in layered YAML files (--config A --config B).
Each run has a folder of its own with settings, checkpoints, metrics and result.json.
It has 10 epochs unless --trainer.max_epochs, max_steps or max_time says otherwise.

examples:
  python run.py fit --data.source rendered --data.target optical --model.norm wa
  python run.py fit --model DANN --model.norm wa+gn --data.batch_size 16 --trainer.max_epochs 20
  python run.py fit --model.backbone resnet50 --model.weights imagenet --config my.yaml
  python run.py fit --model.help DANN          the options of one method
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

DEFAULTS = {
    "log_every_n_steps": 10,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "logger": False,
    "enable_checkpointing": True,
}

#: Short spellings of Lightning's precisions.
PRECISIONS = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}


def main(argv: list[str]) -> int:
    """Trains, evaluates after every epoch, and writes result.json."""
    from pytorch_lightning.callbacks import ModelCheckpoint, ProgressBar
    from pytorch_lightning.loggers import CSVLogger

    from da.cli._checkpoints import read_checkpoint
    from da.cli._lightning import CLI, Bar, EpochLines, KeepSettings, LastStep, stoppable
    from da.engine.evaluation import Recorder
    from da.engine.training import machine, versions
    from da.errors import Diverged, UserError
    from da.networks.pretrained import prepared
    from da.ops.files import write_atomically

    extra: dict[str, dict[str, Any]] = {
        "--out": {
            "type": str | None,
            "default": None,
            "help": "folder of the run; a new one under runs/fit unless given",
        },
        "--ckpt_path": {
            "type": str | None,
            "default": None,
            "help": "go on from this checkpoint, with the settings that it was written with",
        },
    }
    cli = CLI(argv, "run.py fit", __doc__ or "", extra=extra, trainer_defaults=DEFAULTS)
    trainer, module, data = cli.trainer, cli.model, cli.datamodule
    refuse_trainer(trainer)
    settings = cli.settings()
    resumed = cli.config["ckpt_path"]
    before = read_checkpoint(resumed) if resumed else None
    if before:
        refuse_other_settings(settings, before["settings"], resumed)
    out = folder(cli.config["out"], settings, data.task, resumed)
    if before and finished(trainer, before, resumed) and (out / "result.json").exists():
        length = "max_epochs" if trainer.max_steps == -1 else "max_steps"
        print(f"already done: {out / 'result.json'}; to train on, raise --trainer.{length}")
        return 0
    data.prepare_data()
    data.setup("fit")  # so that bad data is refused before anything is written
    images = described(data)
    refuse_other_data(images, before, resumed)
    module.refuse_batch_of_one(data.batch_size)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "config.json", json.dumps(settings, indent=2))

    recorder = Recorder(forms=False)
    trainer.callbacks = [  # type: ignore[attr-defined]
        *(x for x in trainer.callbacks if not isinstance(x, ProgressBar | ModelCheckpoint)),  # type: ignore[attr-defined]
        Bar() if sys.stdout.isatty() else EpochLines(),
        KeepSettings({"settings": settings, "classes": list(data.classes), **images}),
        recorder,
        LastStep(),
        ModelCheckpoint(
            out, filename="last", enable_version_counter=False, save_on_train_epoch_end=True
        ),
    ]
    # A logger empties its folder, so a resumed run logs into another one.
    parts = len(list(out.glob("metrics*")))
    trainer.logger = CSVLogger(out, name="", version=f"metrics-{parts + 1}" if parts else "metrics")
    record: dict[str, Any] = {
        "settings": settings,
        "task": data.task,
        "versions": versions(),
        "machine": machine(),
        "preprocessing": prepared(data),
        "data_manifest": images["data_manifest"],
    }
    try:
        with stoppable(trainer):
            trainer.fit(module, datamodule=data, ckpt_path=resumed)
    except Diverged as error:
        record.update(state="diverged", reason=str(error), evaluations=recorder.history)
        write_atomically(out / "result.json", json.dumps(record, indent=2))
        raise
    except (KeyboardInterrupt, SystemExit):
        if (out / "last.ckpt").exists():
            print(f"stopped; go on with --ckpt_path {out / 'last.ckpt'}", file=sys.stderr)
        raise
    if not recorder.history:
        raise UserError("trainer: no epoch was trained and evaluated; raise --trainer.max_epochs")
    record.update(
        state="done",
        evaluations=recorder.history,
        seconds=recorder.seconds,
        parameters=sum(p.numel() for p in module.parameters()),
        initial_loss=module.initial_loss,
        conversion=module.converted,
        lr_over_norm2=sum(recorder.lr_over_norm2) / len(recorder.lr_over_norm2),
        feature_deviation=recorder.feature_deviation,
    )
    write_atomically(out / "result.json", json.dumps(record, indent=2))
    summary(recorder.history, data.task, out)
    return 0


def finished(trainer: Any, checkpoint: dict[str, Any], path: str) -> bool:
    """Whether a checkpoint is at the end of the run that the trainer is to go on with.

    Raises:
        UserError: where what is left is the rest of an epoch that ``max_steps`` has cut, which
            Lightning takes for a whole one.
    """
    from da.errors import UserError

    epochs, steps = trainer.max_epochs or 0, trainer.max_steps
    if 0 < steps <= checkpoint["global_step"]:
        return True
    begun = checkpoint["epoch"] + 1
    whole = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"]
    if epochs == begun and not whole:
        raise UserError(
            f"trainer.max_epochs: '{path}' lies within epoch {begun}, at step "
            f"{checkpoint['global_step']}, and the rest of an epoch is trained by steps; give "
            "--trainer.max_steps instead"
        )
    return 0 < epochs <= begun


def refuse_trainer(trainer: Any) -> None:
    """Refuses what would end without a trained epoch, and several devices.

    The streams of the data are those of one process; on a CPU, ``devices`` is a number of
    processes, and Lightning would start that many.
    """
    from da.errors import UserError

    if trainer.world_size > 1:
        raise UserError(
            f"trainer.devices: expected 1 device on 1 node, got {trainer.world_size} processes; "
            "one run trains on one device"
        )
    for name in ("max_epochs", "max_steps", "limit_train_batches", "limit_val_batches"):
        if getattr(trainer, name) == 0:
            raise UserError(f"trainer.{name}: expected more than 0, or no epoch is trained")
    if trainer.precision in ("16-true", "bf16-true"):
        raise UserError(
            f"trainer.precision: the data are float32, {trainer.precision} is not for them; give "
            f"{trainer.precision.replace('true', 'mixed')}"
        )


def refuse_other_settings(now: dict[str, Any], before: dict[str, Any], path: str) -> None:
    """Refuses to resume with other settings, some of which Lightning would silently ignore."""
    from da.errors import UserError

    def parts(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
        found = {name: with_defaults(settings[name]) for name in ("model", "data")}
        return {**found, "trainer": of_training(settings.get("trainer") or {})}

    earlier = parts(before)
    for part, new in parts(now).items():
        old = earlier[part]
        for key in sorted({*new, *old}):
            if new.get(key) != old.get(key):
                raise UserError(
                    f"{part}.{key}: '{path}' was trained with {old.get(key)}, now {new.get(key)}; "
                    "resume with the same settings, or start a new run"
                )


def described(data: Any) -> dict[str, Any]:
    """What a checkpoint keeps of the images: the manifest, and of either domain's training images
    their number and a checksum, to say which of them have changed."""
    sets = {}
    for role in ("source", "target"):
        found = data.set_of(role, "train")
        sets[f"{role} '{getattr(data, role)}'"] = [len(found), found.fingerprint()]
    return {"data_manifest": data.manifest, "data_sets": sets}


def refuse_other_data(now: dict[str, Any], before: dict[str, Any] | None, path: str) -> None:
    """Refuses to go on with other images; older checkpoints don't say which theirs were."""
    from da.errors import UserError

    manifest = now["data_manifest"]
    if not before or before.get("data_manifest", manifest) == manifest:
        return
    if "data_sets" not in before:  # of before manifests were of contents
        print(f"note: '{path}' is older than the record of images: they are not compared")
        return
    changes = []
    for name, (number, checksum) in now["data_sets"].items():
        old, known = before["data_sets"].get(name, (number, checksum))
        if old != number:
            changes.append(f"{name}: {old} images then, {number} now")
        elif known != checksum:
            changes.append(f"{name}: {number} images as then, but not the same")
    said = "; ".join(changes) or "files were added, removed or changed"
    raise UserError(
        f"data: '{path}' was trained on other images than there are now ({said}); put them back, "
        "or start a new run"
    )


def with_defaults(part: dict[str, Any]) -> dict[str, Any]:
    """A class and all of its options: older settings lack those that have come since."""
    from da.grids.validation import defaults

    module, _, name = part["class_path"].rpartition(".")
    owner = getattr(importlib.import_module(module), name)
    linked = {"num_classes", "task", "seed"}  # set from elsewhere
    options = {k: v for k, v in defaults(owner).items() if k not in linked}
    return {"class": part["class_path"], **options, **part.get("init_args", {})}


def of_training(trainer: dict[str, Any]) -> dict[str, Any]:
    """What of a trainer's options changes the weights, each in one spelling.

    >>> of_training({"precision": 32}) == of_training({})
    True
    """
    precision = str(trainer.get("precision") or "32-true")
    clip = trainer.get("gradient_clip_val") or None
    share = trainer.get("limit_train_batches")
    return {
        "precision": PRECISIONS.get(precision, precision),
        "accumulate_grad_batches": trainer.get("accumulate_grad_batches") or 1,
        "gradient_clip_val": clip and float(clip),
        "gradient_clip_algorithm": trainer.get("gradient_clip_algorithm") or "norm",
        "limit_train_batches": str(1.0 if share is None else share),  # 1 is a batch, 1.0 all
    }


def folder(given: str | None, settings: dict[str, Any], task: str, resumed: str | None) -> Path:
    """The folder of a run: as given, that of the checkpoint it goes on from, or a new one."""
    from da.errors import UserError

    if given:
        out = Path(given).expanduser()
        if (out / "result.json").exists():
            raise UserError(f"out: '{given}' holds a finished run; name another folder")
        return out
    if resumed:
        return Path(resumed).parent
    method = settings["model"]["class_path"].rpartition(".")[2]
    norm = settings["model"]["init_args"]["norm"]
    name = f"{task.replace('->', '-')}-{method}-{norm}-seed{settings['seed_everything']}"
    root, n = Path("runs/fit"), 1
    while (root / (path := name if n == 1 else f"{name}-{n}")).exists():
        n += 1
    return root / path


def summary(history: list[dict[str, Any]], task: str, out: Path) -> None:
    """Prints accuracy on both domains and the three selections."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{task}, accuracy in percent")
    for column in ("selection", "epoch", "source test", "target test"):
        table.add_column(column, justify="left" if column == "selection" else "right")
    streams = [entry["forms"][""] for entry in history]
    picks = {
        "last": len(history) - 1,
        "label-free (information maximisation)": max(
            range(len(history)),
            key=lambda i: streams[i]["target/validation"]["information_maximisation"],
        ),
        f"oracle (best of {len(history)} on target labels)": max(
            range(len(history)), key=lambda i: streams[i]["target/test"]["accuracy"]
        ),
    }
    for name, i in picks.items():
        accuracies = [
            f"{100 * streams[i][s]['accuracy']:.1f}" for s in ("source/test", "target/test")
        ]
        table.add_row(name, str(history[i]["epoch"]), *accuracies)
    Console().print(table)
    print(f"written: {out / 'result.json'}, {out / 'last.ckpt'}")
