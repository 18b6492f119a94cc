"""AdaMatch: its loss against numpy, what is interpolated, which statistics move, its average."""

import copy

import numpy as np
import pytest
import pytorch_lightning as L
import torch
from scipy.special import log_softmax, softmax
from short_runs import digits, fit, small
from torch import nn

from da.errors import UserError
from da.methods.adamatch import AdaMatch, align_distribution, interpolate_logits
from da.types import Batch, Labelled, Unlabelled


def made(**options):
    module = AdaMatch(**{"num_classes": 4, "bottleneck": 16} | options)
    module.prepare()
    return module


def four_views(batch, shift=0.0, size=None):
    """Weak and strong views of both domains, the target's fewer where a size is given."""
    source, target = batch.source.images + shift, batch.target.images[:size] - shift
    return Batch(
        Labelled((source, 0.5 * source + 0.3), batch.source.labels, batch.source.indices),
        Unlabelled((target, 1.5 - target), batch.target.indices[:size]),
    )


# The loss.


class Reference:
    """AdaMatch's loss in numpy and float64, by loops over samples and classes."""

    def __init__(self, classes, threshold, source_decay, window):
        self.threshold, self.source_decay = threshold, source_decay
        self.source = [1 / classes] * classes
        self.targets = [[1 / classes] * classes for _ in range(window)]

    def task_and_target(self, z1, z2, u, labels, weak, strong):
        z = [
            [b + v * (a - b) for a, b, v in zip(*rows, strict=True)]
            for rows in zip(z1, z2, u, strict=True)
        ]
        task = -np.mean([log_softmax(row)[y] for row, y in zip(z, [*labels, *labels], strict=True)])
        p = [softmax(row) for row in z[: len(labels)]]
        q = [softmax(row) for row in weak]
        self.targets = [*self.targets[1:], [sum(k) / len(q) for k in zip(*q, strict=True)]]
        target = [sum(k) / len(self.targets) for k in zip(*self.targets, strict=True)]
        for k in range(len(target)):
            mean = sum(row[k] for row in p) / len(p)
            self.source[k] += (1 - self.source_decay) * (mean - self.source[k])
        limit = self.threshold * sum(max(row) for row in p) / len(p)
        total, self.sure = 0.0, 0
        for row, other in zip(q, strong, strict=True):
            weighted = [
                x * (1e-6 + s) / (1e-6 + t)
                for x, s, t in zip(row, self.source, target, strict=True)
            ]
            if max(weighted) / sum(weighted) >= limit:
                self.sure += 1
                total -= log_softmax(other)[int(np.argmax(weighted))]
        return task, total / len(q)


@pytest.mark.parametrize("size", [8, 5, 1])
@pytest.mark.parametrize(("source_decay", "window"), [(0.0, 1), (0.6, 3)])
def test_losses_of_several_batches_agree_with_a_naive_reference(
    source_decay, window, size, batch, fake_trainer
):
    options = {"threshold": 0.95, "source_decay": source_decay, "target_window": window}
    module = made(**options, trade_off=0.8, ramp_up=0.5)
    trainer = fake_trainer(module, steps=100)
    trainer.step = 12.5
    reference, sure = Reference(4, 0.95, source_decay, window), []
    for step in range(5):
        both = four_views(batch, 0.1 * step, size)
        source, target = torch.cat(both.source.views), torch.cat(both.target.views)
        twin = copy.deepcopy(module.network)
        with torch.no_grad():
            alone = twin(source, "source").logits
            joint = twin(torch.cat([source, target])).logits
        torch.manual_seed(step)
        u = torch.rand(16, 4)
        torch.manual_seed(step)
        terms = module.losses(both)
        z1, z = alone.double().numpy(), joint.double().numpy()
        weak, strong = np.split(z[16:], 2)
        task, loss = reference.task_and_target(
            z1, z[:16], u.double().numpy(), both.source.labels.tolist(), weak, strong
        )
        sure.append(reference.sure / size)
        assert terms["task"].item() == pytest.approx(task, rel=1e-4)
        # mu is 1/2 - cos(pi / 4) / 2 at an eighth of the run.
        weight = 0.8 * (0.5 - np.sqrt(0.5) / 2)
        assert terms["pseudo_labels"].item() == pytest.approx(weight * loss, rel=1e-4)
        assert trainer.logged["pseudo_labels/confident"].item() == pytest.approx(sure[-1])
        gap = np.mean((z[:16] - z1) ** 2)
        assert trainer.logged["batch_dependence"].item() == pytest.approx(gap, rel=1e-3)
    assert np.mean(sure) > 0
    assert size == 1 or np.mean(sure) < 1
    assert module.source_mean.tolist() == pytest.approx(reference.source, rel=1e-4)
    assert module.target_means.flatten().tolist() == pytest.approx(
        np.ravel(reference.targets).tolist(), rel=1e-4
    )


