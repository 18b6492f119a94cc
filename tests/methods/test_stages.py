"""What a method may rely on besides its updates: stages, pseudo-labels, taps, conversion."""

import copy
import time

import numpy as np
import pytest
import pytorch_lightning as L
import torch
from short_runs import digits, epochs_of_all_stages, fit
from torch import nn

from da.engine.evaluation import Recorder
from da.engine.spec import RunSpec
from da.engine.trainer_settings import refuse_stages_cut_off
from da.errors import UserError
from da.methods.base import Method, Needs, Stage
from da.methods.stages import stage_of
from da.networks.backbones.base import build_backbone


def made(kind, **options):
    return kind(**{"num_classes": 10, "bottleneck": 8} | options)


# Stages.


class Staged(Method):
    """Half of the epochs on the source, then none of it; what was called, in order."""

    def __init__(self, num_classes, **options):
        super().__init__(num_classes, **options)
        self.called = []

    def stages(self):
        return Stage("source", until=0.5), Stage("adapt", source=False)

    def start_stage(self, stage):
        self.called.append(("stage", self.current_epoch, stage.name))
        self.resumed = [*getattr(self, "resumed", []), self.stage_resumed]

    def start_epoch(self):
        self.called.append(("epoch", self.current_epoch, self.stage.name))

    def source_free(self, target, batch):
        return {"square": target.logits.square().mean()}

    def steps(self, batch):
        self.called.append(("batch", self.current_epoch, batch.source is not None))
        assert batch.target.images.shape == (4, 3, 32, 32)
        yield from super().steps(batch)


class StopAfter(L.Callback):
    def __init__(self, epochs):
        self.epochs = epochs

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


def expected(epochs):
    """What is called in some epochs of four, with one batch each."""
    calls = []
    for epoch in epochs:
        stage = "source" if epoch < 2 else "adapt"
        if epoch in (0, 2, epochs[0]):
            calls.append(("stage", epoch, stage))
        calls += [("epoch", epoch, stage), ("batch", epoch, epoch < 2)]
    return calls


