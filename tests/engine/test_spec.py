import pytest
import torch
from fake_cells import a_cell
from pydantic import ValidationError

from da.engine.provenance import package_versions
from da.engine.spec import RunSpec


def test_the_identity_is_pinned():
    # A changed hash would run every finished cell again: change it knowingly.
    assert a_cell().id == "5cb6bb75211e868e"


def test_equal_settings_in_another_spelling_are_one_cell():
    a = a_cell(method_args={"x": 1.0, "y": [1, 2]}, lr=1)
    b = a_cell(method_args={"y": (1, 2), "x": 1}, lr=1.0)
    assert a.id == b.id


@pytest.mark.parametrize("field", RunSpec.model_fields)
def test_every_setting_is_part_of_the_identity(field):
    values = {
        "data": "x.Z",
        "steps_per_epoch": "longest",
        "precision": "bf16-mixed",
        "device": "cuda",
        "weights_content": "00ff",
        "forms": False,
        "scores": ("NegativeEntropy",),
        "trainer": {"gradient_clip_val": 1.0},
    }
    was = a_cell().model_dump()[field]
    other = values.get(field)
    if field not in values:
        other = {"k": 1} if isinstance(was, dict) else f"{was}x" if isinstance(was, str) else 77
    assert a_cell(**{field: other}).id != a_cell().id


def test_evaluations_after_a_batch_and_after_an_epoch_are_two_settings():
    batch, epoch = (a_cell(trainer={"val_check_interval": every}) for every in (1, 1.0))
    assert batch.id != epoch.id
    assert epoch.id == a_cell().id


def test_folders_and_workers_are_no_part_of_the_identity():
    a = a_cell(data_args={"root": "/a", "num_workers": 2, "balanced": True})
    kept = {"cache": False, "cache_folder": "/c"}
    assert a.id == a_cell(data_args={"root": "/b", "balanced": True, **kept}).id
    assert a.id != a_cell(data_args={"root": "/a"}).id


def test_weights_are_identified_by_their_content_wherever_they_lie():
    a = a_cell(model_args={"weights": "/a.pth"}, weights_content="00ff")
    assert a.id == a_cell(model_args={"weights": "/b/c.pth"}, weights_content="00ff").id
    assert a.id != a_cell(model_args={"weights": "/a.pth"}, weights_content="11ee").id
    assert a.id != a_cell(model_args={"weights": "/a.pth"}).id
    assert a.id != a_cell().id


def test_the_first_version_of_the_data_is_the_identity_of_cells_without_one():
    assert a_cell(data_version=1).id == a_cell().id
    assert len({a_cell(data_version=v).id for v in (1, 2, 3)}) == 3


@pytest.mark.parametrize(
    "wrong", [{"lr": 0}, {"lr": float("nan")}, {"seed": -1}, {"batch_size": 0}, {"extra": 1}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        a_cell(**wrong)


def test_seed_0_and_names_like_no_work():
    cell = a_cell(seed=0, norm="no")
    assert cell.seed == 0
    assert cell.norm == "no"


def test_a_result_names_the_versions_of_what_it_depends_on():
    found = package_versions()
    assert found["torch"] == torch.__version__.partition("+")[0]
    try:
        import timm
    except ImportError:  # optional
        assert "timm" not in found
    else:
        assert found["timm"] == timm.__version__
