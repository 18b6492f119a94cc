"""What holds for every method found on disk."""

import copy
import itertools

import pytest
import pytorch_lightning as L
import torch
from long_cases import rest_long
from short_runs import digits, epochs_of_all_stages, fit, small
from torch import nn

from da.engine.components import available_methods, parameters_of
from da.errors import Diverged, UserError
from da.methods.base import Method
from da.networks.network import Network
from da.norms import normaliser, normaliser_names
from da.norms.autodial import AutoDialLayer
from da.selection.base import available_scores

METHODS = available_methods()
# A loss of one kind each, several updates, views, averages of weights, stages.
KINDS = ("SourceOnly", "DANN", "JAN", "MCD", "SDAT", "ADDA", "FixMatch", "MeanTeacher", "SHOT")


def build(name: str, **options) -> Method:
    module = small(METHODS[name], **options)
    module.prepare()
    return module


def test_the_three_first_methods_are_found():
    assert {"SourceOnly", "DANN", "EntropyMinimisation"} <= set(METHODS)


def test_own_scores_are_scores():
    for method in METHODS.values():
        assert set(method.own_scores) <= set(available_scores())


# Each method and each normaliser at least once; all pairs of them in the long tests.
OF_BOTH = [name for name in METHODS if METHODS[name].needs.target]
NORMS = normaliser_names()
COUNT = max(len(OF_BOTH), len(NORMS))
PAIRS = [(OF_BOTH[i % len(OF_BOTH)], NORMS[i % len(NORMS)]) for i in range(COUNT)]
TRIPLES = [
    *((name, "joint", "bn") for name in METHODS),
    *((name, "separate", "wa") for name in METHODS if name not in OF_BOTH),
    *((name, "separate", norm) for name, norm in PAIRS),
]
OF_DOMAINS = [name for name in NORMS if normaliser(name).needs_target]
ALL_TRIPLES = {
    *TRIPLES,
    *itertools.product(METHODS, ["joint"], NORMS),
    *itertools.product(METHODS, ["separate"], ("bn", "wa", "wa+bn", "gn", *OF_DOMAINS)),
}
# Six updates of a batch, each normalised with the running averages of the other domain: rn's gates
# diverge at the rate that all others take.
LOWER_RATE = {("MCD", "separate", "rn"): 0.01}


@pytest.mark.parametrize(("name", "mode", "norm"), rest_long(sorted(ALL_TRIPLES), TRIPLES))
def test_every_trainable_parameter_moves_and_stays_finite(name, mode, norm, start):
    lr = LOWER_RATE.get((name, mode, norm), 0.05)
    options = {"weight_decay": 0.0, "lr": lr, "anneal_alpha": 0.0, **start(norm)}
    # What only the target has does not move as long as no pseudo-label of the target is sure.
    known = parameters_of(METHODS[name])
    options |= {option: 0.0 for option in ("threshold", "confidence") if option in known}
    module = build(name, forward_mode=mode, norm=norm, **options)
    for layer in module.modules():
        if isinstance(layer, AutoDialLayer):  # begins at a bound, to which a step may take it back
            nn.init.constant_(layer.alpha, 0.75)
    before = {k: p.detach().clone() for k, p in module.named_parameters() if p.requires_grad}
    # The second step moves what a zero initialisation hid; a gradient reversal begins at 0.
    data = digits(batch_size=8, steps_per_epoch=3)
    kind = normaliser(norm)
    if kind.needs_gpu or (kind.needs_target and not METHODS[name].needs.target):
        with pytest.raises(UserError, match=f"norm '{norm}' (needs a GPU|keeps something of the)"):
            fit(module, data)
        return
    fit(module, data, epochs=epochs_of_all_stages(module))
    after = dict(module.named_parameters())
    assert all(p.isfinite().all() for p in after.values())
    assert not [k for k, p in before.items() if torch.equal(p, after[k])]


class Seen(L.Callback):
    """What was logged of every batch, and the steps that the run counted."""

    def __init__(self):
        self.logged = []
        self.counted = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.logged.append(
            {k: float(v) for k, v in trainer.logged_metrics.items() if k.startswith("loss/")}
        )
        self.counted.append(trainer.global_step)


