"""What holds for every method found on disk."""

import copy

import pytest
import torch

from da.engine.training import methods
from da.errors import UserError
from da.methods.base import Method
from da.norms import names

METHODS = methods()
SMALL = {"bottleneck": 16}
OWN = {"DANN": {"critic_width": 8}}


def build(name: str, **kwargs) -> Method:
    return METHODS[name](num_classes=4, **SMALL, **OWN.get(name, {}), **kwargs)


def test_the_three_first_methods_are_found():
    assert {"SourceOnly", "DANN", "EntropyMinimisation"} <= set(METHODS)


@pytest.mark.parametrize("norm", ["bn", "wa", "wa+bn", "gn"])
@pytest.mark.parametrize("mode", ["joint", "separate"])
@pytest.mark.parametrize("name", METHODS)
def test_losses_are_finite_and_every_trainable_parameter_moves(
    name, mode, norm, fake_trainer, batch
):
    module = build(name, forward_mode=mode, norm=norm, weight_decay=0.0, lr=0.1)
    trainer = fake_trainer(module, steps=10)
    trainer.step = 5  # reversal and schedules are on
    before = {k: p.detach().clone() for k, p in module.named_parameters() if p.requires_grad}
    optimiser = module.configure_optimizers()["optimizer"]
    for _ in range(2):  # the second step moves what a zero initialisation hid
        optimiser.zero_grad()
        losses = module.losses(batch)
        assert all(torch.isfinite(loss) and loss.ndim == 0 for loss in losses.values())
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
    still = [k for k, p in module.named_parameters() if k in before and torch.equal(p, before[k])]
    assert not still


@pytest.mark.parametrize("name", METHODS)
def test_each_loss_term_reaches_the_logged_total(name, fake_trainer, batch):
    module = build(name)
    trainer = fake_trainer(module)
    total = module.training_step(batch, 0)
    terms = [v for k, v in trainer.logged.items() if k.startswith("loss/")]
    assert total.item() == pytest.approx(sum(t.item() for t in terms), rel=1e-6)
    assert "loss/task" in trainer.logged


@pytest.mark.parametrize("name", METHODS)
def test_joint_and_separate_agree_with_weightalign_and_not_with_batch_norm(
    name, fake_trainer, batch
):
    found = {}
    for norm in ("wa", "bn"):
        for mode in ("joint", "separate"):
            module = build(name, norm=norm, forward_mode=mode, seed=1)
            fake_trainer(module).step = 50
            found[norm, mode] = torch.stack(list(module.losses(batch).values())).sum().item()
    assert found["wa", "joint"] == pytest.approx(found["wa", "separate"], rel=1e-4)
    if module.uses_target:
        assert found["bn", "joint"] != pytest.approx(found["bn", "separate"], rel=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_checkpoint_round_trip_gives_equal_outputs(name, batch, tmp_path):
    module = build(name, norm="wa", seed=1)
    other = build(name, norm="wa", seed=2)
    torch.save(module.state_dict(), tmp_path / "state.pt")
    images = batch.source.images
    assert not torch.equal(module(images), other(images))
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(module.eval()(images), other.eval()(images))


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
    with pytest.raises(UserError, match=r"unknown normaliser 'wb'.*One of: bn, .*wa"):
        build(name, norm="wb")
    with pytest.raises(UserError, match=r"unknown backbone 'resnet5'.*resnet50"):
        build(name, backbone="resnet5")


@pytest.mark.parametrize("name", METHODS)
def test_source_only_never_forwards_the_target(name, fake_trainer, batch):
    module = build(name, norm="bn")
    fake_trainer(module)
    seen = []
    module.network.backbone.register_forward_hook(lambda m, x, y: seen.append(len(x[0])))
    module.losses(batch)
    assert sum(seen) == (16 if module.uses_target else 8)
    if not module.uses_target:
        twin = build(name, norm="bn")
        twin.activations(batch.source.images)
        for a, b in zip(module.buffers(), twin.buffers(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("norm", names())
def test_copies_are_independent(norm, batch):
    module = build("SourceOnly", norm=norm).eval()
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    assert not torch.equal(module(batch.source.images), twin(batch.source.images))
