"""The package of data sets works under any name: a wheel may carry it where its own is taken."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SCRIPT = """
import pickle, sys
import numpy as np
import torch
from PIL import Image
from pathlib import Path

torch.set_num_threads(1)
from other_name.digits import Digits
from other_name.folder import Folder

assert "datasets" not in sys.modules
batches = {}
for workers in (0, 2):
    data = Digits("rendered", "optical", batch_size=4, steps_per_epoch=2, num_workers=workers)
    data.serve_views(("weak",), ("weak", "strong"))
    data = pickle.loads(pickle.dumps(data))
    batches[workers] = list(data.train_dataloader())
for one, other in zip(batches[0], batches[2], strict=True):
    assert all(map(torch.equal, one.target.views, other.target.views))

root = Path("tree")
rng = np.random.default_rng(0)
for domain in "ab":
    for label in ("cat", "dog"):
        (root / domain / label).mkdir(parents=True)
        for i in range(40):  # enough for the functions that processes run
            pixels = rng.integers(0, 256, (9, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / domain / label / f"{i}.png")
data = Folder("a", "b", root="tree", image_size=8, batch_size=4, steps_per_epoch=2, num_workers=2)
assert len(list(data.train_dataloader())) == 2
assert len(data.manifest) == 64
assert Folder.check("tree", workers=2).well
assert "datasets" not in sys.modules, "something names the package by its usual name"
print("well", data.manifest)
"""


def run_under(name, folder, script):
    shutil.copytree(ROOT / "datasets", folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "da").symlink_to(ROOT / "da")
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
    )


@pytest.mark.long
def test_it_works_under_another_name_and_gives_the_same_identities(tmp_path, monkeypatch, capsys):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    other = run_under("other_name", tmp_path / "one", SCRIPT)
    assert other.returncode == 0, other.stderr
    assert other.stdout.splitlines()[-1].startswith("well ")
    usual = SCRIPT.replace("other_name", "datasets")
    usual = re.sub(r"^assert \"datasets\" not in.*$", "", usual, flags=re.MULTILINE)
    monkeypatch.chdir(tmp_path / "two")
    exec(compile(usual, "usual", "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1] == other.stdout.splitlines()[-1]


def test_nothing_in_it_names_the_package():
    for file in (ROOT / "datasets").rglob("*.py"):
        text = file.read_text()
        # torchvision's module of that name is not ours
        wrong = [
            line
            for line in text.splitlines()
            if re.search(r"(?<![.\w])datasets\.\w", line) and "torchvision" not in line
        ]
        assert not wrong, f"{file.name}: {wrong}"


def test_at_its_top_there_are_only_data_sets():
    from da.data_sets import data_sets

    modules = {file.stem for file in (ROOT / "datasets").glob("*.py")} - {"__init__", "base"}
    assert modules == {kind.__module__.rpartition(".")[2] for kind in data_sets().values()}
    folders = {p.name for p in (ROOT / "datasets").iterdir() if p.is_dir()} - {"__pycache__"}
    assert folders == {"streams", "files", "fetching"}
