"""What a method may rely on when it makes its own updates, on small methods made for it."""

import copy
import math

import pytest
import pytorch_lightning as L
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from short_runs import digits, fit
from torch import nn

from da.errors import UserError
from da.methods.base import Method, Sharpness, Step
from da.methods.updates import frozen_statistics
from da.ops.sharpness import perturbed

#: Plain gradient descent, which a reference by hand can follow.
PLAIN = {"momentum": 0.0, "weight_decay": 0.0, "anneal_alpha": 0.0, "lr": 0.1}


class Headed(Method):
    """With a head of its own, and a loss on the target besides that on the source."""

    def build(self):
        self.head = self.part("head", lambda: nn.Linear(self.num_features, 2))

    def adaptation(self, source, target, batch):
        return {"square": target.logits.square().mean() + self.head(target.features).square().sum()}


def made(kind, **options):
    """A method with its own parts, before training."""
    module = kind(**{"num_classes": 10, "bottleneck": 8} | options)
    module.prepare()
    return module


def weights(module):
    return {k: p.detach().clone() for k, p in module.named_parameters()}


def momenta(module):
    """Copies of the optimiser's buffers of momentum, by the parameters' names."""
    state = module.optimizers().optimizer.state
    return {k: state[p]["momentum_buffer"].clone() for k, p in module.named_parameters()}


def changed(before, after):
    """The parts whose tensors differ: of ``network``, or of the method."""
    names = {k for k in before if not torch.equal(before[k], after[k])}
    return {k.split(".")[1 if k.startswith("network.") else 0] for k in names}


class Watch(L.Callback):
    """The first batch, what was counted and logged at the end of every batch, and the updates."""

    def __init__(self):
        self.batch, self.counted, self.logged, self.updates = None, [], set(), 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batch = self.batch or batch

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.updates += 1

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.counted.append(trainer.global_step)
        self.logged |= {k for k in trainer.callback_metrics if k.startswith("loss/")}


# Several updates of one batch.


class Thrice(Headed):
    """Three updates of all parameters, and what was seen of the run at each of them."""

    def steps(self, batch):
        for _ in range(3):
            rate = self.optimizers().param_groups[0]["lr"]
            self.seen.append((self.global_step, self.batches_done, self.progress, rate))
            yield Step(lambda: self.losses(batch))


def test_several_updates_of_a_batch_count_once():
    module, watch = made(Thrice, anneal_alpha=10.0, lr=0.1), Watch()
    module.seen = []
    trainer = fit(module, digits(steps_per_epoch=2), epochs=2, callbacks=[watch])
    assert watch.counted == [1, 2, 3, 4]
    assert watch.updates == 12
    assert trainer.global_step == 4
    thirds = [module.seen[i : i + 3] for i in range(0, 12, 3)]
    for number, third in enumerate(thirds):
        assert [batches for _, batches, _, _ in third] == [number] * 3
        for _, _, progress, rate in third:  # the schedule moves once a batch, too
            assert progress == pytest.approx(number / 4)
            assert rate == pytest.approx(0.1 / (1 + 10 * number / 4) ** 0.75)


def test_later_losses_of_the_same_name_are_logged_beside_the_first():
    module, watch = made(Thrice), Watch()
    module.seen = []
    fit(module, digits(steps_per_epoch=1), callbacks=[watch])
    names = {f"loss/{term}{which}" for term in ("task", "square") for which in ("", "/2", "/3")}
    assert watch.logged == names


def test_every_update_is_one_of_gradient_descent_and_what_follows_its_yield_runs_after_it():
    class Noting(Headed):
        def steps(self, batch):
            for _ in range(2):
                before = weights(self)
                yield Step(lambda: self.losses(batch))
                gradients = {k: p.grad.clone() for k, p in self.named_parameters()}
                self.noted.append((before, gradients, weights(self)))

    module = made(Noting, **PLAIN)
    module.noted = []
    fit(module, digits(steps_per_epoch=2))
    assert len(module.noted) == 4  # what follows the last yield runs, too
    for before, gradients, after in module.noted:
        for name in before:
            torch.testing.assert_close(after[name], before[name] - 0.1 * gradients[name])
        assert len(changed(before, after)) == 4
    assert not changed(module.noted[-1][2], weights(module))
    assert not changed(module.noted[0][2], module.noted[1][0])


