"""Memory stays flat over epochs, in the main process and in workers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

PROGRAM = """
import os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads(1)
from datasets.folder import Folder
root, workers = sys.argv[1], int(sys.argv[2])
data = Folder(
    source="a", target="b", root=root, batch_size=500, image_size=2, resize=2, flip=False,
    crop="centre", num_workers=workers, steps_per_epoch="longest",
)
loader = data.train_dataloader()

def resident():
    own = os.getpid()
    kids = Path(f"/proc/{{own}}/task/{{own}}/children").read_text().split()
    text = [Path(f"/proc/{{pid}}/smaps_rollup").read_text() for pid in [own, *kids]]
    return sum(int(t.split("Pss:")[1].split()[0]) for t in text)

for epoch in range(20):
    images = sum(len(batch.source.images) + len(batch.target.images) for batch in loader)
    print(images, resident(), flush=True)
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's smaps")
@pytest.mark.parametrize("workers", [0, 4])
def test_memory_stays_flat_over_20_epochs_of_100_000_images(tmp_path, workers):
    from PIL import Image

    for domain in "ab":  # one file for each: a file has 65,000 names at most
        image = tmp_path / f"{domain}.png"
        Image.new("RGB", (2, 2), "red").save(image)
        for label in range(50):
            folder = tmp_path / "tree" / domain / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(1000):
                os.link(image, folder / f"{i}.png")
    out = subprocess.run(
        [
            sys.executable,
            "-c",
            PROGRAM.format(root=str(ROOT)),
            str(tmp_path / "tree"),
            str(workers),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    assert not out.returncode, out.stderr
    rows = [line.split() for line in out.stdout.splitlines() if line[0].isdigit()]
    assert [int(images) for images, _ in rows] == [100_000] * 20
    resident = [int(size) for _, size in rows]
    print(f"\n{workers} workers, kB after each epoch: {resident}")
    assert max(resident[1:]) < 1.05 * resident[0]
