"""The module that all methods share: surgery, optimiser, schedule, errors, resume."""

import math
import re

import pytest
import pytorch_lightning as L
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from da.engine.evaluation import Recorder
from da.engine.trainer import MethodTrainer
from da.errors import Diverged, UserError
from da.methods.base import Sharpness, Step
from da.methods.dann import DANN
from da.methods.entropy_minimisation import EntropyMinimisation
from da.methods.source_only import SourceOnly
from da.networks.backbones.base import build_backbone
from da.norms import normaliser_names
from da.norms.weight_align.layers import Aligned
from da.ops.clipping import GRADIENT_CLIP_VAL
from da.ops.optimisation import lr_over_norm2
from da.types import Batch, Labelled, Unlabelled
from datasets.digits import Digits

BATCH_NORMS = nn.modules.batchnorm._BatchNorm


def dann(**kwargs):
    """With its critic, which a fit would build."""
    module = DANN(**{"num_classes": 4, "bottleneck": 16, "critic_width": 8} | kwargs)
    module.prepare()
    return module


def source_only(**kwargs):
    return SourceOnly(**{"num_classes": 10, "bottleneck": 16} | kwargs)


def digits(**kwargs):
    return Digits(**{"batch_size": 4, "steps_per_epoch": 3} | kwargs)


def fit(module, data, folder, epochs=2, callbacks=(), ckpt_path=None, **kwargs):
    """Trains as ``train`` does, without evaluations."""
    last = ModelCheckpoint(
        folder, filename="last", enable_version_counter=False, save_on_train_epoch_end=True
    )
    trainer = MethodTrainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[*callbacks, last],
        **{"limit_val_batches": 0} | kwargs,
    )
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return trainer


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "digits_resnet.pth"
    torch.save(build_backbone("digits_resnet").state_dict(), path)
    return str(path)


# Optimiser.


def settings_of(module):
    """Learning rate and weight decay of each parameter, by name."""
    groups = module.configure_optimizers()["optimizer"].param_groups
    found = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    return {name: found[id(p)] for name, p in module.named_parameters()}


@pytest.mark.parametrize("decay", ["weights", "all"])
@pytest.mark.parametrize("pretrained", [False, True])
def test_the_backbone_learns_at_a_tenth_where_it_is_pretrained(
    pretrained, decay, weights, fake_trainer
):
    module = dann(weights=weights if pretrained else None, lr=0.2, decay=decay)
    fake_trainer(module)
    found = settings_of(module)
    shapes = {name: p.ndim for name, p in module.named_parameters()}
    assert len(found) == len(list(module.parameters()))
    for name, (lr, weight_decay) in found.items():
        in_backbone = name.startswith("network.backbone.")
        assert lr == pytest.approx(0.02 if in_backbone and pretrained else 0.2)
        assert weight_decay == (1e-3 if decay == "all" or shapes[name] >= 2 else 0.0)
    assert len({lr for lr, _ in found.values()}) == (2 if pretrained else 1)


def test_the_default_rate_is_the_published_one(weights):
    assert source_only().hparams["lr"] == 0.1
    assert source_only(weights=weights).hparams["lr"] == 0.01
    assert source_only(weights=weights, lr=0.5).hparams["lr"] == 0.5


@pytest.mark.parametrize("norm", normaliser_names())
def test_no_parameter_is_missing_from_the_optimiser_after_surgery(norm, start, fake_trainer):
    module = dann(norm=norm, **start(norm))
    fake_trainer(module)
    groups = module.configure_optimizers()["optimizer"].param_groups
    trained = [id(p) for group in groups for p in group["params"]]
    assert len(trained) == len(set(trained))
    assert set(trained) == {id(p) for p in module.parameters() if p.requires_grad}