@pytest.mark.parametrize(
    ("update", "moved"),
    [
        (["head"], {"head"}),
        (["network.classifier", "head"], {"classifier", "head"}),
        (["network"], {"backbone", "bottleneck", "classifier"}),
        (["network.backbone.stem"], {"backbone"}),
    ],
)
def test_an_update_of_some_parts_leaves_others_and_their_momentum_as_they_are(update, moved):
    class Partly(Headed):
        def steps(self, batch):
            yield Step(lambda: self.losses(batch))
            before = weights(self), momenta(self)
            yield Step(lambda: self.losses(batch), update=update)
            after = weights(self), momenta(self)
            self.noted.append([changed(*pair) for pair in zip(before, after, strict=True)])
            self.without.append({k for k, p in self.named_parameters() if p.grad is None})

    module = made(Partly, momentum=0.9, weight_decay=1e-2)
    module.noted, module.without = [], []
    fit(module, digits(steps_per_epoch=2))
    assert module.noted == [[moved, moved]] * 2
    for without in module.without:  # and others took no gradient at all
        chosen = {k for k, _ in module.named_parameters() if k.startswith(tuple(update))}
        assert without == set(weights(module)) - chosen
    assert all(p.requires_grad for p in module.parameters())


def test_what_is_no_part_and_a_batch_without_a_step_are_errors_of_the_method():
    class Wrong(Headed):
        def steps(self, batch):
            yield Step(lambda: self.losses(batch), update=["network.clasifier"])

    class Idle(Headed):
        def steps(self, batch):
            yield from ()

    with pytest.raises(RuntimeError, match=r"Wrong has no part 'network\.clasifier' to update"):
        fit(made(Wrong), digits(steps_per_epoch=1))
    with pytest.raises(RuntimeError, match=r"Idle\.steps made no step of a batch"):
        fit(made(Idle), digits(steps_per_epoch=1))


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clipping_counts_and_limits_every_update(algorithm):
    class Clipped(Headed):
        def steps(self, batch):
            for factor in (1.0, 1e-9, 1.0):
                yield Step(lambda f=factor: {k: f * v for k, v in self.losses(batch).items()})
                gradients = torch.cat([p.grad.flatten() for p in self.parameters()])
                largest = gradients.norm() if algorithm == "norm" else gradients.abs().max()
                self.largest.append(largest.item())

    module = made(Clipped)
    module.largest = []
    options = {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": algorithm}
    fit(module, digits(steps_per_epoch=2), **options)
    assert module.clipped == [True, False, True] * 2
    for largest, clipped in zip(module.largest, module.clipped, strict=True):
        assert (largest == pytest.approx(1e-3)) == clipped
        assert largest < 1.001e-3


def test_the_share_of_clipped_updates_is_logged_in_the_steps_that_are_read_alone():
    class Noted(Headed):
        def log(self, name, value, *args, **kwargs):
            if name == "clipped" and self.logging:
                self.noted.append((self.global_step, value))
            super().log(name, value, *args, **kwargs)

    module = made(Noted)
    module.noted = []
    fit(module, digits(steps_per_epoch=4), gradient_clip_val=1e-3, epochs=2)
    assert module.noted == [(4, 1.0), (8, 1.0)]  # without a logger the last step of an epoch
    module.noted = []
    fit(module, digits(steps_per_epoch=2), gradient_clip_val=1e9)
    # The list may have been taken over from a checkpoint, and grown since.
    assert module.noted == [(2, 8 / 10)]
    assert module.clipped_share() == sum(module.clipped) / len(module.clipped)
    module.clipped += [True] * 5
    assert module.clipped_share() == 13 / 15
    fresh = made(Noted)
    assert fresh.clipped_share() is None
    fresh.clipped = [True, False]
    assert fresh.clipped_share() == 0.5


# Sharpness.


class Sharp(Headed):
    """One update of which some terms are made flat; the weights at which losses were taken."""

    def steps(self, batch):
        yield Step(lambda: self.noted(batch), self.update, self.sharpness)

    def noted(self, batch):
        self.places.append(weights(self))
        return self.losses(batch)


def sharp(terms=("task",), radius=0.1, update=None, **options):
    module = made(Sharp, **PLAIN | options)
    module.update, module.sharpness, module.places = update, Sharpness(terms, radius), []
    return module


def by_hand(twin, batch, terms, radius):
    """SAM by the formula: parameters after one step, and buffers after its first pass."""
    parameters = list(twin.parameters())
    losses = twin.losses(batch)
    buffers = {k: b.clone() for k, b in twin.named_buffers()}
    steep = sum(losses[name] for name in terms)
    zeros = {"allow_unused": True, "materialize_grads": True}
    g = torch.autograd.grad(steep, parameters, retain_graph=True, **zeros)
    rest = sum(loss for name, loss in losses.items() if name not in terms)
    total = [torch.zeros_like(p) for p in parameters]
    if isinstance(rest, torch.Tensor):
        total = torch.autograd.grad(rest, parameters, **zeros)
    norm = math.sqrt(sum(x.double().square().sum().item() for x in g))
    there = copy.deepcopy(twin)
    with torch.no_grad():
        for p, x in zip(there.parameters(), g, strict=True):
            p.add_(radius * x / norm)
    again = there.losses(batch)
    flat = torch.autograd.grad(
        sum(again[name] for name in terms), list(there.parameters()), **zeros
    )
    steps = [0.1 * (a + b) for a, b in zip(total, flat, strict=True)]
    return [p.detach() - s for p, s in zip(parameters, steps, strict=True)], buffers


@pytest.mark.parametrize("norm", ["bn", "wa"])
@pytest.mark.parametrize("terms", [["task"], ["square"], ["task", "square"]])
def test_sharpness_is_that_of_a_reference_by_hand(terms, norm):
    module, watch = sharp(terms, norm=norm), Watch()
    twin = copy.deepcopy(module)
    plain = copy.deepcopy(module)
    fit(module, digits(steps_per_epoch=1), callbacks=[watch])
    expected, buffers = by_hand(twin, watch.batch, terms, 0.1)
    for (name, p), wanted in zip(module.named_parameters(), expected, strict=True):
        torch.testing.assert_close(p.detach(), wanted, rtol=1e-4, atol=1e-5, msg=name)
    assert len(buffers) == (24 if norm == "bn" else 0)
    for name, buffer in module.named_buffers():  # statistics of the first pass, and only of it
        torch.testing.assert_close(buffer, buffers[name], rtol=1e-5, atol=1e-6, msg=name)
    # And it is no plain step.
    flat, _ = by_hand(plain, watch.batch, terms, 1e-6)
    distances = [(a - b).abs().max() for a, b in zip(expected, flat, strict=True)]
    assert max(distances) > 1e-3


def test_weights_lie_a_radius_away_in_the_second_pass_and_are_restored_exactly():
    module = sharp(radius=0.3, lr=1e-30)  # a step that no float shows
    before = weights(module)
    fit(module, digits(steps_per_epoch=2))
    assert len(module.places) == 4
    for first, second in zip(module.places[::2], module.places[1::2], strict=True):
        squares = [(second[k] - first[k]).double().square().sum() for k in first]
        assert math.sqrt(sum(squares)) == pytest.approx(0.3, rel=1e-4)
        torch.testing.assert_close(first, before, rtol=0, atol=1e-25)
    torch.testing.assert_close(weights(module), before, rtol=0, atol=1e-25)


class Faint(Sharp):
    """A task loss whose gradients float16 has no numbers for."""

    def task_loss(self, source, labels):
        return 1e-7 * source.logits.mean()


def test_small_gradients_of_float16_are_scaled_for_the_first_pass_too():
    module = made(Faint, **PLAIN)
    module.update, module.sharpness, module.places = None, Sharpness(("task",), 0.3), []
    half = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**14))
    fit(module, digits(steps_per_epoch=1), plugins=[half])
    first, second = module.places
    squares = [(second[k] - first[k]).double().square().sum() for k in first]
    assert math.sqrt(sum(squares)) == pytest.approx(0.3, rel=1e-3)


