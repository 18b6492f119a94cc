"""Every option of Lightning's trainer works in fit, or is refused by name before anything."""

import csv
import inspect
import json

import pytest
import pytorch_lightning as L
from long_cases import rest_long
from pytorch_lightning import callbacks as of_lightning

import run
from da.cli import _fit_options as treated
from da.engine.trainer_settings import REFUSED_CALLBACKS

SHORT = "--data.steps_per_epoch 3 --data.batch_size 8 --model.norm wa --trainer.accelerator cpu"


@pytest.fixture
def fit(tmp_path, monkeypatch, capfd):
    """Runs fit in an empty folder with ``--out run``: exit code, both streams, the folder."""
    monkeypatch.chdir(tmp_path)

    def call(options, out="run"):
        capfd.readouterr()
        code = run.main(["fit", *SHORT.split(), "--out", out, *options.split()])
        said = capfd.readouterr()
        return code, said.out, said.err, tmp_path / out

    return call


def evaluations(folder):
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return [(e["epoch"], e["step"]) for e in result["evaluations"]]


def test_every_option_of_the_trainer_is_treated():
    newer = {"model_registry", "enable_autolog_hparams"}  # than the lowest version
    parameters = set(inspect.signature(L.Trainer).parameters) | newer
    groups = [treated.OF_THE_SPEC, treated.OF_THE_TRAINER, treated.REFUSED, treated.COUNTED]
    assert set().union(*groups) == parameters
    assert sum(map(len, groups)) == len(parameters), "an option in two groups"
    assert set(WORKS) | set(REFUSALS) == parameters


def skip_what_is_newer(name):
    if name not in inspect.signature(L.Trainer).parameters:
        pytest.skip(f"Lightning {L.__version__} has no option '{name}' yet")


def test_every_callback_of_lightning_is_treated():
    heeded = {
        *("Callback", "Checkpoint", "DeviceStatsMonitor", "EarlyStopping", "LambdaCallback"),
        *("LearningRateMonitor", "ModelCheckpoint", "ModelSummary", "ProgressBar"),
        *("RichModelSummary", "RichProgressBar", "SpikeDetection", "ThroughputMonitor", "Timer"),
        "TQDMProgressBar",
    }
    there = set(of_lightning.__all__)
    assert there <= heeded | set(REFUSED_CALLBACKS)


ONE = "--trainer.max_epochs 1"

#: What shows that an option works: evaluations as (epoch, step), or a file of the run, or a text.
WORKS = {
    "max_epochs": ("--trainer.max_epochs 2", [(1, 3), (2, 6)]),
    "max_steps": ("--trainer.max_epochs -1 --trainer.max_steps 4", [(1, 3), (2, 4)]),
    "max_time": ("--trainer.max_epochs 500 --trainer.max_time 00:00:00:01", "written: "),
    "min_epochs": (
        "--trainer.max_epochs 3 --trainer.min_epochs 2 --trainer.callbacks+=EarlyStopping "
        "--trainer.callbacks.monitor accuracy/source/validation --trainer.callbacks.patience 0 "
        "--trainer.callbacks.mode min --trainer.callbacks.stopping_threshold 1",
        [(1, 3), (2, 6)],
    ),
    "min_steps": (
        "--trainer.max_epochs 3 --trainer.min_steps 5 --trainer.callbacks+=EarlyStopping "
        "--trainer.callbacks.monitor accuracy/source/validation --trainer.callbacks.patience 0 "
        "--trainer.callbacks.mode min --trainer.callbacks.stopping_threshold 1",
        [(1, 3), (2, 5)],
    ),
    "precision": (f"{ONE} --trainer.precision bf16-mixed", [(1, 3)]),
    "accelerator": (f"{ONE} --trainer.accelerator auto", [(1, 3)]),
    "gradient_clip_val": (f"{ONE} --trainer.gradient_clip_val 0.5", [(1, 3)]),
    "gradient_clip_algorithm": (
        f"{ONE} --trainer.gradient_clip_val 0.5 --trainer.gradient_clip_algorithm value",
        [(1, 3)],
    ),
    "accumulate_grad_batches": (f"{ONE} --trainer.accumulate_grad_batches 3", [(1, 1)]),
    "check_val_every_n_epoch": (
        "--trainer.max_epochs 3 --trainer.check_val_every_n_epoch 2",
        [(2, 6), (3, 9)],
    ),
    "val_check_interval": (f"{ONE} --trainer.val_check_interval 2", [(1, 2), (1, 3)]),
    "deterministic": (f"{ONE} --trainer.deterministic true", [(1, 3)]),
    "benchmark": (f"{ONE} --trainer.benchmark true", [(1, 3)]),
    "detect_anomaly": (f"{ONE} --trainer.detect_anomaly true", [(1, 3)]),
    "callbacks": (
        f"{ONE} --trainer.callbacks+=ModelCheckpoint "
        "--trainer.callbacks.monitor accuracy/source/validation --trainer.callbacks.mode max",
        "checkpoints/*.ckpt",
    ),
    "logger": (
        f"{ONE} --trainer.logger CSVLogger --trainer.logger.save_dir mine",
        "../mine/*/*/metrics.csv",
    ),
    "enable_checkpointing": (f"{ONE} --trainer.enable_checkpointing false", "result.json"),
    "enable_progress_bar": (f"{ONE} --trainer.enable_progress_bar false", [(1, 3)]),
    "enable_model_summary": (f"{ONE} --trainer.enable_model_summary true", "Trainable params"),
    "enable_autolog_hparams": (f"{ONE} --trainer.enable_autolog_hparams false", [(1, 3)]),
    "log_every_n_steps": (f"{ONE} --trainer.log_every_n_steps 1", "metrics/metrics.csv"),
    "num_sanity_val_steps": (f"{ONE} --trainer.num_sanity_val_steps 1", [(1, 3)]),
    "profiler": (f"{ONE} --trainer.profiler simple", "fit-profile.txt"),
    "inference_mode": (f"{ONE} --trainer.inference_mode false", [(1, 3)]),
    "fast_dev_run": ("--trainer.fast_dev_run true", "nothing was written"),
    "devices": (f"{ONE} --trainer.devices 1", [(1, 3)]),
}


