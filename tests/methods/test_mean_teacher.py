"""Mean teacher: its losses against numpy, its average, and which network sees which view."""

import copy
import math

import numpy as np
import pytest
import pytorch_lightning as L
import torch
from scipy.special import softmax
from short_runs import digits, fit, small

from da.errors import UserError
from da.methods.mean_teacher import MeanTeacher, balance_loss, consistency_loss
from da.methods.pseudo_labels import confidence_mask
from da.networks.backbones.base import build_backbone
from da.types import Batch, Unlabelled


def teacher(**options):
    module = MeanTeacher(**{"num_classes": 10, "bottleneck": 16} | options)
    module.prepare()
    return module


def logits(seed, scale=4.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(12, 5, generator=generator, dtype=torch.float64)


# Losses.


def test_consistency_and_balance_agree_with_numpy():
    student, other = logits(0), logits(1)
    p, q = softmax(student.numpy(), axis=1), softmax(other.numpy(), axis=1)
    sure = (q.max(axis=1) > 0.9).astype(float)
    assert 0 < sure.sum() < len(sure)
    mask = confidence_mask(other, 0.9)
    np.testing.assert_array_equal(mask.numpy(), sure)
    expected = np.mean([m * np.mean((a - b) ** 2) for m, a, b in zip(sure, p, q, strict=True)])
    assert consistency_loss(student, other, mask).item() == pytest.approx(expected, rel=1e-12)
    mean = p.mean(axis=0)
    entropies = [-0.2 * np.log(x + 1e-6) - 0.8 * np.log(1 - x + 1e-6) for x in mean]
    expected = sum(entropies) * sure.mean()
    assert balance_loss(student, mask).item() == pytest.approx(expected, rel=1e-12)


def test_the_balance_is_least_where_the_mean_prediction_is_uniform():
    ones = torch.ones(12, dtype=torch.float64)
    even = balance_loss(torch.zeros(12, 5, dtype=torch.float64), ones)
    assert even < balance_loss(logits(0), ones)


# The average.


class Students(L.Callback):
    """Student and teacher before training, and after each of its batches."""

    def __init__(self):
        self.states = []

    def note(self, module):
        pair = (module.network.state_dict(), module.teacher.state_dict())
        self.states.append(copy.deepcopy(pair))

    def on_train_start(self, trainer, pl_module):
        self.note(pl_module)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.note(pl_module)


@pytest.mark.parametrize("norm", ["bn", "wa", "gn", "dsbn"])
def test_the_teacher_begins_as_its_student_and_is_the_average_of_all_of_them(norm, tmp_path):
    """After the conversion of pretrained weights, which changes the student."""
    path = tmp_path / "digits_resnet.pth"
    torch.save(build_backbone("digits_resnet").state_dict(), path)
    options = {"norm": norm, "weights": str(path), "conversion_images": 32, "confidence": 0.0}
    module = MeanTeacher(10, bottleneck=16, **options)
    start = copy.deepcopy(module.network.state_dict())
    seen = Students()
    fit(module, callbacks=[seen])
    student, first = seen.states[0]
    assert list(student) == list(first)
    assert all(torch.equal(first[name], value) for name, value in student.items())
    converted = any(not torch.equal(start[name], value) for name, value in student.items())
    assert converted == (norm == "wa")
    trained = [name for name, _ in module.network.named_parameters()]
    for name in trained:
        students = torch.stack([pair[0][name] for pair in seen.states]).double()
        for step, (_, ours) in enumerate(seen.states):
            expected = students[: step + 1].mean(dim=0)
            torch.testing.assert_close(ours[name].double(), expected, rtol=1e-4, atol=1e-6)
    assert not [n for n in trained if torch.equal(seen.states[-1][0][n], seen.states[0][0][n])]


def test_the_teacher_takes_no_gradient_and_is_what_is_evaluated():
    module = teacher()
    names = {id(p) for p in module.teacher.parameters()}
    fit(module)
    trained = [p for group in module.optimizers().param_groups for p in group["params"]]
    assert not names & {id(p) for p in trained}
    assert all(p.grad is None for p in module.teacher.parameters())
    assert module.evaluated() is module.teacher
    module.eval()
    x = torch.randn(4, 3, 32, 32)
    assert torch.equal(module(x), module.teacher(x).logits)
    assert not torch.equal(module(x), module.network(x).logits)


def test_under_domain_specific_norms_the_teachers_source_statistics_follow_the_students():
    """It forwards no source image itself."""
    module = teacher(norm="dsbn")
    before = {n: b.clone() for n, b in module.teacher.named_buffers() if ".source.running" in n}
    fit(module, digits(batch_size=8))
    after = dict(module.teacher.named_buffers())
    assert before
    assert not [n for n, b in before.items() if torch.equal(after[n], b)]


@pytest.mark.parametrize("norm", ["bn", "dsbn"])
def test_a_resumed_run_has_the_same_student_teacher_and_statistics(norm, tmp_path):
    class Stop(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = True

    whole, half, rest = (
        MeanTeacher(10, bottleneck=16, norm=norm, ramp_up=0.5, seed=1) for _ in range(3)
    )
    fit(whole, epochs=2)
    fit(half, folder=tmp_path, epochs=2, callbacks=[Stop()])
    fit(rest, epochs=2, ckpt_path=tmp_path / "last.ckpt")
    ended = rest.state_dict()
    assert any(name.startswith("teacher.") for name in ended)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, ended[name]), name
    assert not all(torch.equal(value, ended[name]) for name, value in half.state_dict().items())


# Which images go where, and when they count.


@pytest.mark.parametrize("mode", ["joint", "separate"])
def test_the_student_sees_source_and_strong_view_and_the_teacher_the_weak_one(mode):
    module = teacher(forward_mode=mode)
    calls, batches = [], []
    for name in ("network", "teacher"):
        getattr(module, name).register_forward_pre_hook(
            lambda m, x, name=name: calls.append((name, x[0].clone(), m.training))
        )

    class Batches(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            batches.append(batch)

    fit(module, digits(steps_per_epoch=1), callbacks=[Batches()])
    (batch,) = batches
    weak, strong = batch.target.views
    assert not torch.equal(weak, strong)
    source = batch.source.images
    student = [torch.cat([source, strong])] if mode == "joint" else [source, strong]
    expected = [*(("network", x) for x in student), ("teacher", weak)]
    assert [name for name, _, _ in calls] == [name for name, _ in expected]
    assert all(torch.equal(a, b) for (_, a, _), (_, b) in zip(calls, expected, strict=True))
    assert all(training for _, _, training in calls)


def two_views(batch):
    images = batch.target.images
    return Batch(batch.source, Unlabelled((images, 1.1 * images), batch.target.indices))


def test_where_the_teacher_is_unsure_the_target_does_not_count(batch, fake_trainer):
    module = teacher(num_classes=4, confidence=0.9999)
    trainer = fake_trainer(module)
    terms = module.losses(two_views(batch))
    assert terms["consistency"].item() == terms["balance"].item() == 0
    assert trainer.logged["teacher/confident"].item() == 0
    module.hparams["confidence"] = 0.0
    terms = module.losses(two_views(batch))
    assert terms["consistency"].item() > 0
    assert trainer.logged["teacher/confident"].item() == 1
    module.hparams["class_balance"] = 0.0
    assert set(module.losses(two_views(batch))) == {"task", "consistency"}


def test_the_weight_rises_to_the_trade_off_within_the_ramp(batch, fake_trainer):
    module = teacher(num_classes=4, confidence=0.0, ramp_up=0.5, trade_off=2.0)
    module.network.eval()
    module.teacher.eval()  # the same outputs at every step
    trainer = fake_trainer(module, steps=100)
    found = {}
    for step in (0, 25, 50, 90):
        trainer.step = step
        found[step] = module.losses(two_views(batch))["consistency"].item()
    full = found[90]
    assert full > 0
    expected = {0: math.exp(-5), 25: math.exp(-1.25), 50: 1.0, 90: 1.0}
    assert {s: x / full for s, x in found.items()} == pytest.approx(expected, rel=1e-5)
    module.hparams["trade_off"] = 1.0
    assert module.losses(two_views(batch))["consistency"].item() == pytest.approx(full / 2)


@pytest.mark.parametrize(
    "options", [{"teacher_alpha": 1.0}, {"confidence": 1.0}, {"ramp_up": 1.5}, {"ramp_up": -0.1}]
)
def test_values_that_make_no_sense_are_refused_by_name(options):
    (name, value), *_ = options.items()
    with pytest.raises(UserError, match=f"{name}: expected .* got {value}"):
        MeanTeacher(10, **options)


def test_a_training_that_starts_from_its_checkpoint_starts_from_the_teacher(tmp_path):
    before = small(MeanTeacher, seed=1)
    fit(before, digits(), tmp_path)
    now = small(MeanTeacher, seed=2, weights=str(tmp_path / "last.ckpt"))
    teacher, student = before.teacher.backbone.state_dict(), before.network.backbone.state_dict()
    for name, value in now.network.backbone.state_dict().items():
        assert torch.equal(value, teacher[name]), name
    assert any(not torch.equal(value, student[name]) for name, value in teacher.items())
