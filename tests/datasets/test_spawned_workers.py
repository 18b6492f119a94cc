"""Processes that are spawned, as on Windows and macOS, make the batches that forked ones make."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SCRIPT = """
import multiprocessing
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from datasets.files import parallel
from datasets.folder import Folder

if __name__ == "__main__":
    torch.set_num_threads(1)
    multiprocessing.set_start_method("spawn")
    parallel.sys = SimpleNamespace(platform="darwin", stderr=sys.stderr)
    rng = np.random.default_rng(0)
    for domain in "ab":
        for label in ("cat", "dog"):
            folder = Path("tree", domain, label)
            folder.mkdir(parents=True)
            for i in range(40):  # enough for the functions that processes run
                pixels = rng.integers(0, 256, (9, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    options = {"root": "tree", "image_size": 8, "batch_size": 4, "steps_per_epoch": 2}
    batches = []
    for workers in (0, 2):
        data = Folder("a", "b", num_workers=workers, **options)
        data.setup("fit")
        batches.append(list(data.train_dataloader()))
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one.source.views[0], other.source.views[0])
        assert torch.equal(one.target.views[0], other.target.views[0])
    assert Folder.check("tree", workers=2).well
    print("well")
"""


@pytest.mark.long
def test_spawned_processes_make_the_same_batches(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, **cache},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "well"
