"""FixMatch: its losses against numpy, which views are forwarded how, and where gradients go."""

import numpy as np
import pytest
import pytorch_lightning as L
import torch
from scipy.special import log_softmax, softmax
from short_runs import digits, fit

from da.errors import UserError
from da.methods.fixmatch import FixMatch
from da.types import Batch, Unlabelled


def made(**options):
    module = FixMatch(**{"num_classes": 4, "bottleneck": 16} | options)
    module.prepare()
    return module


def two_views(batch, size=None):
    images = batch.target.images[:size]
    return Batch(batch.source, Unlabelled((images, 1.5 - images), batch.target.indices[:size]))


@pytest.mark.parametrize("size", [8, 3, 1])
def test_losses_agree_with_numpy(size, batch, fake_trainer):
    """Of batches of one size and of another."""
    module = made(norm="wa", trade_off=0.7)
    trainer = fake_trainer(module)
    both = two_views(batch, size)
    views = (both.source.images, *both.target.views)
    source, weak, strong = (module.network(x).logits.detach().double().numpy() for x in views)
    confidences = softmax(weak, axis=1).max(axis=1)
    module.hparams["threshold"] = threshold = float(np.median(confidences)) - 1e-4
    terms = module.losses(both)
    sure = (confidences > threshold).astype(float)
    assert trainer.logged["pseudo_labels/confident"].item() == pytest.approx(sure.mean())
    task = -np.mean([log_softmax(z)[y] for z, y in zip(source, both.source.labels, strict=True)])
    pairs = zip(weak, strong, strict=True)
    each = [-m * log_softmax(s)[np.argmax(w)] for m, (w, s) in zip(sure, pairs, strict=True)]
    assert terms["task"].item() == pytest.approx(task, rel=1e-5)
    assert terms["pseudo_labels"].item() == pytest.approx(0.7 * np.mean(each), rel=1e-5)


def test_where_nothing_is_sure_the_target_does_not_count(batch, fake_trainer):
    module = made(threshold=0.9999)
    trainer = fake_trainer(module)
    assert module.losses(two_views(batch))["pseudo_labels"].item() == 0
    assert trainer.logged["pseudo_labels/confident"].item() == 0


def test_pseudo_labels_take_no_gradient(batch, fake_trainer):
    """Without batch statistics nothing leads from the loss to the weak view."""
    module = made(norm="wa", threshold=0.0)
    fake_trainer(module)
    both = two_views(batch)
    weak, strong = (view.clone().requires_grad_() for view in both.target.views)
    terms = module.losses(both._replace(target=Unlabelled((weak, strong), both.target.indices)))
    terms["pseudo_labels"].backward()
    assert strong.grad.abs().max() > 0
    assert weak.grad is None or weak.grad.abs().max() == 0


@pytest.mark.parametrize("mode", ["joint", "separate"])
def test_all_three_views_are_one_batch_or_three(mode):
    module = FixMatch(10, bottleneck=16, forward_mode=mode)
    seen, batches = [], []
    module.network.register_forward_pre_hook(lambda m, x: seen.append((m.training, x[0].clone())))

    class Batches(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            batches.append(batch)

    fit(module, digits(steps_per_epoch=1), callbacks=[Batches()])
    (batch,) = batches
    weak, strong = batch.target.views
    assert not torch.equal(weak, strong)
    views = [weak, batch.source.images, strong]
    expected = [torch.cat(views)] if mode == "joint" else views
    assert all(torch.equal(x, y) for (_, x), y in zip(seen, expected, strict=True))
    assert all(training for training, _ in seen)


@pytest.mark.parametrize("options", [{"threshold": 1.0}, {"threshold": -0.1}, {"trade_off": -1.0}])
def test_values_that_make_no_sense_are_refused_by_name(options):
    ((name, value),) = options.items()
    with pytest.raises(UserError, match=f"{name}: expected .* got {value}"):
        FixMatch(10, **options)
