import pytest

from da.data_sets import as_data_module, as_data_set, find_data_set, members
from da.errors import UserError
from da.types import DataModule, DataSet
from datasets.digits import Digits


def test_a_class_is_found_by_its_short_name_and_by_its_path():
    assert find_data_set("Digits") is Digits
    assert find_data_set("datasets.digits.Digits") is Digits


@pytest.mark.parametrize("name", ["Digit", "datasets.digits.Digit", "datasets.digts.Digits"])
def test_a_wrong_name_lists_what_is_near(name):
    with pytest.raises(UserError, match=r"unknown data set .*; did you mean '.*Digits'"):
        find_data_set(name)


def test_a_class_from_anywhere_is_found_where_it_has_all_that_is_asked(tmp_path, monkeypatch):
    (tmp_path / "my_sets.py").write_text(
        "from pytorch_lightning import LightningDataModule\n"
        "from datasets.digits import Digits\n"
        "class Mine(Digits): 'Mine.'\n"
        "class Bare(LightningDataModule): 'Bare.'\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert issubclass(find_data_set("my_sets.Mine"), Digits)
    with pytest.raises(UserError) as caught:
        find_data_set("my_sets.Bare")
    text = str(caught.value)
    assert text.startswith("my_sets.Bare is no data set: it lacks adopt, available, check")
    assert text.endswith("extend datasets.base.DomainData, which has them")
    with pytest.raises(UserError, match="expected a subclass of LightningDataModule, got 3"):
        find_data_set("my_sets.number")


def test_a_module_without_something_is_refused_with_what_it_lacks():
    data = Digits()
    assert as_data_module(data) is data
    del data.eval_batch_size
    with pytest.raises(UserError, match="Digits is no data module: it lacks eval_batch_size;"):
        as_data_module(data)


def test_a_class_without_something_is_refused_with_what_it_lacks(monkeypatch):
    for name in ("tasks", "origin"):
        monkeypatch.delattr(f"datasets.files.set_facts.SetFacts.{name}")
    with pytest.raises(UserError, match="is no data set: it lacks origin, tasks; extend"):
        as_data_set(Digits)


def test_the_protocols_name_no_private_thing():
    assert "source" in members(DataModule)
    assert "counts" in members(DataSet)
    assert not [name for name in members(DataModule) + members(DataSet) if name.startswith("_")]