class Rates(L.Callback):
    """The learning rates that each step was made with."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen.append([group["lr"] for group in optimizer.param_groups])


@pytest.mark.parametrize(
    ("options", "total"),
    [
        ({}, 6),
        ({"horizon": 100}, 100),
        ({"anneal_alpha": 3.0, "anneal_beta": 2.0}, 6),
        ({"warmup": 0.5}, 6),
        ({"warmup": 0.5, "anneal_alpha": 0.0}, 6),
    ],
)
def test_the_rate_follows_the_schedule_at_every_step(options, total, weights, tmp_path):
    module = source_only(weights=weights, lr=0.2, **options)
    rates = Rates()
    fit(module, digits(), tmp_path, callbacks=[rates])
    alpha, beta = options.get("anneal_alpha", 10.0), options.get("anneal_beta", 0.75)
    rise = [0.1, 0.4, 0.7, 1, 1, 1] if "warmup" in options else [1] * 6
    for step, seen in enumerate(rates.seen):
        factor = rise[step] / (1 + alpha * step / total) ** beta
        expected = {round(0.2 * factor, 12), round(0.02 * factor, 12)}
        assert {round(rate, 12) for rate in seen} == expected
    assert len(rates.seen) == 6


def test_the_rate_is_constant_without_annealing(tmp_path):
    rates = Rates()
    fit(source_only(lr=0.3, anneal_alpha=0.0), digits(), tmp_path, callbacks=[rates])
    assert rates.seen == [[0.3] * 2] * 6


class Sharp(SourceOnly):
    """Sharpness of the task loss within a large radius; logs a value of its own."""

    def losses(self, batch):
        terms = super().losses(batch)
        self.log("seen", terms["task"].detach())
        return terms

    def steps(self, batch):
        yield Step(lambda: self.losses(batch), sharpness=Sharpness(("task",), 2.0))


def test_what_is_logged_is_of_the_pass_before_the_perturbation(tmp_path):
    module = Sharp(num_classes=10, bottleneck=16)
    logged = fit(module, digits(steps_per_epoch=1), tmp_path, epochs=1).logged_metrics
    assert logged["seen"] == logged["loss/task"] == pytest.approx(module.initial_loss)


class Norms(L.Callback):
    """Norms of the gradient before and after clipping, by hand; and lr / ‖w‖² at the end.

    Gradients stay until the next update begins.
    """

    def __init__(self):
        self.before = []
        self.after = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.before.append(self.norm(pl_module))

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.after.append(self.norm(pl_module))

    def norm(self, module):
        return math.sqrt(sum(p.grad.pow(2).sum().item() for p in module.parameters()))

    def on_train_end(self, trainer, pl_module):
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        terms = [rate / p.norm().item() ** 2 for p in pl_module.parameters() if p.ndim >= 2]
        assert lr_over_norm2(pl_module.optimizers()) == pytest.approx(
            sum(terms) / len(terms), rel=1e-5
        )


def test_the_clipped_fraction_is_counted(tmp_path):
    free = Norms()
    module = source_only()
    fit(module, digits(), tmp_path, callbacks=[free], gradient_clip_val=None)
    assert module.clipped == []
    module, norms = source_only(), Norms()
    fit(module, digits(), tmp_path, callbacks=[norms])  # the default
    assert module.clipped == [norm > GRADIENT_CLIP_VAL for norm in norms.before]
    assert any(module.clipped)
    limit = sorted(free.before)[-2] * 1.0001  # all but one step, until that one
    norms = Norms()
    module = source_only()
    fit(module, digits(), tmp_path, callbacks=[norms], gradient_clip_val=limit)
    assert module.clipped == [norm > limit for norm in norms.before]
    assert 0 < sum(module.clipped) < 6
    assert len(norms.after) == 6
    assert norms.after == pytest.approx([min(norm, limit) for norm in norms.before], rel=1e-5)


def test_clipping_by_value_counts_by_value(tmp_path):
    class Largest(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            seen.append(max(p.grad.abs().max().item() for p in pl_module.parameters()))

    for limit, expected in ((1e-6, True), (1e6, False)):
        module, seen = source_only(), []
        fit(
            module,
            digits(),
            tmp_path,
            callbacks=[Largest()],
            gradient_clip_val=limit,
            gradient_clip_algorithm="value",
        )
        assert module.clipped == [expected] * 6
        assert (seen == pytest.approx([limit] * 6)) == expected


# What is refused.


@pytest.mark.parametrize("norm", ["bn", "wa+bn"])
@pytest.mark.parametrize("bottleneck", [16, None])
def test_a_batch_of_one_under_batch_norm_is_refused_before_training(norm, bottleneck, tmp_path):
    module = source_only(norm=norm, bottleneck=bottleneck)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(UserError, match=f"batch_size 1 with norm '{re.escape(norm)}'.*'gn'"):
        fit(module, digits(batch_size=1), tmp_path)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("norm", ["bn", "brn", "ibn", "wa+bn"])
def test_single_image_statistics_are_allowed_on_maps_and_not_on_vectors(norm, tmp_path):
    options = {"norm": norm, "norm_options": {"single_image": True}}
    module = source_only(**options)
    with pytest.raises(UserError, match="batch_size 1 with norm"):
        fit(module, digits(batch_size=1), tmp_path)
    module = source_only(**options, bottleneck=None, lr=1e-3)
    fit(module, digits(batch_size=1), tmp_path, epochs=1)
    assert all(p.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("norm", ["bn", "brn", "ibn"])
def test_a_map_of_one_position_has_no_statistics_of_one_image(norm, tmp_path):
    module = source_only(
        backbone="resnet18", norm=norm, norm_options={"single_image": True}, bottleneck=None
    )
    with pytest.raises(UserError, match=r"images of 32 x 32 are maps of one position in .*layer4"):
        fit(module, digits(batch_size=1), tmp_path)
    assert module.training
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("norm", ["wa", "gn", "wa+gn", "ln", "none"])
def test_a_batch_of_one_trains_without_batch_statistics(norm, tmp_path):
    module = source_only(norm=norm, lr=1e-3)
    before = module.network.classifier.weight.detach().clone()
    fit(module, digits(batch_size=1), tmp_path, epochs=1)
    assert all(p.isfinite().all() for p in module.parameters())
    assert not torch.equal(module.network.classifier.weight, before)


class Spoil(L.Callback):
    """Spoils the images of one domain, from one batch of the run on."""

    def __init__(self, role, step, factor):
        self.role, self.step, self.factor = role, step, factor

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            getattr(batch, self.role).images.mul_(self.factor)


def test_a_loss_that_is_not_finite_stops_with_its_step_and_terms(tmp_path):
    module = dann(num_classes=10)
    spoil = Spoil("source", 4, float("nan"))
    with pytest.raises(Diverged, match=r"step 4 is not finite \(task nan, domain nan\)") as caught:
        fit(module, digits(), tmp_path, callbacks=[spoil])
    assert caught.value.exit_code == 3
    module = dann(num_classes=10)
    spoil = Spoil("source", 0, float("nan"))
    with pytest.raises(Diverged, match=r"step 0 is not finite \(task nan, domain nan\)"):
        fit(module, digits(), tmp_path, callbacks=[spoil])
    assert module.initial_loss is None
    module = EntropyMinimisation(num_classes=10, bottleneck=16, norm="wa", lr=0.5)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(
        Diverged, match=r"\(task \d.*, entropy nan\); lower the learning rate \(now 0.5\)"
    ):
        fit(module, digits(), tmp_path, callbacks=[Spoil("target", 0, float("inf"))])
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_weightalign_with_an_inserted_normaliser_on_pretrained_weights_is_refused(weights):
    inserting = {"norm": "wa+gn", "norm_options": {"insert": True}, "weights": weights}
    with pytest.raises(UserError, match=r"pretrained weights: .*--model.conversion off"):
        source_only(**inserting)
    source_only(**inserting, conversion="off")
    for norm in ("wa", "gn", "wa+bn", "wa+gn"):
        source_only(norm=norm, weights=weights)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_classes": 1}, "at least 2 classes, got 1"),
        ({"lr": 0.0}, "above 0, got 0.0"),
        ({"bottleneck": 0}, "bottleneck: expected a whole number from 1 or null, got 0"),
        ({"horizon": 0}, "horizon: expected a whole number from 1 or null, got 0"),
        ({"momentum": 1.0}, "momentum: expected"),
        ({"warmup": 1.5}, "warmup: expected a share of the run from 0 to 1, got 1.5"),
        ({"weight_decay": -1.0}, "weight_decay: expected"),
        ({"pretrained_factor": -0.1}, "pretrained_factor: expected a number from 0, got -0.1"),
        ({"anneal_alpha": -1.0}, "anneal_alpha: expected a number from 0"),  # 0 to a power below 0
        ({"anneal_beta": -0.75}, "anneal_beta: expected a number from 0"),
        ({"scope": [], "norm": "wb"}, "unknown normaliser 'wb'"),
        ({"scope": [], "norm_options": {"gian": 1}}, "unknown option of bn 'gian'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options, text):
    with pytest.raises(UserError, match=text):
        source_only(**options)


# Surgery and seeds.


def part_of(module, part):
    return module.critic if part == "critic" else getattr(module.network, part)


@pytest.mark.parametrize(
    "scope", [("backbone",), ("bottleneck",), ("critic",), ("bottleneck", "critic"), ()]
)
@pytest.mark.parametrize("norm", ["wa", "gn"])
def test_the_scope_limits_the_surgery(norm, scope):
    module, plain = dann(norm=norm, scope=scope), dann()
    for part in ("backbone", "bottleneck", "critic"):
        ours, theirs = (
            [type(m) for m in part_of(x, part).modules() if isinstance(m, BATCH_NORMS)]
            for x in (module, plain)
        )
        assert theirs
        assert ours == ([] if part in scope else theirs)


@pytest.mark.parametrize(
    ("norm", "scope"),
    [("dsbn", ["critic"]), ("ibn", ["bottleneck", "critic"]), ("transnorm", ["critic"])],
)
def test_a_scope_in_which_no_part_takes_the_normaliser_is_refused(norm, scope, tmp_path):
    module = dann(norm=norm, scope=scope)
    with pytest.raises(UserError, match=f"norm '{norm}' with scope .*critic: batch norm stays in"):
        fit(module, digits(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_scope_of_parts_that_a_method_lacks_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"scope critic: .* every part of SourceOnly \(backbone, "):
        fit(source_only(norm="wa", scope=["critic"]), digits(), tmp_path)


@pytest.mark.parametrize("name", ["digits_resnet", "lenet", "dtn", "resnet18", "vgg11_bn"])
def test_every_family_of_backbones_can_be_aligned(name):
    module = source_only(norm="wa", backbone=name).eval()
    assert module(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    layers = [m for m in module.network.backbone.modules() if isinstance(m, nn.Conv2d)]
    assert layers
    assert all(isinstance(m, Aligned) for m in layers)


def test_the_classifier_is_left_as_it_is_under_every_normaliser(start):
    for norm in normaliser_names():
        module = dann(norm=norm, seed=5, **start(norm))
        assert type(module.network.classifier) is nn.Linear
        assert torch.equal(module.network.classifier.weight, dann(seed=5).network.classifier.weight)


def test_every_part_has_its_own_seed():
    state = torch.get_rng_state()
    one = dann(seed=3, task="a->b").state_dict()
    assert torch.equal(torch.get_rng_state(), state)  # nothing of the global state is used
    same = dann(seed=3, task="a->b", critic_width=12, lr=0.7).state_dict()
    other = SourceOnly(num_classes=4, bottleneck=16, seed=3, task="a->b").state_dict()
    assert all(torch.equal(one[k], v) for k, v in other.items())  # a critic more or less
    assert all(torch.equal(one[k], v) for k, v in same.items() if not k.startswith("critic"))
    wide = dann(seed=3, task="a->b", bottleneck=8).state_dict()
    assert all(torch.equal(one[k], v) for k, v in wide.items() if k.startswith("network.backbone"))
    for options in ({"seed": 4, "task": "a->b"}, {"seed": 3, "task": "a->c"}):
        changed = dann(**options).state_dict()
        drawn = [k for k in one if one[k].ndim >= 2]
        assert len(drawn) >= 12
        assert not any(torch.equal(one[k], changed[k]) for k in drawn)


def test_the_noise_of_each_epoch_is_its_own(monkeypatch):
    def noise(epoch, **options):
        module = source_only(**options)
        monkeypatch.setattr(SourceOnly, "current_epoch", property(lambda self: epoch))
        module.on_train_epoch_start()
        return torch.rand(1).item()

    with torch.random.fork_rng(devices=[]):
        assert noise(0) == noise(0) == noise(0, norm="wa")
        assert len({noise(0), noise(1), noise(0, seed=1), noise(0, task="a->b")}) == 4


# Properties 4 to 6 of WeightAlign on the whole network.


def doubled(batch):
    source, target = batch
    return Batch(
        source._replace(views=(source.images.double(),)),
        target._replace(views=(target.images.double(),)),
    )


def gradients(module, batches, trainer):
    trainer.step = 30
    module.zero_grad()
    for batch in batches:
        total = torch.stack(list(module.losses(batch).values())).sum()
        (total / len(batches)).backward()
    return {name: p.grad.clone() for name, p in module.named_parameters()}


@pytest.mark.parametrize("norm", ["wa", "wa+gn"])
def test_the_output_for_a_sample_does_not_depend_on_the_others(norm, batch):
    images = doubled(batch).source.images
    module, plain = dann(norm=norm).double().train(), dann().double().train()
    for i in range(3):
        alone, among = module.activations(images[i : i + 1]), module.activations(images)
        torch.testing.assert_close(alone.logits[0], among.logits[i])
        torch.testing.assert_close(
            module.critic(alone.features)[0], module.critic(among.features)[i]
        )
        assert not torch.allclose(
            plain.activations(images[: i + 2]).logits[0], plain.activations(images).logits[0]
        )


def test_joint_and_separate_forwards_agree_in_outputs_and_gradients(batch, fake_trainer):
    batch = doubled(batch)
    found = {}
    for norm in ("wa", "bn"):
        for mode in ("joint", "separate"):
            module = dann(norm=norm, forward_mode=mode).double()
            source, target = module.activations_of(
                (batch.source.images, "source"), (batch.target.images, "target")
            )
            grads = gradients(module, [batch], fake_trainer(module))
            found[norm, mode] = torch.cat([source.logits, target.logits]), grads
    (outputs, grads), (outputs2, grads2) = found["wa", "joint"], found["wa", "separate"]
    torch.testing.assert_close(outputs, outputs2)
    for name in grads:
        torch.testing.assert_close(grads[name], grads2[name], msg=name)
    assert not torch.allclose(found["bn", "joint"][0], found["bn", "separate"][0], rtol=1e-2)


@pytest.mark.parametrize("forward_mode", ["joint", "separate"])
@pytest.mark.parametrize("method", ["dann", "entropy"])
def test_gradients_of_micro_batches_add_up_to_that_of_the_batch(
    method, forward_mode, batch, fake_trainer
):
    batch = doubled(batch)
    parts = [
        Batch(
            Labelled(
                (batch.source.images[i : i + 2],),
                batch.source.labels[i : i + 2],
                batch.source.indices[i : i + 2],
            ),
            Unlabelled((batch.target.images[i : i + 2],), batch.target.indices[i : i + 2]),
        )
        for i in range(0, 8, 2)
    ]

    def both(norm):
        options = {"num_classes": 4, "bottleneck": 16, "norm": norm, "forward_mode": forward_mode}
        module = (
            DANN(**options, critic_width=8)
            if method == "dann"
            else EntropyMinimisation(**options, diversity=0.0)  # else no mean over samples
        )
        module.prepare()
        module.double()
        trainer = fake_trainer(module)
        return gradients(module, [batch], trainer), gradients(module, parts, trainer)

    whole, summed = both("wa")
    for name in whole:
        torch.testing.assert_close(whole[name], summed[name], msg=name)
    whole, summed = both("bn")
    assert not all(torch.allclose(whole[name], summed[name], rtol=1e-2) for name in whole)


# Resuming.


class Killed(Exception):
    pass


class Kill(L.Callback):
    """Ends the run in the middle of its third epoch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 2 and batch_idx == 1:
            raise Killed


