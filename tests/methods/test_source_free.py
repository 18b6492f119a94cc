"""Source-free methods: what adaptation sees, how it begins, how it is resumed, its baseline."""

import copy
import pickle

import pytest
import pytorch_lightning as L
import torch
from long_cases import rest_long
from refusing import refused
from short_runs import digits, fit, small, some_normalisers
from torch import nn

from da.engine.evaluation import Recorder
from da.engine.last_evaluation import LastEvaluation
from da.engine.spec import RunSpec
from da.engine.training import train
from da.errors import UserError
from da.methods.aad import AaD
from da.methods.shot import SHOT
from da.methods.source_free import WeightNormLinear
from da.norms.dsbn import DomainBatchNorm
from da.norms.weight_align.layers import Aligned
from da.types import Batch, Labelled

METHODS = [SHOT, AaD]
both = pytest.mark.parametrize("kind", METHODS)


def tensors(module):
    return {**module.state_dict(), **{name: getattr(module, name) for name in module.memory}}


def assert_equal(one, other):
    for (name, a), b in zip(tensors(one).items(), tensors(other).values(), strict=True):
        assert torch.equal(a, b), name


# What adaptation sees.


class Poison(torch.Tensor):
    """Raises whatever is done with it."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"the source was touched: {func}")


def poisoned(tensor):
    return torch.Tensor._make_subclass(Poison, tensor)


class Withheld(L.Callback):
    """From adaptation on, whatever there is of the source is something else."""

    def __init__(self, replace):
        self.replace = replace

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch != 2:
            return
        data, images = trainer.datamodule, trainer.datamodule.images

        def images_of(role, *args, **kwargs):
            assert role == "target"
            return images(role, *args, **kwargs)

        data.images = images_of
        training_step = pl_module.training_step

        def step(batch, batch_idx):
            assert pl_module.stage.name == "adapt"
            source = Labelled(*self.replace(batch.source))
            return training_step(Batch(source, batch.target), batch_idx)

        pl_module.training_step = step


def raising(source):
    return (poisoned(source.images),), poisoned(source.labels), poisoned(source.indices)


def other(source):
    return (torch.full_like(source.images, 9.0),), source.labels * 0, source.indices * 0


@both
@pytest.mark.parametrize("norm", ["bn", "wa"])
@pytest.mark.parametrize("replace", [raising, other])
def test_adaptation_is_the_same_whatever_the_source_is_by_then(kind, norm, replace):
    whole, without = (small(kind, norm=norm, seed=1) for _ in range(2))
    fit(whole, epochs=4)
    fit(without, epochs=4, callbacks=[Withheld(replace)])
    assert_equal(whole, without)


def test_the_poison_works():
    with pytest.raises(AssertionError, match="the source was touched"):
        poisoned(torch.ones(2)) + 1


@both
def test_no_label_of_the_target_is_used(kind):
    whole, without = (small(kind, norm="bn", seed=1) for _ in range(2))
    fit(whole, epochs=2)
    data = digits()
    data.prepare_data()
    labels = data.set_of("target", "train").labels
    labels.setflags(write=True)
    labels[:] = 0
    fit(without, data, epochs=2)
    assert_equal(whole, without)


@both
def test_the_source_stage_knows_nothing_of_the_target(kind):
    """The same source, another target: the same network up to adaptation."""
    kept = []

    class Keep(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 0:
                kept.append(copy.deepcopy(pl_module.network.state_dict()))

    class OtherTarget(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.current_epoch == 0:
                batch.target.images.fill_(7.0)

    for callbacks in ([Keep()], [Keep(), OtherTarget()]):
        fit(small(kind, norm="bn", seed=1), epochs=2, callbacks=callbacks)
    assert all(torch.equal(a, b) for a, b in zip(*(k.values() for k in kept), strict=True))


# How it begins.


@both
def test_each_stage_is_a_training_of_its_own(kind):
    """Rates and progress begin anew, and the momentum of the source is forgotten."""
    seen = []

    class Look(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            optimiser = trainer.optimizers[0]
            seen.append((pl_module.progress, optimiser.param_groups[0]["lr"], len(optimiser.state)))

    fit(small(kind, seed=1, lr=0.1, adaptation_factor=0.5), epochs=4, callbacks=[Look()])
    progress, rates, states = zip(*seen, strict=True)
    expected = [i / 6 for i in range(6)]
    assert progress == pytest.approx(expected * 2)
    annealed = [(1 + 10 * p) ** -0.75 for p in expected]
    assert rates == pytest.approx([0.1 * x for x in annealed] + [0.05 * x for x in annealed])
    assert [i for i, number in enumerate(states) if number == 0] == [0, 6]


def test_progress_follows_a_horizon_and_uneven_stages():
    seen = []

    class Look(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append(pl_module.progress)

    options = {"source_share": 0.34, "seed": 1}
    fit(small(SHOT, **options), digits(steps_per_epoch=1), epochs=4, callbacks=[Look()])
    assert seen == pytest.approx([0, 0, 1 / 3, 2 / 3])
    seen.clear()
    module = small(SHOT, horizon=10, **options)
    fit(module, digits(steps_per_epoch=2), epochs=3, callbacks=[Look()], accumulate_grad_batches=2)
    assert seen == pytest.approx([0, 0, 0, 0, 0.1, 0.1])


def test_shot_freezes_the_classifier_and_aad_trains_it():
    before = {}

    class Keep(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                before.update(copy.deepcopy(pl_module.network.state_dict()))

    for kind, frozen in ((SHOT, True), (AaD, False)):
        module = small(kind, norm="wa", seed=1)
        fit(module, epochs=2, callbacks=[Keep()])
        for name, value in module.network.state_dict().items():
            same = name.startswith("classifier.") and frozen
            assert torch.equal(value, before[name]) == same, name


@both
@pytest.mark.parametrize("norm", some_normalisers())
def test_every_normaliser_is_adapted(kind, norm, start):
    module = small(kind, norm=norm, seed=1, lr=0.01, **start(norm))
    before = {}

    class Keep(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                before.update(copy.deepcopy(pl_module.network.state_dict()))

    fit(module, digits(batch_size=8), epochs=2, callbacks=[Keep()])
    after = module.network.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    assert any(not torch.equal(v, after[k]) for k, v in before.items() if "backbone" in k)


def test_batch_norms_of_each_domain_begin_as_the_sources():
    seen = []

    class Look(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx:
                return
            layers = [m for m in pl_module.modules() if isinstance(m, DomainBatchNorm)]
            seen.append(
                [
                    torch.equal(a, b)
                    for layer in layers
                    for a, b in zip(
                        layer.source.state_dict().values(),
                        layer.target.state_dict().values(),
                        strict=True,
                    )
                ]
            )

    fit(small(SHOT, norm="dsbn", seed=1), epochs=4, callbacks=[Look()])
    assert all(seen[0])
    assert not all(seen[1])
    assert all(seen[2])
    assert not all(seen[3])


# How it is resumed.


class SaveAt(L.Callback):
    def __init__(self, path, step):
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@both
@pytest.mark.parametrize("norm", ["bn", "wa"])
@pytest.mark.parametrize("step", rest_long([2, 6, 7, 11], [6, 11]))
def test_a_run_that_is_resumed_within_an_epoch_ends_as_the_whole(kind, norm, step, tmp_path):
    whole, rest = (small(kind, norm=norm, seed=1, adaptation_factor=0.3) for _ in range(2))
    path = tmp_path / "within.ckpt"
    # Of 12 steps; the adaptation begins with the seventh.
    fit(whole, epochs=4, callbacks=[SaveAt(path, step)])
    torch.manual_seed(9)
    fit(rest, epochs=4, ckpt_path=path)
    assert_equal(whole, rest)
    assert all(len(getattr(rest, name)) for name in rest.memory)


@both
@pytest.mark.parametrize("horizon", [None, 20])
def test_a_run_that_is_resumed_for_longer_goes_on_in_its_adaptation(kind, horizon, tmp_path):
    """Of 2 epochs it begins with batch 3; of 5, its share would begin with batch 6."""
    seen = []

    class Look(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            seen.append((pl_module.progress, rate, pl_module.stage.name))

    options = {"seed": 1, "lr": 0.1, "adaptation_factor": 0.5, "horizon": horizon}
    fit(small(kind, **options), folder=tmp_path, epochs=2)
    fit(small(kind, **options), epochs=5, ckpt_path=tmp_path / "last.ckpt", callbacks=[Look()])
    progress, rates, stages = zip(*seen, strict=True)
    assert set(stages) == {"adapt"}
    assert progress == pytest.approx([(i - 3) / (horizon or 12) for i in range(6, 15)])
    # The first rate is what the shorter run's end had set.
    assert rates[1:] == pytest.approx([0.05 * (1 + 10 * p) ** -0.75 for p in progress[1:]])


@both
def test_a_networks_tensors_fit_data_of_any_size(kind):
    """What is remembered of the target's images is no part of what ``predict`` reads."""
    module, fresh = small(kind, seed=1), small(kind, seed=2)
    fit(module, epochs=2)
    fresh.prepare()
    fresh.load_state_dict(module.state_dict())
    assert not any(len(getattr(fresh, name)) for name in fresh.memory)


