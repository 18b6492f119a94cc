"""A grid's file as a layer of ``fit``: the settings of one of its methods on one of its tasks."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from da.grids.grid import Row


def without_grids(args: Any, value_of: Any) -> Any:
    """The command line with each grid in ``--config`` replaced by the settings of one cell.

    A layer of ``fit`` has a class for ``model`` and ``data``; a grid has ``methods`` and ``norms``.

    Args:
        args: the command line.
        value_of: gives the value of an option on it.
    """
    if not isinstance(args, list):
        return args
    found = list(args)
    for i, word in enumerate(args):
        option, given, path = word.partition("=")
        if option != "--config" or (not given and i + 1 == len(args)):
            continue
        place = i if given else i + 1
        text = path if given else args[place]
        if is_grid(text):
            layer = _kept(settings(text, lambda name: value_of(name, args)), Path(text).stem)
            found[place] = f"--config={layer}" if given else layer
    return found


def _kept(content: dict[str, Any], name: str) -> str:
    """A file of settings, as the parser takes them, for as long as the process lives."""
    folder = tempfile.mkdtemp(prefix="da-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / f"{name}.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def is_grid(path: str) -> bool:
    """Whether a file describes a grid.

    Raises:
        UserError: it is broken, or no file of settings at all.
    """
    from da.ops.yaml12 import read_yaml

    file = Path(path).expanduser()
    content = read_yaml(file) if file.is_file() else None
    return isinstance(content, dict) and {"methods", "norms"} <= content.keys()


def settings(path: str, option: Any) -> dict[str, Any]:
    """The layer of a grid: its settings for ``--model`` on the task of ``--data``."""
    from da.errors import unknown
    from da.grids.grid_file import read_grid

    grid = read_grid(Path(path), {})
    method = (option("--model") or next(iter(grid.methods))).rpartition(".")[2]
    if method not in grid.methods:
        raise unknown(f"method of {path}", method, grid.methods)
    task = f"{option('--data.source')}->{option('--data.target')}"
    row: Row = "given" if "given" in grid.rows else "published"
    resolved = grid.resolved(task, method, {}, row)
    epochs, steps = grid.length(resolved)
    model = {**resolved.model, **grid.methods[method], "lr": grid.rate(task, method, {}, row)}
    norm = option("--model.norm") or next(iter(grid.norms))
    options = grid.norms.get(norm)
    model |= {"norm": norm} | ({"norm_options": options} if options else {})
    data = {**resolved.data_args, "batch_size": resolved.batch_size, "steps_per_epoch": steps}
    for role in ("source", "target"):
        if name := option(f"--data.{role}"):
            data[role] = name
    return {
        "model": {"class_path": method, "init_args": model},
        "data": {"class_path": grid.data, "init_args": data},
        "trainer": {
            "max_epochs": epochs,
            "accelerator": grid.device,
            "devices": 1,
            "precision": grid.precision,
            **resolved.trainer,
        },
    }
