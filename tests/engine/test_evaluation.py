"""Evaluation: scores against scikit-learn, batch norm's re-estimated forms, a run's history."""

import copy
import warnings

import numpy as np
import pytest
import pytorch_lightning as L
import torch
from scipy.stats import entropy
from short_runs import digits, small
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss

from da.engine.evaluation import (
    FORMS,
    Recorder,
    join_single_images,
    predict_stream,
    restated_statistics,
)
from da.engine.prediction_scores import score_predictions
from da.engine.progress import ProgressTicks
from da.engine.trainer import MethodTrainer
from da.errors import Diverged
from da.methods.source_only import SourceOnly
from da.networks.network import evaluating
from da.norms import batch_norms
from da.norms.base import DomainLayer
from da.ops import acceleration
from da.selection.base import Score
from da.types import Predictions, Segment
from datasets.digits import Digits


def drawn(n, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    return 2 * torch.randn(n, classes, generator=generator), labels


def scored(logits, labels, by_class=False):
    """The scores of predictions, with letters as the names of the classes."""
    features = torch.zeros(len(logits), 1)
    names = "abcdefghij"[: logits.shape[1]]
    return score_predictions(Predictions(logits, labels, features), tuple(names), by_class)


@pytest.mark.parametrize(("n", "classes"), [(300, 10), (57, 3), (1, 2)])
def test_scores_agree_with_scikit_learn(n, classes):
    logits, labels = drawn(n, classes)
    found = scored(logits, labels)
    p = torch.softmax(logits.double(), dim=1).numpy()
    predicted = p.argmax(axis=1)
    assert found["n"] == n
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, predicted), abs=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a class is predicted and absent
        balanced = balanced_accuracy_score(labels, predicted)
    assert found["class_mean"] == pytest.approx(balanced, abs=1e-6)
    expected = log_loss(labels, p, labels=range(classes))
    assert found["cross_entropy"] == pytest.approx(expected, rel=1e-5)


def test_a_class_that_is_predicted_but_absent_does_not_count():
    labels = torch.tensor([0, 0, 1, 1])
    predicted = torch.tensor([0, 2, 1, 1])  # class 2 is absent, class 3 absent and never predicted
    found = scored(10 * torch.eye(4)[predicted], labels)
    assert found["accuracy"] == 0.75
    assert found["class_mean"] == 0.75  # of classes 0 and 1; over three it would be 0.5
    assert scored(10 * torch.eye(4)[predicted[:2]], labels[:2])["class_mean"] == 0.5


def test_classes_come_one_by_one_and_an_absent_one_has_no_accuracy():
    labels = torch.tensor([0, 0, 1, 1])
    found = scored(10 * torch.eye(4)[torch.tensor([0, 2, 1, 1])], labels, by_class=True)
    assert found["per_class"] == {"a": 0.5, "b": 1.0, "c": None, "d": None}
    assert found["confusion"] == {"a": {"a": 1, "c": 1}, "b": {"b": 2}}


def test_a_stream_without_labels_has_a_number_of_images_and_no_accuracy():
    logits, _ = drawn(7, 3)
    assert scored(logits, None) == scored(logits, None, by_class=True) == {"n": 7}


def test_the_class_mean_is_not_the_sample_mean():
    labels = torch.tensor([0] * 9 + [1])
    found = scored(10 * torch.eye(2)[torch.zeros(10, dtype=int)], labels)
    assert found["accuracy"] == pytest.approx(0.9)
    assert found["class_mean"] == 0.5


@pytest.fixture(scope="module")
def data():
    return Digits(batch_size=16, steps_per_epoch=4)


def module_of(norm="bn", **kwargs):
    return SourceOnly(**{"num_classes": 10, "bottleneck": 16, "norm": norm, "seed": 1} | kwargs)


def test_prediction_covers_every_image_once_in_evaluation_mode(data):
    module = module_of(backbone="dtn").train()  # with dropout
    before = {k: v.clone() for k, v in module.state_dict().items()}
    loader = data.test_dataloader()[1]
    found = predict_stream(module, loader)
    assert module.training
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert np.array_equal(found.labels.numpy(), data.set_of("target", "test").labels)
    images = torch.cat([batch.images for batch in loader])
    with torch.no_grad():
        out = module.eval().activations(images)
    torch.testing.assert_close(found.logits, out.logits, rtol=1e-4, atol=1e-5)
    deviation = out.features.numpy().std(axis=0).mean()
    assert found.deviation == pytest.approx(deviation, rel=1e-4)