@pytest.mark.parametrize(
    ("norm", "network", "workers"),
    [
        ("wa", "digits_resnet", 0),
        ("bn", "dtn", 2),  # with dropout
        pytest.param("bn", "digits_resnet", 0, marks=pytest.mark.long),
        pytest.param("wa", "digits_resnet", 2, marks=pytest.mark.long),
    ],
)
def test_a_resumed_run_ends_as_if_it_had_not_been_stopped(norm, network, workers, tmp_path):
    def start(folder, workers, callbacks=(), ckpt_path=None):
        module = DANN(
            num_classes=10, bottleneck=16, critic_width=8, norm=norm, backbone=network, lr=0.02
        )
        slow = network == "dtn"
        recorder = Recorder(forms=not slow)
        trainer = fit(
            module,
            digits(num_workers=workers, steps_per_epoch=4),
            folder,
            epochs=4,
            callbacks=[recorder, *callbacks],
            ckpt_path=ckpt_path,
            limit_val_batches=0 if slow else None,
            gradient_clip_val=5.0,
        )
        return module, trainer, recorder

    whole, trainer, record = start(tmp_path / "whole", 0)
    with pytest.raises(Killed):
        start(tmp_path / "cut", workers, [Kill()])
    torch.manual_seed(12345)  # another process has another state
    last = tmp_path / "cut" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 8
    resumed, again, other = start(tmp_path / "cut", workers, ckpt_path=last)
    assert again.global_step == trainer.global_step == 16
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    momenta = [
        [x["momentum_buffer"] for x in t.optimizers[0].state_dict()["state"].values()]
        for t in (trainer, again)
    ]
    assert len(momenta[0]) > 20
    assert all(torch.equal(a, b) for a, b in zip(*momenta, strict=True))
    assert record.history == other.history
    assert record.lr_over_norm2 == other.lr_over_norm2
    assert whole.initial_loss == resumed.initial_loss
    assert whole.clipped == resumed.clipped
    assert len(whole.clipped) == 16
