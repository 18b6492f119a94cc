from pathlib import Path

import pytest
from refusing import refused

from da.analysis.kept_checkpoints import Kept, Wanted, choose, find_checkpoints
from da.engine.run_folder import write_spec
from da.engine.spec import RunSpec
from da.grids.store import Store


def spec(norm="bn", target="b", **given):
    settings = {"method": "DANN", "lr": 0.1, "seed": 0} | given
    return RunSpec(
        **{"data": "Digits", "source": "a", "target": target, "norm": norm, "batch_size": 4},
        **{"epochs": 1, "steps_per_epoch": 1},
        **settings,
    )


def kept(*specs):
    return [Kept(Path(f"{one.id}.ckpt"), one) for one in specs]


def chosen(found, **wanted):
    return [one.spec for one in choose(found, Wanted(**wanted), Path("runs"))]


def test_bn_and_wa_come_first_then_the_others_and_rates_by_size():
    specs = [spec(norm) for norm in ("wa+gn", "gn", "wa", "bn")]
    low, high = spec("bn", lr=0.01), spec("bn", lr=0.5)
    found = kept(high, *specs, low)
    assert [one.norm for one in chosen(found)] == ["bn"] * 3 + ["wa", "gn", "wa+gn"]
    assert [one.lr for one in chosen(found)[:3]] == [0.01, 0.1, 0.5]
    assert [one.norm for one in chosen(found, norms=["gn", "wa"])] == ["gn", "wa"]


def test_a_task_a_method_and_a_seed_are_chosen_or_asked_for_in_one_line():
    found = kept(*(spec(n, t, seed=s) for n in ("bn", "wa") for t in "bc" for s in (2, 10)))
    text = refused(lambda: chosen(found))
    assert text == (
        "checkpoint: 'runs' holds several trainings, and those of one task, method and seed are "
        "compared; choose with --task (one of a->b, a->c) and --seed (one of 2, 10)"
    )
    for name in ("a->c", "a→c", "a-c"):
        assert {one.task for one in chosen(found, task=name, seed="10")} == {"a->c"}
    refused(lambda: chosen(found, task="a-d"), "unknown task 'a-d'", "a->b, a->c")
    refused(lambda: chosen(found, task="a-b", seed="3"), "unknown seed '3'", "10, 2")
    refused(lambda: chosen(found, method="MCD"), "unknown method 'MCD'", "DANN")
    refused(lambda: chosen(found, task="a-b", seed="2", norms=["in"]), "'in'", "bn, wa")


def test_finished_trainings_of_a_run_a_grid_and_a_folder_of_runs(tmp_path):
    places = ["run", "grid/cells/one", "grid/cells/two", "grid/cells/cut"]
    for place in places:
        folder = tmp_path / place
        folder.mkdir(parents=True)
        write_spec(folder, spec())
        (folder / "last.ckpt").touch()
        if place != "grid/cells/cut":
            (folder / "result.json").touch()
    assert Store.folder == "cells"
    assert [one.path.parent.name for one in find_checkpoints(tmp_path / "run")] == ["run"]
    assert [one.path.parent.name for one in find_checkpoints(tmp_path / "grid")] == ["one", "two"]
    assert [one.path.parent.name for one in find_checkpoints(tmp_path)] == ["run"]
    refused(lambda: find_checkpoints(tmp_path / "grid/cells/cut"), "no finished training")
    (tmp_path / "grid/cells/one/last.ckpt").unlink()
    refused(lambda: find_checkpoints(tmp_path / "grid/cells/one"), "no last.ckpt", "--keep")
    (tmp_path / "run/spec.json").write_text("{")
    refused(lambda: find_checkpoints(tmp_path / "run"), "spec.json")


@pytest.mark.parametrize("count", [1, 3])
def test_specifications_are_read_as_they_were_written(tmp_path, count):
    for i in range(count):
        folder = tmp_path / str(i)
        folder.mkdir()
        write_spec(folder, spec(seed=i))
        for name in ("last.ckpt", "result.json"):
            (folder / name).touch()
    assert [one.spec for one in find_checkpoints(tmp_path)] == [spec(seed=i) for i in range(count)]