@pytest.mark.parametrize("name", rest_long(WORKS, list(WORKS)[::3]))
def test_an_option_that_works(fit, name):
    skip_what_is_newer(name)
    options, shown = WORKS[name]
    code, out, err, folder = fit(options)
    assert (code, err) == (0, "")
    if isinstance(shown, list):
        assert evaluations(folder) == shown
    elif " " in shown or ":" in shown:
        assert shown in out
    else:
        assert list(folder.glob(shown))


#: Options with values that can't be heeded, and what is said.
REFUSALS = {
    "devices": ("2", "trainer.devices: expected 1 device on 1 node, got 2 devices"),
    "num_nodes": ("2", "trainer.num_nodes: expected 1 device on 1 node"),
    "strategy": ("ddp", "trainer.strategy: one run trains on one device"),
    "sync_batchnorm": ("true", "trainer.sync_batchnorm: there is nothing to synchronise"),
    "use_distributed_sampler": ("false", "trainer.use_distributed_sampler: there is no sampler"),
    "plugins": ("bitsandbytes", "trainer.plugins: "),
    "barebones": ("true", "trainer.barebones: it leaves out evaluation and checkpoints"),
    "reload_dataloaders_every_n_epochs": ("1", "nothing is loaded again"),
    "default_root_dir": ("here", "trainer.default_root_dir: the folder of a run is named by --out"),
    "limit_train_batches": ("1", "trainer.limit_train_batches: give --data.steps_per_epoch"),
    "limit_val_batches": ("1", "trainer.limit_val_batches: an accuracy is of all images"),
    "limit_test_batches": ("1", "trainer.limit_test_batches: nothing is tested in fit"),
    "limit_predict_batches": ("1", "trainer.limit_predict_batches: nothing is predicted in fit"),
    "overfit_batches": ("1", "trainer.overfit_batches: no batch is repeated here"),
    "model_registry": ("mine", "trainer.model_registry: checkpoints stay in the run's folder"),
    "max_epochs": ("-1", "-1 is a training without an end; give --trainer.max_steps or"),
    "max_steps": ("0", "trainer.max_steps: expected a whole number from 1, got 0"),
    "max_time": ("00:00:10:00", "give --trainer.max_epochs or max_steps with it"),
    "min_epochs": ("0", "trainer.min_epochs: expected a whole number from 1, got 0"),
    "min_steps": ("0", "trainer.min_steps: expected a whole number from 1, got 0"),
    "gradient_clip_val": ("0", "trainer.gradient_clip_val: expected a number above 0"),
    "accumulate_grad_batches": ("0", "trainer.accumulate_grad_batches: expected a number above 0"),
    "check_val_every_n_epoch": ("null", "give --trainer.val_check_interval a whole number"),
    "val_check_interval": ("5", "a number of batches from 1 to 3, of which an epoch has so many"),
    "profiler": ("simpel", "unknown trainer.profiler 'simpel'; did you mean 'simple'?"),
    "precision": ("bf16-true", "give bf16-mixed"),
}


@pytest.mark.parametrize("name", rest_long(REFUSALS, list(REFUSALS)[::3]))
def test_a_value_that_is_refused(fit, tmp_path, name):
    skip_what_is_newer(name)
    value, text = REFUSALS[name]
    code, out, err, _ = fit(f"--trainer.{name} {value}")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert text in err
    assert not list(tmp_path.iterdir()), "something was written"


