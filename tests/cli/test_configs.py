"""Every layer of settings for fit trains one short epoch and goes on from its checkpoint."""

from pathlib import Path

import pytest

import run

LAYERS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def test_there_are_layers():
    assert LAYERS


@pytest.mark.parametrize("path", LAYERS, ids=lambda path: path.stem)
def test_a_layer_trains_and_resumes(path, tmp_path, capsys):
    line = ["fit", "--config", str(path), "--data.steps_per_epoch", "2", "--out"]
    assert run.main([*line, str(tmp_path / "a"), "--trainer.max_epochs", "1"]) == 0
    last = str(tmp_path / "a" / "last.ckpt")
    more = ["--trainer.max_epochs", "2", "--ckpt_path", last]
    assert run.main([*line, str(tmp_path / "b"), *more]) == 0
    assert "epoch 2/2" in capsys.readouterr().out
