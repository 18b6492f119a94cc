"""Write the predicted class of every image in a folder to a CSV.

examples:
  python run.py predict last.ckpt --images photos/ --out predictions.csv
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any


def main(argv: list[str]) -> int:
    """Writes one row per image: file, class, probability."""
    import torch

    from da.commands._lightning import from_checkpoint
    from da.errors import UserError
    from da.evaluation import evaluating
    from da.experiments.store import write_atomically

    extra: dict[str, dict[str, Any]] = {
        "--images": {"type": str | None, "default": None, "help": "folder of images (required)"},
        "--out": {"type": str, "default": "predictions.csv", "help": "the CSV file"},
    }
    cli, _ = from_checkpoint(argv, "run.py predict", __doc__ or "", extra)
    module, data = cli.model, cli.datamodule
    if cli.config["images"] is None:
        raise UserError("images: expected a folder of images; give --images FOLDER")
    classes = cli.checkpoint["classes"]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["file", "class", "probability"])
    count = 0
    with evaluating(module):
        for images, names in data.predict_images(cli.config["images"]):
            p, k = torch.softmax(module(images.to(module.device)).float(), dim=1).max(dim=1)
            count += len(names)
            for name, index, value in zip(names, k.tolist(), p.tolist(), strict=True):
                rows.writerow([name, classes[index], f"{value:.6f}"])
    out = Path(cli.config["out"])
    write_atomically(out, text.getvalue())
    print(f"written: {out} ({count} images)")
    return 0