def test_only_what_is_updated_is_moved_for_the_second_pass():
    module = sharp(["square"], update=["head", "network.bottleneck"])
    fit(module, digits(steps_per_epoch=1))
    first, second = module.places
    assert changed(first, second) == {"head", "bottleneck"}
    squares = [(second[k] - first[k]).double().square().sum() for k in first]
    assert math.sqrt(sum(squares)) == pytest.approx(0.1, rel=1e-4)
    assert changed(first, weights(module)) == {"head", "bottleneck"}


def test_the_sharpness_of_what_is_no_loss_is_an_error_of_the_method():
    with pytest.raises(RuntimeError, match="sharpness of 'tusk', which is none of task, square"):
        fit(sharp(["tusk"]), digits(steps_per_epoch=1))


def test_weights_and_statistics_are_restored_also_after_an_error():
    layer = nn.BatchNorm1d(3)
    before = copy.deepcopy(layer.state_dict())
    parameters, gradients = list(layer.parameters()), [torch.ones(3), None]

    def fail():
        with perturbed(parameters, gradients, 0.5), frozen_statistics(layer):
            assert (layer.weight - before["weight"]).norm().item() == pytest.approx(0.5)
            assert torch.equal(layer.bias, before["bias"])
            layer(torch.randn(4, 3))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())
    layer(torch.randn(4, 3))
    assert not torch.equal(layer.running_mean, before["running_mean"])
    with perturbed(parameters, [torch.zeros(3), torch.zeros(3)], 0.5):  # a gradient of 0
        assert torch.equal(layer.weight, before["weight"])