# Its network.


def test_the_classifier_is_weight_normalised_as_pytorchs():
    torch.manual_seed(0)
    ours = WeightNormLinear(6, 4)
    plain = nn.Linear(6, 4)
    with torch.no_grad():
        plain.weight.copy_(ours.weight)
        plain.bias.copy_(ours.bias)
    features = torch.randn(5, 6)
    torch.testing.assert_close(ours(features), plain(features))  # it begins as a plain one
    theirs = nn.utils.parametrizations.weight_norm(plain)
    with torch.no_grad():
        for direction in (ours.weight, theirs.parametrizations.weight.original1):
            direction.mul_(torch.tensor([[1.0], [2.0], [0.5], [3.0]]))
        for length in (ours.g, theirs.parametrizations.weight.original0):
            length.copy_(torch.tensor([0.5, 1.0, 2.0, 3.0]).view(length.shape))
    torch.testing.assert_close(ours(features), theirs(features))
    twin = pickle.loads(pickle.dumps(ours))
    assert torch.equal(twin(features), ours(features))


@pytest.mark.parametrize("norm", ["bn", "wa", "gn"])
def test_no_activation_follows_the_bottlenecks_normaliser(norm):
    network = small(SHOT, norm=norm, seed=1).network.eval()
    assert not any(isinstance(m, nn.ReLU) for m in network.bottleneck.modules())
    assert (network(torch.randn(8, 3, 32, 32)).features < 0).any()
    if norm == "wa":
        assert any(isinstance(m, Aligned) for m in network.bottleneck.modules())
    bare = small(SHOT, norm=norm, bottleneck=None)
    assert isinstance(bare.network.bottleneck, nn.Identity)