def test_interpolated_logits_go_from_joint_to_alone():
    joint, alone = torch.tensor([[1.0, 2.0, -4.0]]), torch.tensor([[3.0, 0.0, 4.0]])
    shares = torch.tensor([[0.0, 0.5, 0.75]])
    assert interpolate_logits(joint, alone, shares).tolist() == [[1.0, 1.0, 2.0]]


def test_equal_means_align_nothing_and_others_move_predictions_towards_the_source():
    q = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]], dtype=torch.float64)
    mean = q.mean(dim=0)
    torch.testing.assert_close(align_distribution(q, mean, mean), q)
    rare = align_distribution(q, torch.tensor([0.1, 0.8, 0.1]).double(), mean)
    assert (rare[:, 1] > q[:, 1]).all()
    torch.testing.assert_close(rare.sum(dim=1), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("source", [[0.0, 1.0], [1.0, 0.0]])
def test_classes_that_are_never_predicted_leave_probabilities(source):
    q = torch.tensor([[1.0, 0.0]])
    aligned = align_distribution(q, torch.tensor(source), torch.tensor([1.0, 0.0]))
    assert aligned.tolist() == [[1.0, 0.0]]


def test_a_threshold_of_0_counts_all_and_a_sure_source_asks_for_more(batch):
    module = made(source_decay=0.0, target_window=1, threshold=0.0)
    unsure = torch.tensor([[0.3, 0.0, 0.0, 0.0], [0.0, 0.3, 0.0, 0.0]])
    assert module.pseudo_labels(unsure, unsure)[1].tolist() == [1.0, 1.0]
    module.hparams["threshold"] = 1.0
    assert module.pseudo_labels(unsure, unsure)[1].tolist() == [1.0, 1.0]
    assert module.pseudo_labels(20 * unsure, unsure)[1].tolist() == [0.0, 0.0]


def test_pseudo_labels_take_no_gradient(batch, fake_trainer):
    """Without batch statistics nothing leads from the target's loss to other views."""
    module = made(norm="wa", threshold=0.0, ramp_up=0.0)
    fake_trainer(module)
    both = four_views(batch)
    views = [x.clone().requires_grad_() for x in (*both.source.views, *both.target.views)]
    with_gradients = Batch(
        both.source._replace(views=tuple(views[:2])), both.target._replace(views=tuple(views[2:]))
    )
    module.losses(with_gradients)["pseudo_labels"].backward()
    assert [x.grad is not None and bool(x.grad.any()) for x in views] == [False, False, False, True]


def test_both_ways_to_the_sources_logits_take_gradients(batch, fake_trainer, monkeypatch):
    module = made(norm="bn")
    fake_trainer(module)
    norms = {}
    for share in (0.0, 0.5, 1.0):
        monkeypatch.setattr(torch, "rand_like", lambda x, share=share: torch.full_like(x, share))
        module.zero_grad()
        module.losses(four_views(batch))["task"].backward()
        norms[share] = module.network.classifier.weight.grad.clone()
    assert all(gradient.isfinite().all() for gradient in norms.values())
    assert not torch.allclose(norms[0.0], norms[1.0], rtol=1e-3)
    assert not torch.allclose(norms[0.5], norms[1.0], rtol=1e-3)


# The two forward passes.


class Batches(L.Callback):
    """The last batch, and what was logged of it."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.batch, self.logged = batch, dict(trainer.logged_metrics)


@pytest.mark.parametrize(
    ("norm", "depends"), [("wa", False), ("gn", False), ("dsbn", False), ("bn", True)]
)
def test_logits_depend_on_the_batch_with_batch_norm_alone(norm, depends):
    seen = Batches()
    fit(small(AdaMatch, norm=norm), digits(batch_size=8), callbacks=[seen])
    gap = float(seen.logged["batch_dependence"])
    assert gap > 1e-4 if depends else gap < 1e-9


def test_the_batch_of_both_domains_alone_moves_running_statistics(batch, fake_trainer):
    module = made(norm="bn")
    fake_trainer(module)
    both = four_views(batch)
    twin = copy.deepcopy(module.network)
    twin(torch.cat([*both.source.views, *both.target.views]))
    sum(module.losses(both).values()).backward()
    expected = dict(twin.named_buffers())
    assert len(expected) > 3
    for name, value in module.network.named_buffers():
        assert torch.equal(value, expected[name]), name
    layers = [m for m in module.network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(layer.track_running_stats for layer in layers)


@pytest.mark.parametrize("mode", ["joint", "separate"])
def test_which_images_are_forwarded_together(mode):
    module = AdaMatch(10, bottleneck=16, forward_mode=mode)
    seen, last = [], Batches()
    module.network.register_forward_pre_hook(lambda m, x: seen.append((m.training, x[0].clone())))
    fit(module, digits(steps_per_epoch=1), callbacks=[last])
    source, target = (torch.cat(domain.views) for domain in last.batch)
    assert len(last.batch.source.views) == len(last.batch.target.views) == 2
    second = torch.cat([source, target]) if mode == "joint" else target
    assert all(torch.equal(x, y) for (_, x), y in zip(seen, [source, second], strict=True))
    assert all(training for training, _ in seen)
    assert ("batch_dependence" in last.logged) == (mode == "joint")


# What a run is made of.


@pytest.mark.parametrize("norm", ["bn", "wa"])
def test_a_resumed_run_draws_the_same_interpolations(norm, tmp_path):
    class Stop(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = True

    whole, half, rest = (small(AdaMatch, norm=norm, seed=1) for _ in range(3))
    fit(whole, epochs=2)
    fit(half, folder=tmp_path, epochs=2, callbacks=[Stop()])
    fit(rest, epochs=2, ckpt_path=tmp_path / "last.ckpt")
    ended = rest.state_dict()
    assert {"source_mean", "target_means"} <= set(ended)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, ended[name]), name
    assert not all(torch.equal(value, ended[name]) for name, value in half.state_dict().items())


def test_the_average_is_evaluated_and_with_a_decay_of_0_the_network_itself():
    for decay in (0.999, 0.0):
        module = small(AdaMatch, ema_decay=decay, norm="bn")
        fit(module)
        assert module.evaluated() is module.teacher
        pairs = zip(module.teacher.parameters(), module.network.parameters(), strict=True)
        assert all(torch.equal(a, b) == (decay == 0.0) for a, b in pairs)


def test_the_targets_loss_begins_at_0_and_has_its_full_weight_from_half_of_the_run(
    batch, fake_trainer
):
    module = made(norm="wa", threshold=0.0, source_decay=0.0, target_window=1)
    trainer = fake_trainer(module, steps=100)
    found = {}
    for step in (0, 25, 50, 90):
        trainer.step = step
        found[step] = module.losses(four_views(batch))["pseudo_labels"].item()
    assert found[90] > 0
    shares = {step: loss / found[90] for step, loss in found.items()}
    assert shares == pytest.approx({0: 0, 25: 0.5, 50: 1, 90: 1}, rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"trade_off": -1.0},
        {"threshold": 1.1},
        {"ramp_up": -0.1},
        {"ema_decay": 1.0},
        {"source_decay": -0.5},
        {"target_window": 0},
    ],
)
def test_values_that_make_no_sense_are_refused_by_name(options):
    ((name, value),) = options.items()
    with pytest.raises(UserError, match=f"{name}: expected .* got {value}"):
        AdaMatch(10, **options)
