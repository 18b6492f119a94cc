"""Write the predicted class of every image in a folder to a CSV.

With --stats, batch norm's statistics are first re-estimated on unlabelled images: of the source,
of the target, or the images to predict themselves (AdaBN).

examples:
  python run.py predict last.ckpt --images photos/ --out predictions.csv
  python run.py predict last.ckpt --images photos/ --stats images
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, Literal


def main(argv: list[str]) -> int:
    """Writes one row per image: file, class, probability."""
    import torch

    from da.cli._checkpoints import from_checkpoint
    from da.cli.test import without_batch_norm
    from da.engine.evaluation import restated_statistics
    from da.errors import UserError
    from da.networks.network import evaluating
    from da.norms import batch_norms
    from da.ops.files import write_atomically

    extra: dict[str, dict[str, Any]] = {
        "--images": {"type": str | None, "default": None, "help": "folder of images (required)"},
        "--out": {"type": str, "default": "predictions.csv", "help": "the CSV file"},
        "--stats": {
            "type": Literal["source", "target", "images"] | None,
            "default": None,
            "help": "re-estimate batch norm's statistics on the training images of a domain, or on "
            "the images of --images; by default they are the checkpoint's",
        },
    }
    cli, _ = from_checkpoint(argv, "run.py predict", __doc__ or "", extra)
    module, data = cli.model, cli.data
    folder, stats = cli.config["images"], cli.config["stats"]
    if folder is None:
        raise UserError("images: expected a folder of images; give --images FOLDER")
    if stats and not batch_norms(module.evaluated()):
        raise without_batch_norm(f"stats: '{stats}'", module)
    batches = data.predict_images(folder)
    shown = (images for images, _ in batches) if stats == "images" else None
    form = f"{stats}-stats" if stats in ("source", "target") else ""
    classes = cli.checkpoint["classes"]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["file", "class", "probability"])
    count = 0
    precision = cli.trainer.precision_plugin.forward_context()
    with precision, restated_statistics(module, data, form, shown), evaluating(module):
        for images, names in batches:
            p, k = torch.softmax(module(images.to(module.device)).float(), dim=1).max(dim=1)
            count += len(names)
            for name, index, value in zip(names, k.tolist(), p.tolist(), strict=True):
                rows.writerow([name, classes[index], f"{value:.6f}"])
    out = Path(cli.config["out"])
    write_atomically(out, text.getvalue())
    print(f"written: {out} ({count} images)")
    return 0
