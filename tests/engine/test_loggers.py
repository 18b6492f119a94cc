"""Loggers by name; those whose packages are absent are skipped, and refused by name."""

import importlib.util
import sqlite3

import pytest

from da.engine.loggers import PACKAGES, loggers
from da.errors import UserError


def needs(*packages):
    missing = [p for p in packages if importlib.util.find_spec(p) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def log(name, folder):
    (logger,) = loggers(name, folder)
    logger.log_hyperparams({"lr": 0.1})
    for step in range(3):
        logger.log_metrics({"loss/task": 1.0 / (step + 1)}, step)
    logger.log_metrics({"accuracy/target/test": 0.5}, 2)
    logger.save()
    logger.finalize("success")


def test_csv_logs_of_a_resumed_run_lie_beside_those_before(tmp_path):
    log("csv", tmp_path)
    log("csv", tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics", "metrics-2"]
    assert "loss/task" in (tmp_path / "metrics/metrics.csv").read_text(encoding="utf-8")


@needs("tensorboard")
def test_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("loss/task")] == [0, 1, 2]
    assert [e.value for e in events.Scalars("accuracy/target/test")] == [0.5]


@needs("mlflow", "sqlalchemy")
def test_mlflow_in_one_sqlite_file(tmp_path):
    log("mlflow", tmp_path / "a run")
    with sqlite3.connect(tmp_path / "a run" / "mlflow.db") as base:
        counts = dict(base.execute("select key, count(*) from metrics group by key"))
        runs = base.execute("select name, status from runs").fetchall()
    assert counts == {"loss/task": 3, "accuracy/target/test": 1}
    assert runs == [("a run", "FINISHED")]


@needs("wandb")
def test_wandb_offline_gives_every_training_a_run_of_its_own(tmp_path):
    for name in ("a", "b"):
        log("wandb", tmp_path / name)
        assert len(list((tmp_path / name / "wandb").glob("offline-run-*/*.wandb"))) == 1


@pytest.mark.parametrize("name", [name for name, packages in PACKAGES.items() if packages])
def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch, tmp_path, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=f"'{name}' needs the package .*: pip install {name}"):
        loggers(name, tmp_path)


def test_names_of_loggers(tmp_path):
    assert loggers("none", tmp_path) == []
    with pytest.raises(UserError, match="unknown logger 'tensorbord'; did you mean 'tensorboard'"):
        loggers(["tensorbord"], tmp_path)
    with pytest.raises(UserError, match="expected none or names of loggers, got none, csv"):
        loggers("none,csv", tmp_path)