MONITORS = {
    "val_loss": "unknown value to monitor 'val_loss'; did you mean 'loss/task'? One of: accuracy/s",
    "accuracy/target/tset": "did you mean 'accuracy/target/test'?",
    "loss/nope": "unknown value to monitor 'loss/nope'",  # known with the first batch
}


@pytest.mark.parametrize("kind", ["EarlyStopping", "ModelCheckpoint"])
@pytest.mark.parametrize("monitor", MONITORS)
def test_a_value_that_is_never_logged_can_not_be_monitored(fit, tmp_path, kind, monitor):
    options = f"--trainer.callbacks+={kind} --trainer.callbacks.monitor {monitor}"
    code, _, err, _ = fit(options)
    assert code == 2
    assert f"trainer.callbacks: {kind}: " in err
    assert MONITORS[monitor] in err
    assert not list(tmp_path.iterdir()), "something was written"


def test_callbacks_that_change_the_training_are_refused(fit):
    options = "--trainer.callbacks+=StochasticWeightAveraging --trainer.callbacks.swa_lrs 0.01"
    code, _, err, folder = fit(options)
    assert (code, folder.exists()) == (2, False)
    assert "StochasticWeightAveraging: averaged weights would not be evaluated" in err


def test_early_stopping_ends_with_the_evaluation_that_stopped_it(fit):
    stop = (
        "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor accuracy/target/test "
        "--trainer.callbacks.mode max --trainer.callbacks.stopping_threshold 0.0"
    )
    _, _, err, folder = fit(f"--trainer.max_epochs 5 {stop}")
    assert evaluations(folder) == [(1, 3)]
    assert (
        err.count("EarlyStopping decides by 'accuracy/target/test', which takes target labels") == 1
    )


def test_early_stopping_within_an_epoch_may_go_by_a_loss(fit):
    stop = (
        "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor loss/task "
        "--trainer.callbacks.stopping_threshold 100"
    )
    code, _, err, folder = fit(f"{ONE} --trainer.val_check_interval 2 {stop}")
    assert (code, err) == (0, "")
    assert evaluations(folder) == [(1, 2)]


def test_without_checkpoints_none_is_named(fit):
    code, out, _, folder = fit(f"{ONE} --trainer.enable_checkpointing false")
    assert code == 0
    assert out.splitlines()[-1] == "written: run/result.json"
    assert not (folder / "last.ckpt").exists()


def test_time_alone_trains_where_the_schedules_have_a_horizon(fit):
    code, _, err, folder = fit("--trainer.max_time 00:00:00:01 --model.horizon 1000")
    assert (code, err) == (0, "")
    assert len(evaluations(folder)) >= 1


def test_a_fast_look_writes_nothing(fit, tmp_path):
    assert fit("--trainer.fast_dev_run 2")[0] == 0
    assert not list(tmp_path.iterdir())


def test_losses_are_logged_per_step_and_accuracies_per_evaluation(fit):
    _, _, _, folder = fit("--trainer.max_epochs 2 --trainer.log_every_n_steps 1")
    with (folder / "metrics/metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["loss/task"]] == [str(i) for i in range(6)]
    assert sum(bool(row["accuracy/target/test"]) for row in rows) == 2
    code, _, _, folder = fit(f"{ONE} --logger none", out="silent")
    assert (code, list(folder.glob("metrics*"))) == (0, [])


def test_a_schedule_of_averaged_batches_ends_with_the_steps(fit):
    options = "--trainer.max_epochs -1 --trainer.max_steps 3 --trainer.accumulate_grad_batches 2"
    code, _, err, folder = fit(options)
    assert (code, err) == (0, "")
    assert evaluations(folder)[-1][1] == 3


def test_scores_are_named_and_each_picks_an_epoch(fit, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_score_of_mine.py").write_text(SCORE)
    options = "--trainer.max_epochs 1 --scores"
    code, out, err, folder = fit(f"{options} a_score_of_mine.First,NegativeEntropy")
    assert (code, err) == (0, "")
    assert "label-free (a_score_of_mine.First)" in out
    result = json.loads((folder / "result.json").read_text())
    scores = result["evaluations"][-1]["forms"][""]["target/validation"]["label_free"]
    assert set(scores) == {"a_score_of_mine.First", "NegativeEntropy"}
    code, _, err, folder = fit(f"{options} DEVV", out="other")
    assert code == 2
    assert "unknown score 'DEVV'; did you mean 'DEV'?" in err
    assert not folder.exists()


SCORE = """
from da.selection.base import Score

class First(Score):
    def __call__(self, evidence):
        return float(evidence.target.logits[0, 0])
"""