def test_a_cpu_evaluates_in_pieces_and_channels_last_with_the_same_results(monkeypatch):
    monkeypatch.setattr(acceleration, "EVALUATION_PIXELS", 4 * 32 * 32)
    module, images = module_of(), torch.randn(10, 3, 32, 32)
    module.network.taps = ("backbone.stem",)
    seen = []
    module.network.backbone.register_forward_hook(lambda part, x, out: seen.append(x[0]))
    with evaluating(module):
        expected = module.network(images)
        found = module.activations(images)
    assert [len(x) for x in seen] == [10, 4, 4, 2]
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen[1:])
    assert torch.equal(torch.cat(seen[1:]), images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    # In training mode batch norm needs the whole batch, with or without gradients.
    seen.clear()
    with torch.no_grad():
        torch.testing.assert_close(module.activations(images), module.network(images))
    assert [len(x) for x in seen] == [10, 10]
    assert all(x is images for x in seen)


@pytest.mark.parametrize(("size", "pieces"), [(32, [128, 72]), (128, [8] * 25), (512, [1] * 200)])
def test_a_piece_has_so_many_pixels_whatever_the_size_of_its_images(size, pieces):
    images = torch.empty(1, 1, size, size).expand(200, 1, size, size)
    assert [len(piece) for piece in acceleration.evaluation_pieces(images)] == pieces
    on_device = images.to("meta")
    assert acceleration.evaluation_pieces(on_device) == (on_device,)


def test_evaluating_restores_the_mode_also_after_an_error():
    module = module_of()
    seen = []

    def fail():
        with evaluating(module):
            seen.extend([module.training, torch.is_grad_enabled()])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [False, False]
    assert module.training
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("form", FORMS)
def test_a_form_changes_statistics_alone_and_is_undone(form, data):
    module = module_of()
    for layer in batch_norms(module).values():
        layer.running_mean.uniform_(-1, 1)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    modes = {name: m.training for name, m in module.named_modules()}
    with restated_statistics(module, data, form):
        inside = {k: v.clone() for k, v in module.state_dict().items()}
    changed = {k for k in before if not torch.equal(before[k], inside[k])}
    means = {f"{name}.running_mean" for name in batch_norms(module)}
    statistics = {k for k in before if k.split(".")[-1] in ("running_mean", "running_var")}
    assert means <= changed
    assert {k for k in changed if "num_batches" not in k} <= statistics
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert modes == {name: m.training for name, m in module.named_modules()}


def test_the_form_of_a_domain_has_the_statistics_of_that_domain(data):
    module = module_of()
    first = module.network.backbone.stem[0]
    for form, role in FORMS.items():
        images = torch.cat(list(data.images(role, "train")))
        with torch.no_grad():
            maps = copy.deepcopy(first)(images).transpose(0, 1).flatten(1)
        with restated_statistics(module, data, form):
            layer = module.network.backbone.stem[1]
            torch.testing.assert_close(layer.running_mean, maps.mean(1), rtol=1e-3, atol=1e-3)
            # Averages over batches of the variance within each: close to that of all images.
            torch.testing.assert_close(layer.running_var, maps.var(1), rtol=0.05, atol=1e-3)


def test_statistics_of_a_domain_are_of_batches_that_mix_its_classes(monkeypatch):
    asked = []

    class Data(Digits):
        classes_in_turn = False

        def images(self, role, split="train", mixed=False):
            asked.append((role, split, mixed))
            return super().images(role, split, mixed)

    data = Data(batch_size=8)
    data.setup("fit")
    module = module_of()
    with restated_statistics(module, data, "target-stats"):
        mixed = module.network.backbone.stem[1].running_var.clone()
    assert asked == [("target", "train", True)]
    monkeypatch.setattr(Data, "classes_in_turn", True)
    with restated_statistics(module, data, "target-stats"):
        in_turn = module.network.backbone.stem[1].running_var.clone()
    assert not mixed.equal(in_turn)
    torch.testing.assert_close(mixed, in_turn, rtol=0.05, atol=1e-3)


class Noting(DomainLayer):
    """Notes the domains that it is told of."""

    def __init__(self):
        super().__init__()
        self.told = set()

    def forward(self, x):
        self.told |= {part.domain for part in self.domains}
        return x


@pytest.mark.parametrize("form", FORMS)
def test_the_network_is_told_of_which_domain_the_images_are(form, data):
    module = module_of()
    noting = Noting()
    module.network.bottleneck.append(noting)
    with restated_statistics(module, data, form):
        assert noting.told == {FORMS[form]}
    noting.told.clear()
    with restated_statistics(module, data, "", images=[torch.randn(2, 3, 32, 32)]):
        assert noting.told == {"target"}
    for role, loader in zip(("source", "target"), data.test_dataloader(), strict=True):
        noting.told.clear()
        predict_stream(module, loader, role)
        assert noting.told == {role}


def test_a_last_image_alone_is_joined_to_the_batch_before_with_its_domain():
    images = torch.arange(6.0)[:, None]
    of = {1: (Segment("target", 1),), 2: (Segment("source", 2),), 3: (Segment("source", 3),)}
    batches = [(x, of[len(x)]) for x in images.split([3, 2, 1])]
    (first, _), (last, domains) = join_single_images(batches)
    assert first.flatten().tolist() == [0, 1, 2]
    assert last.flatten().tolist() == [3, 4, 5]
    assert domains == (Segment("source", 2), Segment("target", 1))


def test_evaluating_leaves_every_part_in_its_own_mode():
    module = module_of().train()
    module.network.backbone.eval()
    modes = [part.training for part in module.modules()]
    with evaluating(module):
        assert not any(part.training for part in module.modules())
    assert [part.training for part in module.modules()] == modes
    assert len(set(modes)) == 2


def run(module, data, *callbacks, epochs=2):
    trainer = MethodTrainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=1,
        callbacks=list(callbacks),
    )
    trainer.fit(module, datamodule=data)
    return trainer


