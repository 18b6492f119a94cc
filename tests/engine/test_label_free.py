"""Scores that compare the evaluations of a training with one another, in memory and resumed."""

import numpy as np
import pytest
import pytorch_lightning as L
import torch
from long_cases import rest_long
from scipy.special import softmax
from short_runs import fit, small

from da.engine.evaluation import Recorder
from da.engine.label_free import evidence_of_logits
from da.engine.spec import RunSpec
from da.engine.training import train
from da.methods.source_only import SourceOnly
from da.selection.base import available_scores
from da.selection.ensv import EnsV


class Keep(L.Callback):
    """Keeps what the network as trained predicts for the target's validation images."""

    def __init__(self):
        self.logits = []

    def on_validation_end(self, trainer, pl_module):
        place = pl_module.data.evaluations.index(("target", "validation"))
        self.logits.append(pl_module.predictions[place].logits.double().numpy())

    def agreement(self):
        """Of each evaluation so far with the average of all."""
        mean = np.mean([softmax(x, axis=1) for x in self.logits], axis=0)
        same = [x.argmax(axis=1) == mean.argmax(axis=1) for x in self.logits]
        return [float(np.mean(x)) for x in same]


def trained(folder, names, epochs, keep, checkpoint=None):
    recorder = Recorder(score_names=names)
    fit(
        small(SourceOnly, lr=0.05),
        folder=folder,
        epochs=epochs,
        callbacks=[recorder, keep],
        ckpt_path=checkpoint,
        limit_val_batches=None,
    )
    return recorder


def values(recorder, form=""):
    return [e["forms"][form]["target/validation"]["label_free"] for e in recorder.history]


def test_the_evaluations_of_each_form_are_a_set_also_after_a_resume(tmp_path):
    keep, names = Keep(), ["EnsV", "NuclearNorm"]
    recorder = trained(tmp_path, names, 2, keep)
    assert [one["EnsV"] for one in values(recorder)] == pytest.approx(keep.agreement())
    recorder = trained(tmp_path, names, 4, keep, tmp_path / "last.ckpt")
    expected = keep.agreement()
    assert len(expected) == 4
    assert len(set(expected)) > 1
    assert [one["EnsV"] for one in values(recorder)] == pytest.approx(expected)
    assert all(set(one) == set(names) for one in values(recorder))
    others = [one["EnsV"] for one in values(recorder, "target-stats")]
    assert len(others) == 4
    assert others != pytest.approx(expected)


def test_nothing_is_kept_unless_a_score_asks_and_what_came_before_it_has_no_value(tmp_path):
    recorder = trained(tmp_path, ["NuclearNorm"], 2, Keep())
    assert recorder.kept == {}
    recorder = trained(tmp_path, ["EnsV"], 3, Keep(), tmp_path / "last.ckpt")
    assert recorder.kept["EnsV"][""][0] == [2]
    assert [set(one) for one in values(recorder)] == [{"NuclearNorm"}, {"NuclearNorm"}, {"EnsV"}]
    assert values(recorder)[-1]["EnsV"] == 1.0


def test_what_is_kept_grows_by_one_number_for_each_image_and_evaluation(tmp_path):
    keep = Keep()
    recorder = trained(tmp_path, ["EnsV"], 3, keep)
    for numbers, state in recorder.kept["EnsV"].values():
        assert numbers == [0, 1, 2]
        assert state["sum"].shape == keep.logits[0].shape
        assert [one.shape for one in state["predicted"]] == [keep.logits[0].shape[:1]] * 3


def test_the_logits_that_earlier_versions_kept_are_read():
    generator = torch.Generator().manual_seed(2)
    logits = [torch.randn(20, 4, generator=generator) for _ in range(3)]
    recorder = Recorder(score_names=["NuclearNorm", "EnsV"])
    earlier = {i: {"": one, "target-stats": -one} for i, one in enumerate(logits)}
    del earlier[0]["target-stats"]
    recorder.load_state_dict({"kept": earlier})
    assert set(recorder.kept) == {"EnsV"}
    numbers, state = recorder.kept["EnsV"][""]
    assert numbers == [0, 1, 2]
    whole = EnsV()([evidence_of_logits(one) for one in logits])
    assert EnsV().values(state) == whole
    assert recorder.kept["EnsV"]["target-stats"][0] == [1, 2]
    without = Recorder(score_names=["NuclearNorm"])
    without.load_state_dict({"kept": earlier})
    assert without.kept == {}


@pytest.mark.parametrize("norm", rest_long(["bn", "wa"], ["bn"]))
def test_a_training_computes_every_score_on_disk_in_every_form_and_its_result_holds_them(
    tmp_path, norm
):
    spec = RunSpec(
        data="Digits",
        source="rendered",
        target="optical",
        method="SourceOnly",
        norm=norm,
        model_args={"bottleneck": 16},
        lr=0.01,
        batch_size=4,
        epochs=1,
        steps_per_epoch=1,
        seed=0,
        scores=tuple(available_scores()),
    )
    result = train(spec, tmp_path, lambda part: None)
    assert len(result.forms) == (3 if norm == "bn" else 1)
    for streams in result.evaluations[-1].forms.values():
        scores = streams["target/validation"].label_free
        assert set(scores) == set(available_scores())
        assert None not in scores.values()