# Its baseline.


def spec(method, epochs, **options):
    return RunSpec(
        data="Digits",
        source="rendered",
        target="optical",
        method=method,
        method_args=options,
        norm="bn",
        model_args={"bottleneck": 16},
        lr=0.01,
        batch_size=8,
        steps_per_epoch=2,
        epochs=epochs,
        seed=0,
        trainer={"check_val_every_n_epoch": 4},
    )


def test_a_result_has_the_source_stages_network_with_statistics_of_the_target(tmp_path):
    """However seldom is evaluated; it is what the source stage alone comes to."""
    whole = train(spec("SHOT", 4), tmp_path / "whole")
    assert [evaluation.epoch for evaluation in whole.evaluations] == [2, 4]
    first = whole.evaluations[0].forms["target-stats"]
    assert first["target/test"].accuracy is not None
    alone = train(spec("SHOT", 2, source_share=1.0), tmp_path / "alone")
    last = alone.evaluations[-1].forms["target-stats"]
    assert last["target/test"].confusion is not None  # which the last evaluation alone keeps
    last["target/test"].confusion = None
    assert last == first
    assert whole.evaluations[1].forms["target-stats"] != first


def test_an_evaluation_that_is_due_anyway_is_made_once():
    recorder = Recorder(forms=False)
    options = {"limit_val_batches": 1, "check_val_every_n_epoch": 1}
    fit(small(SHOT), epochs=4, callbacks=[recorder, LastEvaluation()], **options)
    assert [entry["epoch"] for entry in recorder.history] == [1, 2, 3, 4]


# What is refused.


@both
def test_options_are_refused_in_one_line(kind):
    for value in (-0.1, 1.0):
        refused(lambda v=value: small(kind, label_smoothing=v), "label_smoothing: expected", "1")
    for value in (0.0, 1.5):
        refused(lambda v=value: small(kind, source_share=v), "source_share: expected a share")
    refused(lambda: small(kind, adaptation_factor=0.0), "adaptation_factor: expected a factor")


def test_norms_that_want_the_target_are_refused_where_no_stage_forwards_it():
    with pytest.raises(UserError, match="norm 'dsbn' keeps something of the target"):
        fit(small(SHOT, norm="dsbn", source_share=1.0))