@pytest.mark.parametrize("training", [True, False])
def test_a_pass_with_frozen_statistics_is_the_same_pass_and_is_differentiated_later(training):
    """Also beside a second one that moves them."""
    layer, untracked = (
        nn.BatchNorm1d(3).train(training),
        nn.BatchNorm1d(3, track_running_stats=False),
    )
    layer.running_mean.fill_(0.5)
    both = nn.Sequential(layer, untracked)
    twin, before = copy.deepcopy(both), copy.deepcopy(both.state_dict())
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    with frozen_statistics(both):
        first = both(x)
    assert all(torch.equal(v, before[k]) for k, v in both.state_dict().items())
    assert torch.equal(first, twin(x))
    second = both(2 * x)
    assert torch.equal(layer.running_mean, before["0.running_mean"]) != training
    (first + second).square().sum().backward()
    assert layer.weight.grad.isfinite().all()
    assert [m.track_running_stats for m in both] == [True, False]


# Optimisers.


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_the_optimiser_is_torchs_with_the_options_of_the_method(name):
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    options = {"lr": 1e-2, "momentum": 0.8, "weight_decay": 1e-1, "anneal_alpha": 0.0}
    module, watch = made(Headed, optimizer=name, **options), Watch()
    twin = copy.deepcopy(module)
    trainer = fit(module, digits(steps_per_epoch=1), callbacks=[watch])
    assert type(trainer.optimizers[0]) is kinds[name]
    first = {"momentum": 0.8, "nesterov": True} if name == "sgd" else {"betas": (0.8, 0.999)}
    groups = [
        {"params": [p for p in twin.parameters() if p.ndim >= 2], "weight_decay": 1e-1},
        {"params": [p for p in twin.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    reference = kinds[name](groups, lr=1e-2, **first)
    torch.stack(list(twin.losses(watch.batch).values())).sum().backward()
    reference.step()
    for (key, p), q in zip(module.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6, msg=key)


def test_an_optimiser_that_is_none_is_refused_by_name():
    with pytest.raises(UserError, match=r"unknown optimizer 'adamx'.*adam, adamw, sgd"):
        made(Headed, optimizer="adamx")


@pytest.mark.parametrize("rate", [1.0, 0.25, 10.0])
def test_a_part_learns_at_its_own_rate(rate):
    class Slow(Headed):
        def build(self):
            self.head = self.part("head", lambda: nn.Linear(self.num_features, 2), rate=rate)

    module = made(Slow, lr=0.2, anneal_alpha=0.0)
    (optimiser,) = fit(module, digits(steps_per_epoch=1)).optimizers
    rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    for name, parameter in module.named_parameters():
        expected = 0.2 * (rate if name.startswith("head.") else 1)
        assert rates[id(parameter)] == pytest.approx(expected), name