@pytest.mark.parametrize("name", METHODS)
def test_each_loss_term_is_logged_and_a_batch_counts_once(name):
    module = build(name)
    seen = Seen()
    progress = []
    steps = module.steps

    def noted(batch):
        for step in steps(batch):
            progress.append(module.progress)
            yield step

    module.steps = noted
    epochs = epochs_of_all_stages(module)
    trainer = fit(module, epochs=epochs, callbacks=[seen], log_every_n_steps=1)
    batches = 3 * epochs  # however many updates a batch makes
    assert seen.counted == list(range(1, batches + 1))
    of_run, of_stage = ([i / n for i in range(n)] for n in (batches, 3))
    assert sorted(set(progress)) in (pytest.approx(of_run), pytest.approx(of_stage))
    assert trainer.global_step == batches
    assert "loss/task" in seen.logged[2]  # of the first epoch; a later stage may have no labels
    assert module.logged_terms
    assert set(module.logged_terms) <= set(seen.logged[-1])


@pytest.mark.parametrize("name", rest_long(METHODS, KINDS))
def test_joint_and_separate_agree_with_weightalign_and_not_with_batch_norm(name):
    found = {}
    for norm in ("wa", "bn"):
        for mode in ("joint", "separate"):
            module = small(METHODS[name], norm=norm, forward_mode=mode, seed=1, lr=1e-3)
            fit(module, digits(batch_size=8), epochs=epochs_of_all_stages(module))
            found[norm, mode] = torch.cat([p.flatten() for p in module.network.parameters()])
    torch.testing.assert_close(found["wa", "joint"], found["wa", "separate"], rtol=1e-3, atol=1e-5)
    if module.needs.target and any(stage.source and stage.target for stage in module.stages()):
        assert (found["bn", "joint"] - found["bn", "separate"]).abs().max() > 1e-4


@pytest.mark.parametrize("name", METHODS)
def test_checkpoint_round_trip_gives_equal_outputs(name, batch, tmp_path):
    module = build(name, norm="wa", seed=1)
    other = build(name, norm="wa", seed=2)
    torch.save(module.state_dict(), tmp_path / "state.pt")
    images = batch.source.images
    assert not torch.equal(module(images), other(images))
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(module.eval()(images), other.eval()(images))


