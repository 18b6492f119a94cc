import shutil
import subprocess
import sys

import pytest
import pytorch_lightning as pl
import torch
from fake_cells import ENVIRONMENT
from pytorch_lightning.demos.boring_classes import BoringModel
from refusing import refused

from da.engine.checkpoint_io import VerifiedCheckpointIO

FIT = """
import sys, torch
from pathlib import Path
import pytorch_lightning as pl
from pytorch_lightning.demos.boring_classes import BoringModel
from da.engine.checkpoint_io import VerifiedCheckpointIO
class Model(BoringModel):
    def __init__(self):
        super().__init__(); self.register_buffer("ballast", torch.zeros(150_000))
    def on_train_epoch_end(self):
        if self.current_epoch == 1:  # then a second checkpoint of 600 KB is too much
            Path(sys.argv[1], "fill").write_bytes(bytes(1_000_000))
        self.trainer.save_checkpoint(Path(sys.argv[1], "last.ckpt"))
        print("saved", self.current_epoch, flush=True)
trainer = pl.Trainer(
    max_epochs=3, limit_train_batches=2, limit_val_batches=0, logger=False, accelerator="cpu",
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    plugins=[VerifiedCheckpointIO()],
)
trainer.fit(Model())
"""


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "run" / "last.ckpt"
    VerifiedCheckpointIO().save_checkpoint({"epoch": 1, "state_dict": {"a": torch.ones(9)}}, path)
    return path


def test_what_is_saved_is_loaded_and_removed(checkpoint):
    plugin = VerifiedCheckpointIO()
    assert plugin.load_checkpoint(checkpoint)["epoch"] == 1
    assert torch.load(checkpoint)["epoch"] == 1
    plugin.remove_checkpoint(checkpoint)
    assert not checkpoint.exists()
    with pytest.raises(TypeError, match="storage_options"):
        plugin.save_checkpoint({}, checkpoint, {"some": 1})


def test_a_damaged_checkpoint_is_never_resumed_from(checkpoint):
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)
    words = (f"checkpoint: '{checkpoint}' is damaged", "give a .ckpt")
    refused(lambda: VerifiedCheckpointIO().load_checkpoint(checkpoint), *words)


def test_a_trainer_saves_and_resumes(tmp_path):
    path, epochs = tmp_path / "last.ckpt", []

    class Model(BoringModel):
        def on_train_epoch_end(self):
            epochs.append(self.current_epoch)
            self.trainer.save_checkpoint(path)

    def fit(length, resumed):
        quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        trainer = pl.Trainer(
            max_epochs=length,
            limit_train_batches=2,
            limit_val_batches=0,
            accelerator="cpu",
            plugins=[VerifiedCheckpointIO()],
            **dict.fromkeys(quiet, False),
        )
        trainer.fit(Model(), ckpt_path=resumed)

    fit(2, None)
    fit(4, path)
    assert epochs == [0, 1, 2, 3]
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
    assert b"sha256:" in path.read_bytes()[-80:]


def _can_mount():
    if not shutil.which("unshare"):
        return False
    command = ["unshare", "-m", "sh", "-c", "mount -t tmpfs -o size=100k none /mnt"]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.long
@pytest.mark.skipif(not _can_mount(), reason="needs the right to mount a file system")
def test_on_a_full_disk_with_tmpdir_elsewhere_the_last_good_checkpoint_stays(tmp_path):
    disk, elsewhere = tmp_path / "disk", tmp_path / "tmp"
    disk.mkdir()
    elsewhere.mkdir()
    script = tmp_path / "fit.py"
    script.write_text(FIT)
    shell = (
        f"mount -t tmpfs -o size=2000k none {disk}; {sys.executable} {script} {disk}; ls -A {disk};"
        f" cp {disk}/last.ckpt {tmp_path}"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", shell],
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, "TMPDIR": str(elsewhere)},
    )
    assert "No space left on device" in done.stderr
    assert done.stdout.split() == ["saved", "0", "fill", "last.ckpt"]
    assert VerifiedCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")["epoch"] == 0
