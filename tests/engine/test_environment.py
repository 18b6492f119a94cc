"""What the environment says changes no training, and is said once.

Each start of a process loads PyTorch, so the fast tests have everything at once; apart from each
other, so that nothing hides behind anything else, the long ones have it.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from long_cases import rest_long

import run

ROOT = Path(__file__).parents[2]
FIT = [
    *("--data.steps_per_epoch", "3", "--data.batch_size", "8", "--model.norm", "wa"),
    *("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"),
]
SLURM = {
    **{"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_NNODES": "1"},
    **{"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"},
}


def fit(folder, *options, closed=False, **variables):
    kwargs = {"stdin": None, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, str(ROOT / "run.py"), "fit", *FIT, *options]
    if closed:
        command = ["sh", "-c", 'exec "$@" <&- >&-', "sh", *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(command, cwd=folder, env=environment, check=False, **kwargs)


def scores(folder):
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return [(e["step"], e["forms"]) for e in result["evaluations"]]


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """A run without any of it, in this process."""
    folder = tmp_path_factory.mktemp("calm")
    assert run.main(["fit", *FIT, "--out", str(folder / "run")]) == 0
    return folder / "run"


ENVIRONMENTS = {
    "trainer": {
        "PL_TRAINER_LIMIT_TRAIN_BATCHES": "1",
        "PL_METHODTRAINER_LIMIT_TRAIN_BATCHES": "1",
        "PL_METHODTRAINER_GRADIENT_CLIP_VAL": "0.001",
    },
    "rank": {"LOCAL_RANK": "2", "RANK": "2", "WORLD_SIZE": "4"},
    "slurm": {**SLURM, "SLURM_NTASKS": "4", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"},
}


@pytest.mark.parametrize("name", rest_long(["all", *ENVIRONMENTS], ["all"]))
def test_variables_change_nothing_and_are_named_in_one_line(tmp_path, calm, name):
    every = {key: value for some in ENVIRONMENTS.values() for key, value in some.items()}
    variables = every if name == "all" else ENVIRONMENTS[name]
    # A checkpoint that lies about is not gone on with, which under Slurm it would be.
    shutil.copy(calm / "last.ckpt", tmp_path / "hpc_ckpt_1.ckpt")
    done = fit(tmp_path, "--out", "run", **variables)
    assert done.returncode == 0
    assert done.stderr.startswith("ignored, ")
    assert done.stderr.count("\n") == 1
    assert "hpc_ckpt_1.ckpt" in done.stderr
    for variable in variables:
        assert variable in done.stderr or variable.startswith("SLURM_")
    assert scores(tmp_path / "run") == scores(calm)
    assert (tmp_path / "run/last.ckpt").exists()
    assert (tmp_path / "run/metrics/metrics.csv").exists()


@pytest.mark.long
def test_a_checkpoint_that_lies_about_is_not_gone_on_with(tmp_path, calm):
    shutil.copy(calm / "last.ckpt", tmp_path / "hpc_ckpt_1.ckpt")
    done = fit(tmp_path, "--out", "run", **SLURM)
    assert "hpc_ckpt_1.ckpt" in done.stderr
    assert scores(tmp_path / "run") == scores(calm)


STREAMS = {
    "closed": {},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
}
STREAMS["bare"] = STREAMS["C"] | STREAMS["ascii"]


@pytest.mark.long
@pytest.mark.parametrize("name", STREAMS)
def test_streams_that_are_closed_or_bare_stop_nothing(tmp_path, calm, name):
    done = fit(tmp_path, "--out", "run", closed=name == "closed", **STREAMS[name])
    assert (done.returncode, done.stderr) == (0, "")
    assert scores(tmp_path / "run") == scores(calm)