def information(logits):
    """Mutual information of images and predicted classes, in nats."""
    p = torch.softmax(logits.double(), dim=1).numpy()
    return entropy(p.mean(0)) - entropy(p, axis=1).mean()


STREAMS = ["source/validation", "target/validation", "source/test", "target/test"]


def check_progress(parts, data, forms):
    """An image that is trained on counts 3, one that goes through the network in evaluation 1."""
    shown = [len(data.set_of(*name.split("/"))) for name in STREAMS]
    restated = [len(data.set_of(role, "train")) for role in ("source", "target")]
    evaluation = forms * sum(shown) + (sum(restated) if forms > 1 else 0)
    total = 2 * (4 * 3 * 32 + evaluation)
    step = 3 * 32 / total
    assert parts[:4] == pytest.approx([step * i for i in (1, 2, 3, 4)])
    # Batches of 256: no piece of an evaluation is larger, and none is passed over in silence.
    rises = np.diff(parts)
    assert rises.min() >= 0
    assert rises.max() <= 256 / total + 1e-9
    second = next(i for i, part in enumerate(parts) if part > 0.5 + step / 2)
    assert parts[second - 1] == pytest.approx(0.5)
    assert parts[second] == pytest.approx(0.5 + step)
    assert parts[-2] == pytest.approx(1.0)  # the run ends when its last evaluation does, not before
    assert parts[-1] == 1.0
    before_the_last = pytest.approx(1 - evaluation / total)  # where it would have stood at 100 %
    assert any(part == before_the_last for part in parts)


