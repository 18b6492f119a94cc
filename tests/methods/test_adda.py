import copy
import math

import pytest
import pytorch_lightning as L
import torch
from short_runs import digits, fit, small, some_normalisers
from sklearn.metrics import log_loss
from torch import nn

from da.errors import UserError
from da.methods.adda import ADDA, inverted_loss
from da.methods.source_only import SourceOnly
from da.norms import batch_norms
from da.norms.dsbn import DomainBatchNorm

OBJECTIVES = ("reversal", "inverted")


class StopAfter(L.Callback):
    def __init__(self, epochs):
        self.epochs = epochs

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


class SaveAt(L.Callback):
    """Writes a checkpoint after some batch of the run."""

    def __init__(self, path, batches):
        self.path, self.batches = path, batches

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == self.batches:
            trainer.save_checkpoint(self.path)


def built(**options) -> ADDA:
    module = small(ADDA, **options)
    module.prepare()
    return module


def equal(a, b):
    return [torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True)]


def at_the_adaptation(module):
    """What the network is when the adaptation begins, once that has begun."""
    kept = {}
    start = module.start_stage

    def watched(stage):
        if stage.name == "adapt":
            kept.update(copy.deepcopy(module.network.state_dict()))
        start(stage)

    module.start_stage = watched
    return kept


def test_the_loss_of_inverted_labels_agrees_with_scikit_learn():
    logits = torch.randn(6, 1, generator=torch.Generator().manual_seed(0)).double()
    p = torch.sigmoid(logits).flatten().numpy()
    expected = log_loss([1] * 6, p, labels=[0, 1]) / 2
    assert inverted_loss(logits).item() == pytest.approx(expected, rel=1e-12)


def test_a_critic_that_is_sure_leaves_inverted_labels_their_gradient():
    logits = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = inverted_loss(logits)
    loss.backward()
    assert loss.item() == pytest.approx(1e4 / 4)
    assert logits.grad.tolist() == pytest.approx([-0.25, 0])


@pytest.mark.parametrize("norm", ["bn", "dsbn"])
@pytest.mark.parametrize("mode", ["joint", "separate"])
def test_the_source_stage_is_source_only_training(mode, norm):
    module = built(norm=norm, forward_mode=mode, seed=1)
    critic = copy.deepcopy(module.critic.state_dict())
    # Source-only is refused with dsbn, whose target it would leave as it is: here that is to come.
    alone = small(SourceOnly, norm="bn", seed=1)
    for each in (module, alone):
        fit(each, epochs=2, callbacks=[StopAfter(1)])
    pairs = dict(alone.network.named_parameters())
    for key, value in module.network.named_parameters():
        if "target" not in key:
            assert torch.equal(value, pairs[key.replace("source.", "")]), key
    assert all(equal(critic, module.critic.state_dict()))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("norm", some_normalisers())
def test_the_adaptation_moves_the_targets_features_and_the_critic_alone(norm, objective, start):
    module = built(norm=norm, objective=objective, **start(norm))
    kept = at_the_adaptation(module)
    critic = copy.deepcopy(module.critic)
    fit(module, digits(batch_size=8, steps_per_epoch=2), epochs=2)
    assert all(equal(kept, module.source_network.state_dict()))  # running statistics, too
    network = module.network.state_dict()
    assert all(torch.equal(v, network[k]) for k, v in kept.items() if k.startswith("classifier"))
    for part in ("backbone", "bottleneck"):
        moved = [
            k for k, v in kept.items() if k.startswith(part) and not torch.equal(v, network[k])
        ]
        assert moved, part
    assert not all(equal(critic.state_dict(), module.critic.state_dict()))
    assert module.evaluated() is module.network


def test_a_batch_norm_of_each_domain_starts_the_target_from_the_source():
    module = built(norm="dsbn")
    found = []
    start = module.start_stage

    def watched(stage):
        start(stage)
        layers = [m for m in module.network.modules() if isinstance(m, DomainBatchNorm)]
        found.append([all(equal(m.source.state_dict(), m.target.state_dict())) for m in layers])
        assert layers
        if stage.name == "adapt":
            assert (layers[0].target.running_mean != 0).any()

    module.start_stage = watched
    fit(module, epochs=2)
    assert [all(stage) for stage in found] == [True, True]
    last = [m for m in module.network.modules() if isinstance(m, DomainBatchNorm)][-1]
    assert not torch.equal(last.source.running_mean, last.target.running_mean)


def test_pretrained_weights_are_converted_for_both_networks(pretrained):
    module = small(ADDA, norm="wa", weights=pretrained, lr=1e-3, conversion_images=32)
    kept = at_the_adaptation(module)
    fit(module, digits(batch_size=8), epochs=2)
    assert module.converted is not None
    assert all(equal(kept, module.source_network.state_dict()))
    assert all(p.isfinite().all() for p in module.parameters())


def adapting(fake_trainer, **options):
    """A module in its adaptation, the target's network apart from the source's."""
    module = built(**options)
    trainer = fake_trainer(module, steps=10)
    trainer.step = 10
    with torch.no_grad():
        for parameter in module.network.parameters():
            parameter.add_(0.01)
    return module


