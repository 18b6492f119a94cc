"""Evaluate a checkpoint on both domains.

Batch norm is also evaluated with its statistics re-estimated on each domain.

examples:
  python run.py test runs/fit/rendered-optical-SourceOnly-wa-seed0/last.ckpt
  python run.py test last.ckpt --data.target photo          on another target
"""

from __future__ import annotations

import json
from pathlib import Path


def main(argv: list[str]) -> int:
    """Prints a table of scores, and writes it beside the checkpoint as test.json."""
    from rich.console import Console
    from rich.table import Table

    from da.commands._lightning import from_checkpoint
    from da.evaluation import FORMS, predict, restated, scores
    from da.experiments.store import write_atomically
    from da.norms import batch_norms

    extra = {"--out": {"type": str | None, "default": None, "help": "JSON file of the scores"}}
    cli, path = from_checkpoint(argv, "run.py test", __doc__ or "", extra)
    module, data = cli.model, cli.datamodule
    data.prepare_data()
    data.setup("test")
    table = Table(title=f"{data.task}, {module.hparams['norm']}, test split")
    for column in ("stream", "network", "n", "accuracy %", "class mean %", "cross-entropy"):
        table.add_column(column, justify="left" if column in ("stream", "network") else "right")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for form in ("", *(FORMS if batch_norms(module) else ())):
        found[form] = {}
        with restated(module, data, form):
            streams = zip(data.test_evaluations, data.test_dataloader(), strict=True)
            for (role, split), loader in streams:
                domain = data.source if role == "source" else data.target
                p = predict(module, loader)
                found[form][f"{role}/{split}"] = s = scores(p.logits, p.labels)
                name = module.hparams["norm"] + (f"@{form}" if form else "")
                table.add_row(
                    f"{role} ({domain})",
                    name,
                    str(s["n"]),
                    f"{100 * s['accuracy']:.1f}",
                    f"{100 * s['class_mean']:.1f}",
                    f"{s['cross_entropy']:.3f}",
                )
    Console().print(table)
    out = Path(cli.config["out"] or Path(path).with_name("test.json"))
    write_atomically(out, json.dumps({"task": data.task, "checkpoint": path, "scores": found}))
    print(f"written: {out}")
    return 0