@pytest.mark.parametrize("norm", ["bn", "wa", "wa+bn"])
def test_the_recorder_scores_every_stream_in_every_form_after_every_epoch(norm):
    data, parts = Digits(batch_size=16, steps_per_epoch=4), []
    recorder = Recorder(score_names=["InformationMaximisation"])
    module = module_of(norm)
    run(module, data, recorder, ProgressTicks(parts.append))
    check_progress(parts, data, forms=3 if "bn" in norm else 1)
    assert [(e["epoch"], e["step"]) for e in recorder.history] == [(1, 4), (2, 8)]
    forms = ["", *FORMS] if "bn" in norm else [""]
    for entry in recorder.history:
        assert list(entry["forms"]) == forms
        assert all(list(streams) == STREAMS for streams in entry["forms"].values())
        for name in STREAMS:
            role, split = name.split("/")
            assert entry["forms"][""][name]["n"] == len(data.set_of(role, split))
    # The last entry is what the trained network gives now, in each form.
    for form in forms:
        with restated_statistics(module, data, form):
            for name, loader in zip(STREAMS, data.val_dataloader(), strict=True):
                p = predict_stream(module, loader, name.partition("/")[0])
                expected = score_predictions(p, data.classes)
                found = dict(recorder.history[-1]["forms"][form][name])
                by_class = found.pop("per_class", None)
                confusion = found.pop("confusion", None)
                assert (by_class is not None) == (confusion is not None) == (name == "target/test")
                if confusion:  # of the last evaluation alone
                    assert sum(sum(row.values()) for row in confusion.values()) == found["n"]
                    assert "confusion" not in recorder.history[0]["forms"][form][name]
                label_free = found.pop("label_free", None)
                assert (label_free is not None) == (name == "target/validation")
                if label_free:
                    expected_score = pytest.approx(information(p.logits), abs=1e-4)
                    assert label_free == {"InformationMaximisation": expected_score}
                assert found == pytest.approx(expected, rel=1e-4, abs=1e-5), (form, name)
    if "bn" in norm:
        last = recorder.history[-1]["forms"]
        assert last["source-stats"]["target/test"] != last["target-stats"]["target/test"]
    assert len(recorder.lr_over_norm2) == 2
    assert recorder.feature_deviation > 0
    assert set(recorder.seconds) == {"training", "evaluation"}
    assert min(recorder.seconds.values()) > 0


def test_the_forms_can_be_left_out_and_evaluation_changes_no_training():
    states = []
    for forms in (True, False):
        recorder, module = Recorder(forms=forms), module_of()
        run(module, Digits(batch_size=16, steps_per_epoch=4), recorder)
        states.append(module.state_dict())
        assert list(recorder.history[0]["forms"]) == (["", *FORMS] if forms else [""])
    assert all(torch.equal(a, b) for a, b in zip(*map(dict.values, states), strict=True))


class Spoil(L.Callback):
    def on_train_batch_end(self, trainer, pl_module, *args):
        pl_module.network.classifier.weight.data.fill_(float("inf"))


def test_predictions_that_are_not_finite_are_diverged():
    recorder = Recorder()
    data = Digits(batch_size=16, steps_per_epoch=1)
    with pytest.raises(Diverged, match=r"predictions after step 1 are not finite; lower the l"):
        run(module_of(), data, recorder, Spoil())
    assert recorder.history == []


class Mirrored(Score):
    """A score that makes images of its own."""

    def __call__(self, evidence):
        images = [batch for batch, _ in evidence.images(None)]
        assert sum(map(len, images)) == len(evidence.target.logits)
        again = evidence.logits(images)
        torch.testing.assert_close(again, evidence.target.logits, rtol=1e-4, atol=1e-5)
        mixed, places = zip(*evidence.images(3), strict=True)
        expected = evidence.target.logits[torch.cat(places)]
        torch.testing.assert_close(evidence.logits(mixed), expected, rtol=1e-4, atol=1e-5)
        assert sorted(torch.cat(places).tolist()) == list(range(len(expected)))
        assert not torch.equal(expected, evidence.target.logits)
        turned = evidence.logits(x.flip(3) for x in images)
        return -(turned - again).abs().mean().item()


def test_a_score_may_look_at_images_and_have_others_predicted(monkeypatch):
    monkeypatch.setattr("da.engine.label_free.find_score", lambda name: Mirrored())
    recorder = Recorder(forms=False, score_names=["Mirrored"])
    module = small(SourceOnly, norm="wa")
    run(module, digits(), recorder, epochs=1)
    streams = recorder.history[0]["forms"][""]
    assert streams["target/validation"]["label_free"]["Mirrored"] < -1e-4