@pytest.mark.parametrize("norm", ["bn", "wa"])
def test_the_critic_compares_the_frozen_source_with_the_target_alone(norm, batch, fake_trainer):
    module = adapting(fake_trainer, norm=norm, objective="inverted", trade_off=0.5)
    source = copy.deepcopy(module.source_network).eval()(batch.source.images, "source").features
    target = copy.deepcopy(module.network)(batch.target.images[:5], "target").features
    critic = copy.deepcopy(module.critic)
    logits = critic(torch.cat([source, target])).detach().double().flatten()
    p = torch.sigmoid(logits).numpy()
    batch = batch._replace(target=batch.target._replace(views=(batch.target.images[:5],)))
    domain, inverted = (step.compute() for step in module.steps(batch))
    halves = [log_loss([1] * 8, p[:8], labels=[0, 1]), log_loss([0] * 5, p[8:], labels=[0, 1])]
    assert domain.keys() == {"domain"}
    assert domain["domain"].item() == pytest.approx(0.5 * sum(halves) / 2, rel=1e-4)
    expected = 0.5 * module.reversal * log_loss([1] * 5, p[8:], labels=[0, 1]) / 2
    assert {k: v.item() for k, v in inverted.items()} == pytest.approx(
        {"inverted": expected}, rel=1e-4
    )
    assert module.source_network.training  # as it was


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("norm", ["bn", "dsbn"])
def test_a_batch_of_the_adaptation_moves_running_statistics_once(norm, objective):
    counted = []

    class Count(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            norms = batch_norms(pl_module.network, within_domain_layers=True)
            counted.append({k: int(m.num_batches_tracked) for k, m in norms.items()})

    fit(built(norm=norm, objective=objective), epochs=2, callbacks=[Count()])
    moved = {after - before for before, after in zip(*map(dict.values, counted[-2:]), strict=True)}
    assert moved == ({0, 1} if norm == "dsbn" else {1})


def test_features_climb_the_loss_that_the_critic_descends(batch, fake_trainer):
    module = adapting(fake_trainer, norm="wa")
    gradients = {}
    for maximum in (2.0, -1.0):  # strength -1 is no reversal at all
        module.hparams["reversal_maximum"] = maximum
        module.zero_grad()
        module.losses(batch)["domain"].backward()
        gradients[maximum] = (
            module.network.bottleneck[0].weight.grad.clone(),
            module.critic[0].weight.grad.clone(),
        )
    reversed_, plain = (gradients[maximum] for maximum in (2.0, -1.0))
    torch.testing.assert_close(reversed_[0], -2 * plain[0], rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(reversed_[1], plain[1])
    assert reversed_[0].abs().max() > 1e-6


@pytest.mark.parametrize(("horizon", "length"), [(None, 6), (12, 12)])
def test_the_reversal_begins_at_0_with_the_adaptation(horizon, length):
    module = built(horizon=horizon, reversal_gamma=4.0)
    strengths = []
    steps = module.steps

    def watched(batch):
        if module.stage.name == "adapt":
            strengths.append(module.reversal)
        yield from steps(batch)

    module.steps = watched
    fit(module, epochs=4)  # 6 batches each
    expected = [2 * (2 / (1 + math.exp(-4 * i / length)) - 1) for i in range(6)]
    assert strengths == pytest.approx(expected)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_run_that_is_resumed_for_longer_goes_on_with_its_reversal(objective, tmp_path):
    """Of 2 epochs the adaptation begins with batch 3; of 5, its share would begin with batch 6."""
    half, rest = (built(objective=objective, reversal_gamma=4.0) for _ in range(2))
    strengths = []
    steps = rest.steps

    def watched(batch):
        strengths.append(rest.reversal)
        yield from steps(batch)

    rest.steps = watched
    fit(half, folder=tmp_path, epochs=2)
    fit(rest, epochs=5, ckpt_path=tmp_path / "last.ckpt")
    expected = [2 * (2 / (1 + math.exp(-4 * (i - 3) / 12)) - 1) for i in range(6, 15)]
    assert strengths == pytest.approx(expected)


def test_momentum_starts_anew_with_the_adaptation():
    module = built()
    sizes = []
    steps = module.steps

    def watched(batch):
        sizes.append(len(module.optimizers().optimizer.state))
        yield from steps(batch)

    module.steps = watched
    fit(module, epochs=2)
    assert [size == 0 for size in sizes] == [True, False, False, True, False, False]


@pytest.mark.parametrize("done", [1, 3, 4])
@pytest.mark.parametrize(("norm", "objective"), [("bn", "reversal"), ("dsbn", "inverted")])
def test_a_run_that_is_resumed_in_either_stage_ends_as_the_whole(done, norm, objective, tmp_path):
    whole, rest = (small(ADDA, norm=norm, objective=objective, seed=1) for _ in range(2))
    path = tmp_path / "within.ckpt"
    data = {"batch_size": 8}
    fit(whole, digits(**data), epochs=2, callbacks=[SaveAt(path, done)])
    fit(rest, digits(**data), epochs=2, ckpt_path=path)
    assert rest.stage_began == 3
    for (key, a), b in zip(whole.state_dict().items(), rest.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


def test_no_bottleneck_is_no_obstacle():
    module = built(bottleneck=None)
    assert isinstance(module.network.bottleneck, nn.Identity)
    kept = at_the_adaptation(module)
    fit(module, epochs=2)
    assert not all(equal(kept, module.network.state_dict()))


@pytest.mark.parametrize("share", [0, 1, 1.5])
def test_a_stage_without_epochs_is_refused(share):
    with pytest.raises(UserError, match=f"share of the epochs between 0 and 1, got {share}"):
        small(ADDA, source_share=share)


def test_an_unknown_objective_is_refused_with_the_right_ones():
    with pytest.raises(UserError, match=r"unknown objective 'inverse'.*One of: .*reversal"):
        small(ADDA, objective="inverse")


def test_gradients_of_several_batches_are_refused_where_a_batch_makes_two_updates():
    with pytest.raises(UserError, match="accumulate_grad_batches: ADDA makes updates"):
        fit(small(ADDA, objective="inverted"), accumulate_grad_batches=2)
