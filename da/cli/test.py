"""Evaluate a checkpoint on both domains, in every form of batch norm.

The forms have the same weights: trained, with the statistics of the training; source-stats and
target-stats, with statistics re-estimated on training images of that domain (AdaBN), unlabelled.

The checkpoint may be from elsewhere, too: a state dict of torch.save or safetensors, whole or with
a bottleneck and a head. Say then what it was trained on and which network it is; classes are
numbered in the order of their folders' names.

examples:
  python run.py test runs/fit/rendered-optical-SourceOnly-wa-seed0/last.ckpt
  python run.py test last.ckpt --data.target photo          on another target
  python run.py test last.ckpt --forms target-stats --save adabn.ckpt
  python run.py test office.pth --model.backbone resnet50 --data Folder --data.root office31 \\
    --data.source amazon --data.target webcam               a network from elsewhere
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from da.errors import UserError, unknown

if TYPE_CHECKING:
    from da.methods.base import Method

TRAINED = "trained"

OPTIONS: dict[str, dict[str, Any]] = {
    "--forms": {
        "type": str | None,
        "default": None,
        "help": "some of trained,source-stats,target-stats; by default all that apply",
    },
    "--out": {
        "type": str | None,
        "default": None,
        "help": "JSON file of the scores; by default beside the checkpoint, of last.ckpt "
        "test.json and of NAME.ckpt NAME.test.json",
    },
    "--save": {
        "type": str | None,
        "default": None,
        "help": "write a checkpoint of the network in the one form that --forms names",
    },
}


def main(argv: list[str]) -> int:
    """Prints a table of scores, and writes it beside the checkpoint as JSON."""
    from rich.table import Table

    from da.cli._checkpoints import from_checkpoint, save_network
    from da.engine.evaluation import FORMS, predict, restated, scores
    from da.ops.files import write_atomically
    from da.reports.terminal import console

    cli, path = from_checkpoint(argv, "run.py test", __doc__ or "", OPTIONS)
    module, data = cli.model, cli.datamodule
    forms = chosen(cli.config["forms"], module)
    save = new_file(cli.config["save"], forms)
    data.prepare_data()
    data.setup("test")
    norm, before = module.hparams["norm"], cli.checkpoint.get("statistics")
    title = f"{data.task}, {norm}, test split"
    table = Table(title=title + (f" (checkpoint with statistics of {before})" if before else ""))
    for column in ("stream", "network", "n", "accuracy %", "class mean %", "cross-entropy"):
        left = column in ("stream", "network")
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for form in forms:
        found[form] = {}
        with cli.trainer.precision_plugin.forward_context(), restated(module, data, form):
            streams = zip(data.test_evaluations, data.test_dataloader(), strict=True)
            for (role, split), loader in streams:
                domain = data.source if role == "source" else data.target
                p = predict(module, loader, role)
                found[form][f"{role}/{split}"] = s = scores(p, data.classes)
                table.add_row(
                    f"{role} ({domain})",
                    norm + (f"@{form}" if form else ""),
                    str(s["n"]),
                    f"{100 * s['accuracy']:.1f}",
                    f"{100 * s['class_mean']:.1f}",
                    f"{s['cross_entropy']:.3f}",
                )
            if save:
                save_network(save, cli, getattr(data, FORMS[form]) if form else before)
    console().print(table)
    out = Path(cli.config["out"] or beside(Path(path)))
    content = {"task": data.task, "checkpoint": path, "scores": finite(found)}
    write_atomically(out, json.dumps(content, allow_nan=False))
    print(f"written: {out}" + (f", {save}" if save else ""))
    return 0


def beside(checkpoint: Path) -> Path:
    """The file of a checkpoint's scores; those of others in its folder are left alone.

    >>> beside(Path("run/last.ckpt")).name, beside(Path("run/office.pth")).name
    ('test.json', 'office.test.json')
    """
    name = "test.json" if checkpoint.name == "last.ckpt" else f"{checkpoint.stem}.test.json"
    return checkpoint.with_name(name)


def finite(scores: Any) -> Any:
    """Nested scores with null for those that JSON has no number for.

    >>> finite({"cross_entropy": float("nan"), "n": 3})
    {'cross_entropy': None, 'n': 3}
    """
    if isinstance(scores, dict):
        return {name: finite(value) for name, value in scores.items()}
    return scores if math.isfinite(scores) else None


def chosen(names: str | None, module: Method) -> list[str]:
    """The forms to evaluate, the trained one as ``""``."""
    from da.engine.evaluation import FORMS
    from da.norms import batch_norms

    applicable = bool(batch_norms(module.evaluated()))
    if names is None:
        return ["", *(FORMS if applicable else ())]
    given = [name.strip() for name in names.split(",")]
    for name in given:
        if name not in (TRAINED, *FORMS):
            raise unknown("form", name, (TRAINED, *FORMS))
        if name in FORMS and not applicable:
            raise without_batch_norm(f"forms: '{name}'", module)
    return [form for form in ("", *FORMS) if (form or TRAINED) in given]


def without_batch_norm(option: str, module: Method) -> UserError:
    """The error for statistics that a network does not have."""
    return UserError(
        f"{option} re-estimates batch norm's statistics, and this network has none: its norm is "
        f"'{module.hparams['norm']}'; leave it out"
    )


def new_file(name: str | None, forms: list[str]) -> Path | None:
    """The checkpoint to write, refused where it would overwrite or hold several forms."""
    if name is None:
        return None
    path = Path(name).expanduser()
    if len(forms) > 1:
        raise UserError("save: one form goes into a checkpoint; name it, --forms target-stats")
    if path.exists():
        raise UserError(f"save: '{name}' exists; name a new file")
    return path