def test_a_stage_without_source_gets_batches_without_it():
    module = made(Staged)
    fit(module, digits(steps_per_epoch=1), epochs=4)
    assert module.called == expected([0, 1, 2, 3])


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_run_that_is_resumed_starts_the_stage_that_it_is_in(done, tmp_path):
    whole, half, rest = (made(Staged, seed=1) for _ in range(3))
    data = {"steps_per_epoch": 1}
    fit(whole, digits(**data), epochs=4)
    fit(half, digits(**data), tmp_path, epochs=4, callbacks=[StopAfter(done)])
    fit(rest, digits(**data), epochs=4, ckpt_path=tmp_path / "last.ckpt")
    assert half.called == expected(list(range(done)))
    assert rest.called == expected(list(range(done, 4)))
    assert half.resumed == [False] * len(half.resumed)
    assert rest.resumed == {1: [True, False], 2: [False], 3: [True]}[done]
    for (key, a), b in zip(whole.state_dict().items(), rest.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


def test_a_run_that_is_resumed_for_longer_does_not_go_back_to_an_earlier_stage(tmp_path):
    data = {"steps_per_epoch": 1}
    fit(made(Staged), digits(**data), tmp_path, epochs=4, callbacks=[StopAfter(3)])
    with pytest.raises(UserError, match=r"lies in the stage 'adapt'.*of 8 epochs.*in 'source'"):
        fit(made(Staged), digits(**data), epochs=8, ckpt_path=tmp_path / "last.ckpt")


@pytest.mark.parametrize(
    ("epochs", "more", "first", "second"),
    [
        (2, 2, [0, 1 / 3, 2 / 3], [0, 1 / 3, 2 / 3]),
        # In its second stage it goes on there; in its first one, that gets longer.
        (2, 3, [0, 1 / 3, 2 / 3], [0, 1 / 3, 2 / 3, 3 / 6, 4 / 6, 5 / 6]),
        (1, 4, [0, 1 / 3, 2 / 3, 3 / 6, 4 / 6, 5 / 6], [i / 6 for i in range(6)]),
    ],
)
def test_progress_within_a_stage_begins_at_0_and_goes_on_in_a_longer_run(
    epochs, more, first, second, tmp_path
):
    seen = {"source": [], "adapt": []}

    class Noting(Staged):
        def steps(self, batch):
            seen[self.stage.name].append(self.stage_progress)
            yield from super().steps(batch)

    fit(made(Noting), digits(), tmp_path, epochs=2, callbacks=[StopAfter(epochs)])
    if (epochs, more) != (2, 2):
        fit(made(Noting), digits(), epochs=more, ckpt_path=tmp_path / "last.ckpt")
    assert seen == {"source": pytest.approx(first), "adapt": pytest.approx(second)}


class SaveAt(L.Callback):
    """Writes a checkpoint after some batch of the run."""

    def __init__(self, path, batches):
        self.path, self.batches = path, batches

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == self.batches:
            trainer.save_checkpoint(self.path)


class Dropping(Staged):
    """With dropout, whose random numbers go on within an epoch."""

    def build(self):
        self.network.classifier = nn.Sequential(nn.Dropout(), self.network.classifier)


@pytest.mark.parametrize("done", [1, 4])
def test_a_run_that_is_resumed_within_an_epoch_is_in_its_stage_and_ends_as_the_whole(
    done, tmp_path
):
    whole, rest = (made(Dropping, seed=1) for _ in range(2))
    path = tmp_path / "within.ckpt"
    fit(whole, digits(), epochs=2, callbacks=[SaveAt(path, done)])
    torch.manual_seed(9)
    fit(rest, digits(), epochs=2, ckpt_path=path)
    epoch, stage = (0, "source") if done == 1 else (1, "adapt")
    began = [("stage", epoch, stage), ("epoch", epoch, stage)]
    assert rest.called[:4] == began + [("batch", epoch, done == 1)] * 2
    for (key, a), b in zip(whole.state_dict().items(), rest.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


def test_the_time_of_a_run_that_is_resumed_within_an_epoch_is_its_own(tmp_path):
    path, recorder = tmp_path / "within.ckpt", Recorder(forms=False)
    fit(made(Staged), digits(), epochs=2, callbacks=[SaveAt(path, 4)])
    began = time.perf_counter()
    options = {"callbacks": [recorder], "limit_val_batches": None}
    fit(made(Staged), digits(), epochs=2, ckpt_path=path, **options)
    assert sum(recorder.seconds.values()) <= time.perf_counter() - began


class SourceFree(Staged):
    def stages(self):
        return (Stage("adapt", source=False),)


def test_the_only_stage_of_a_training_may_be_without_source():
    module = made(SourceFree)
    fit(module, digits(steps_per_epoch=1), epochs=1)
    assert module.called == [("stage", 0, "adapt"), ("epoch", 0, "adapt"), ("batch", 0, False)]


@pytest.mark.parametrize(
    ("length", "message"),
    [
        ({"epochs": 1}, "'source' would get none of these 1; give more"),
        ({"epochs": -1, "trainer": {"max_steps": 9}}, "give --trainer.max_epochs"),
        (
            {"epochs": 4, "trainer": {"max_steps": 6}},
            "'adapt' would get none of these 4 within max_steps 6",
        ),
    ],
)
def test_a_length_that_cuts_off_a_stage_is_refused(length, message):
    stages = made(Staged).stages()
    of = {"data": "Digits", "source": "a", "target": "b", "method": "Mine", "norm": "bn", "lr": 0.1}
    of |= {"batch_size": 4, "steps_per_epoch": 3, "seed": 0}
    refuse_stages_cut_off(RunSpec(**of, epochs=4, trainer={"max_steps": 7}), stages, 3)
    with pytest.raises(UserError, match=f"Mine trains in 2 stages.*{message}"):
        refuse_stages_cut_off(RunSpec(**of, **length), stages, 3)


def test_a_run_that_is_cut_short_begins_with_its_first_stage():
    stages = (Stage("source", until=0.15, target=False), Stage("adapt"))
    names = {n: [stage_of(stages, epoch, n).name for epoch in range(n)] for n in (1, 2, 5, 20)}
    assert names[1] == ["adapt"]  # which is refused
    assert names[2] == ["source", "adapt"]
    assert names[5] == ["source"] + 4 * ["adapt"]
    assert names[20] == 3 * ["source"] + 17 * ["adapt"]


def test_a_stage_that_no_epoch_reaches_is_named_where_epochs_are_counted():
    class Unreachable(Staged):
        def stages(self):
            return Stage("source", until=0.5), Stage("never", until=0.5), Stage("adapt")

    assert epochs_of_all_stages(made(Staged)) == 2
    with pytest.raises(AssertionError, match=r"Unreachable: 20 epochs .*never until 0\.5"):
        epochs_of_all_stages(made(Unreachable))


def test_a_stage_without_source_needs_a_loss_of_its_own():
    class Lossless(Staged):
        source_free = Method.source_free

    with pytest.raises(NotImplementedError, match="Lossless has no loss without a source batch"):
        fit(made(Lossless), digits(steps_per_epoch=1), epochs=4)


# Predictions on all images of a domain.


class Collecting(Method):
    """Predicts all images of a domain before training, in whatever modes its layers are in."""

    role = "target"

    def start_epoch(self):
        self.train()
        self.network.backbone.blocks[1].eval()
        before = self.modes(), copy.deepcopy(self.state_dict())
        self.found = self.collect(self.role)
        after = self.modes(), self.state_dict()
        assert before[0] == after[0]
        assert all(torch.equal(v, after[1][k]) for k, v in before[1].items())
        self.twin = copy.deepcopy(self.network)

    def modes(self):
        return [part.training for part in self.modules()]


@pytest.mark.parametrize("norm", ["bn", "wa"])
@pytest.mark.parametrize("role", ["target", "source"])
def test_collected_predictions_are_those_of_every_image_in_its_place(role, norm):
    module, data = made(Collecting, norm=norm), digits(steps_per_epoch=1)
    module.role = role
    fit(module, data)
    images = data.set_of(role, "train")
    assert module.found.labels is None
    assert module.found.logits.shape == (len(images), 10)
    assert module.found.features.shape == (len(images), 8)
    assert not module.found.logits.requires_grad
    for index in (0, 1, len(images) // 2, len(images) - 1):
        image = data.transform.evaluate(images.images(np.array([index])))
        with torch.no_grad():
            alone = module.twin.eval()(image, role)
        torch.testing.assert_close(module.found.logits[index], alone.logits[0])
        torch.testing.assert_close(module.found.features[index], alone.features[0])


# Taps.


class Tapping(Method):
    needs = Needs(taps=("backbone.stem", "bottleneck"))

    def adaptation(self, source, target, batch):
        self.kept = source, target
        return {"taps": sum(tap.square().mean() for tap in target.taps.values())}


@pytest.mark.parametrize("mode", ["joint", "separate"])
def test_taps_are_the_outputs_of_layers_for_either_domain(mode, batch):
    module = made(Tapping, forward_mode=mode, norm="wa", num_classes=4)
    module.losses(batch)["taps"].backward()
    for a, images in zip(module.kept, (batch.source.images, batch.target.images), strict=True):
        assert set(a.taps) == {"backbone.stem", "bottleneck"}
        torch.testing.assert_close(a.taps["backbone.stem"], module.network.backbone.stem(images))
        torch.testing.assert_close(a.taps["bottleneck"], a.features)
    assert module.network.backbone.stem[0].weight.grad.abs().max() > 0
    assert module.network.classifier.weight.grad is None
    assert not any(m._forward_hooks for m in module.modules())


def test_a_tap_that_is_no_layer_is_refused_by_name():
    class Astray(Method):
        needs = Needs(taps=("backbone.stm",))

    with pytest.raises(UserError, match=r"unknown tap 'backbone\.stm'.*'backbone\.stem'"):
        made(Astray)


# Pretrained weights.


class Copying(Method):
    """With a copy of the network, as an average of weights begins."""

    def build(self):
        self.teacher = copy.deepcopy(self.network)
        self.equal = [
            torch.equal(a, b)
            for a, b in zip(self.teacher.parameters(), self.network.parameters(), strict=True)
        ]
        self.converted_before = self.converted is not None

    def evaluated(self):
        return self.teacher


def test_own_parts_are_built_of_converted_weights_and_a_resumed_run_is_not_converted_again(
    tmp_path, monkeypatch
):
    conversions = []

    def convert(aligned, plan, data, device):
        conversions.append(plan)
        nn.init.constant_(aligned.stem[0].weight, 0.5)
        return {"on": "source"}

    monkeypatch.setattr("da.methods.base.convert_backbone", convert)
    torch.save(build_backbone("digits_resnet").state_dict(), tmp_path / "weights.pth")
    options = {"norm": "wa", "weights": str(tmp_path / "weights.pth"), "lr": 1e-3}
    module, rest = made(Copying, **options), made(Copying, **options)
    fit(module, digits(steps_per_epoch=1), tmp_path, epochs=2, callbacks=[StopAfter(1)])
    assert len(conversions) == 1
    assert module.converted_before
    assert all(module.equal)
    assert (module.teacher.backbone.stem[0].weight == 0.5).all()
    fit(rest, digits(steps_per_epoch=1), epochs=2, ckpt_path=tmp_path / "last.ckpt")
    assert len(conversions) == 1
    assert rest.converted == {"on": "source"}  # what the result says of it comes along
    assert torch.equal(rest.teacher.backbone.stem[0].weight, module.teacher.backbone.stem[0].weight)
