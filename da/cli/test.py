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
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from da.errors import UserError, unknown

if TYPE_CHECKING:
    from rich.table import Table

    from da.adapters.base import Adapter
    from da.cli._lightning import CLI
    from da.methods.base import Method
    from da.types import Predictions, Role, Split

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
    "--adapter": {
        "type": str | None,
        "default": None,
        "help": "also evaluate the network as an adapter changes it on the images that it predicts",
    },
    "--adapter_options": {
        "type": dict | None,
        "default": None,
        "help": "options of the adapter by name, --adapter_options.lr 0.001",
    },
    "--adapter_batch": {
        "type": int | None,
        "default": None,
        "help": "images that the adapter sees at a time, shuffled by the seed; 64 unless given",
    },
    "--save": {
        "type": str | None,
        "default": None,
        "help": "write a checkpoint of the network in the one form that --forms names",
    },
}


def main(argv: list[str]) -> int:
    """Prints a table of scores, and writes it beside the checkpoint as JSON."""
    from da.adapters.base import adapter
    from da.cli._checkpoints import from_checkpoint, save_network
    from da.engine.checkpoints import columns_by_name
    from da.engine.evaluation import (
        FORMS,
        predict_adapted,
        predict_stream,
        restated_statistics,
    )
    from da.engine.prediction_scores import score_predictions
    from da.ops import yaml12
    from da.ops.files import write_atomically
    from da.reports.terminal import console

    cli, path = from_checkpoint(argv, "run.py test", __doc__ or "", OPTIONS)
    module, data, config = cli.model, cli.data, cli.config
    forms = chosen_forms(config["forms"], module)
    save = new_file(config["save"], forms)
    name = config["adapter"]
    for option in ("adapter_options", "adapter_batch"):
        if config[option] is not None and name is None:
            raise UserError(f"{option}: there is no adapter to take it; name one with --adapter")
    size = 64 if config["adapter_batch"] is None else config["adapter_batch"]
    if size < 1:
        raise UserError(f"adapter_batch: expected a whole number from 1, got {size}")
    options = {k: yaml12.parse_yaml(str(v)) for k, v in (config["adapter_options"] or {}).items()}
    changed = adapter(name, options) if name else None
    if changed is not None:
        refuse_idle_adapter(name, changed, module)
    data.prepare_data()
    data.setup("test")
    columns = columns_by_name(cli.checkpoint["classes"], data.classes, path)
    before = cli.checkpoint.get("statistics")
    measured: dict[str, dict[str, dict[str, Any]]] = {}
    context = cli.trainer.precision_plugin.forward_context

    def measure(predict: Callable[[Role, Split], Predictions]) -> dict[str, dict[str, Any]]:
        return {
            f"{role}/{split}": score_predictions(
                in_order(predict(role, split), columns), data.classes
            )
            for role, split in data.test_evaluations
        }

    def predict_plainly(role: Role, split: Split) -> Predictions:
        return predict_stream(module, data.evaluation(role, split), role)

    for form in forms:
        with context(), restated_statistics(module, data, form):
            measured[form] = measure(predict_plainly)
            if save:
                save_network(save, cli, data.domain_of(FORMS[form]) if form else before)
    if changed is not None:
        with context():
            measured[name] = measure(
                lambda role, split: predict_adapted(
                    module, changed, data.evaluation(role, split, size, data.seed), role
                )
            )
    console().print(table_of(measured, cli, before))
    out = Path(config["out"] or beside(Path(path)))
    content = {"task": data.task, "checkpoint": path, "scores": finite(measured)}
    if changed is not None:
        content["adapter"] = {"name": name, "options": options, "batch_size": size}
        content["adapter"] |= {"order_seed": data.seed, "online": changed.online}
    write_atomically(out, json.dumps(content, allow_nan=False))
    print(f"written: {out}" + (f", {save}" if save else ""))
    return 0


def in_order(predictions: Predictions, columns: list[int] | None) -> Predictions:
    """Predictions with the classes in the order of the data's."""
    if columns is None:
        return predictions
    return predictions._replace(logits=predictions.logits[:, columns])


def table_of(
    measured: dict[str, dict[str, dict[str, Any]]], cli: CLI, statistics: str | None
) -> Table:
    """One line per form or adapter, and stream."""
    from rich.table import Table

    norm, data = cli.model.hparams["norm"], cli.data
    of = f" (checkpoint with statistics of {statistics})" if statistics else ""
    table = Table(title=f"{data.task}, {norm}, test split{of}")
    for column in ("stream", "network", "n", "accuracy %", "class mean %", "cross-entropy"):
        left = column in ("stream", "network")
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    for form, streams in measured.items():
        for stream, values in streams.items():
            role = stream.partition("/")[0]
            numbers = ["no labels"] * 3
            if "accuracy" in values:
                shares = [f"{100 * values[key]:.1f}" for key in ("accuracy", "class_mean")]
                numbers = [*shares, f"{values['cross_entropy']:.3f}"]
            domain = data.source if role == "source" else data.target
            network = norm + (f"@{form}" if form else "")
            count = str(values["n"])
            if "unlabelled" in values:
                count += f" of {values['n'] + values['unlabelled']}"
            table.add_row(f"{role} ({domain})", network, count, *numbers)
    return table


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


def chosen_forms(names: str | None, module: Method) -> list[str]:
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
    from da.norms import layers_of_batch_statistics

    kept = layers_of_batch_statistics(module.evaluated())
    has = "keeps those of each domain already" if kept else "has none"
    return UserError(
        f"{option} re-estimates batch norm's statistics, and this network {has}: its norm is "
        f"'{module.hparams['norm']}'; leave it out"
    )


def refuse_idle_adapter(name: str, changed: Adapter, module: Method) -> None:
    """An adapter that would change nothing would be listed as one that doesn't help.

    Raises:
        UserError: where it changes batch norm's statistics alone, and the network has none.
    """
    from da.norms import batch_norms

    norms = batch_norms(module.evaluated(), within_domain_layers=True)
    if changed.statistics_alone and not norms:
        raise UserError(
            f"adapter {name} changes batch norm's statistics alone, and this network has no batch "
            f"norm (its norm is '{module.hparams['norm']}'): it would predict as it was trained; "
            "leave it out"
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