@pytest.mark.parametrize("name", rest_long(METHODS, KINDS))
def test_a_resumed_run_ends_as_one_that_was_not_stopped(name, tmp_path):
    whole, half, rest = (small(METHODS[name], norm="wa", seed=1) for _ in range(3))
    fit(whole, epochs=2)
    # The horizon is the same: half of a run is not a shorter run.
    fit(half, folder=tmp_path, epochs=2, callbacks=[StopAfter(1)])
    fit(rest, epochs=2, ckpt_path=tmp_path / "last.ckpt")
    for (key, a), b in zip(whole.state_dict().items(), rest.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_of_one_is_trained_on_or_refused_before_anything_is(name):
    module, data = small(METHODS[name], norm="wa"), digits(batch_size=1, steps_per_epoch=1)
    if module.smallest_batch == 1:
        fit(module, data, epochs=epochs_of_all_stages(module))
        assert all(p.isfinite().all() for p in module.parameters())
    else:
        with pytest.raises(UserError, match=f"batch_size: {name} compares .* least 2, got 1"):
            fit(module, data)
        assert module.initial_loss is None


WEIGHTS = (
    *("trade_off", "mcc_trade_off", "reversal_maximum", "reversal_gamma", "penalty", "balance"),
    *("class_balance", "entropy", "diversity", "pseudo_labels", "dispersion", "radius"),
)


@pytest.mark.parametrize("name", METHODS)
def test_weights_below_0_are_refused_by_name(name):
    for option in [option for option in WEIGHTS if option in small(METHODS[name]).hparams]:
        with pytest.raises(UserError, match=rf"^{option}: expected .* got -0\.5$"):
            small(METHODS[name], **{option: -0.5})


@pytest.mark.parametrize("name", METHODS)
def test_numbers_that_are_infinite_or_none_are_refused_by_name(name):
    common = {} if name == "SourceOnly" else small(METHODS["SourceOnly"]).hparams
    for option, usual in small(METHODS[name]).hparams.items():
        if isinstance(usual, float) and option not in common:
            for number in (float("nan"), float("inf")):
                with pytest.raises(UserError, match=rf"^{option}: expected .* got {number}$"):
                    small(METHODS[name], **{option: number})


@pytest.mark.parametrize("name", METHODS)
def test_a_run_that_diverges_says_so(name):
    """Whatever the losses are made of: a decomposition refuses what isn't finite by itself."""
    module = small(METHODS[name], norm="none", lr=1e12)
    with pytest.raises(Diverged, match=r"the loss at step .* is not finite"):
        fit(module, digits(steps_per_epoch=9), epochs=epochs_of_all_stages(module))


class StopAfter(L.Callback):
    """Ends a run after some epochs, as a signal would."""

    def __init__(self, epochs):
        self.epochs = epochs

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


@pytest.mark.parametrize("name", METHODS)
def test_what_is_evaluated_is_a_plain_network_that_stands_alone(name, batch):
    module = build(name, norm="wa")
    network = module.evaluated().eval()
    twin = copy.deepcopy(network)
    images = batch.target.images
    with torch.no_grad():
        # A CPU evaluates channels-last, which sums in another order.
        torch.testing.assert_close(network(images).logits, module.eval()(images))
        assert torch.equal(network(images).logits, twin(images).logits)
        for parameter in twin.parameters():
            parameter.add_(1.0)
        assert not torch.equal(network(images).logits, twin(images).logits)


@pytest.mark.parametrize("name", METHODS)
def test_initial_weights_match_across_normalisers_and_differ_across_tasks(name):
    bn, wa = (build(name, norm=norm, task="a->b", seed=3).state_dict() for norm in ("bn", "wa"))
    # Normalised layers may be renamed or replaced; weights of equal name and shape must match.
    shared = [k for k in bn if k in wa and bn[k].shape == wa[k].shape and "weight" in k]
    weights = [k for k in shared if bn[k].ndim >= 2]
    assert len(weights) >= 9
    assert all(torch.equal(bn[k], wa[k]) for k in weights)
    other = build(name, norm="bn", task="a->c", seed=3).state_dict()
    assert not any(torch.equal(bn[k], other[k]) for k in weights)


@pytest.mark.parametrize("name", METHODS)
def test_wrong_names_are_refused_with_the_right_ones(name):
    with pytest.raises(UserError, match=r"unknown normaliser 'wb'.*One of: .* bn, .*wa"):
        build(name, norm="wb")
    with pytest.raises(UserError, match=r"unknown backbone 'resnet5'.*resnet50"):
        build(name, backbone="resnet5")


@pytest.mark.parametrize("name", METHODS)
def test_the_target_is_forwarded_in_training_only_by_methods_that_need_it(name):
    module = build(name, norm="bn")
    seen = []

    class Shown(L.Callback):
        """Looks at what each batch had the network forward."""

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.clear()

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            stage, shown = pl_module.stage, torch.cat(seen)
            for images, wanted in (
                (batch.source.images, stage.source),
                # Every view that a method asks for, or none.
                (torch.cat(batch.target.views), module.needs.target and stage.target),
            ):
                forwarded = [any(torch.equal(x, y) for y in shown) for x in images]
                assert all(forwarded) if wanted else not any(forwarded)

    # A teacher forwards a view that its student never sees; a method may put other heads behind a
    # backbone, in a network that is none of its modules.
    for network in (m for m in module.modules() if isinstance(m, Network)):
        network.backbone.register_forward_pre_hook(lambda m, x: seen.append(x[0].detach()))
    data = digits(batch_size=8, steps_per_epoch=1)
    fit(module, data, callbacks=[Shown()], epochs=epochs_of_all_stages(module))
    assert seen


@pytest.mark.parametrize("name", METHODS)
def test_gradients_are_averaged_over_batches_or_that_is_refused_by_name(name):
    module = build(name)
    if module.makes_one_update:
        assert fit(module, accumulate_grad_batches=2).global_step == 2  # 3 batches
    else:
        with pytest.raises(UserError, match=f"accumulate_grad_batches: {name} makes updates"):
            fit(module, accumulate_grad_batches=2)


@pytest.mark.parametrize("norm", normaliser_names())
def test_copies_are_independent(norm, start, batch):
    module = build("SourceOnly", norm=norm, **start(norm)).eval()
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    assert not torch.equal(module(batch.source.images), twin(batch.source.images))
