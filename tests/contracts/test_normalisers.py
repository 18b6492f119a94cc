"""What every normaliser found on disk must do, WeightAlign's compositions included."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import pytorch_lightning as L
import torch
from short_runs import fit, small
from torch import Tensor, nn

from da.errors import UserError
from da.methods.entropy_minimisation import EntropyMinimisation
from da.norms import (
    Normaliser,
    batch_norms,
    fold,
    layers_of_batch_statistics,
    normaliser,
    normaliser_names,
)
from da.norms.base import DomainLayer, available_normalisers, tell_domains
from da.norms.flow import Flow
from da.norms.folding import fold_into_layers
from da.norms.frozen_batch_norm import FrozenBatchNorm
from da.norms.identity import BranchScale
from da.norms.surgery import replace_modules, scalable_layers
from da.norms.tracing import record_calls
from da.norms.weight_align.layers import ComputedWeight
from da.types import Segment


class Network(nn.Module):
    """A block with a shortcut, and the bottleneck and critic that methods put behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.block = nn.Sequential(
            *(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(8)),
        )
        # No bias before a batch norm: it would be cancelled there, and never move.
        self.bottleneck = nn.Sequential(nn.Linear(8, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU())
        self.classifier = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.block(x)).mean((2, 3))
        return self.classifier(self.bottleneck(x))


def tell_halves(model: nn.Module, inputs: tuple[Tensor]) -> None:
    """As the network of a method does: the first half is of the source; one image is a target."""
    size = len(inputs[0])
    halves = (Segment("source", size // 2), Segment("target", size - size // 2))
    tell_domains(model, tuple(half for half in halves if half.size))


def network(name: str, told: bool = True) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = normaliser(name).apply(Network())
    if told:
        model.register_forward_pre_hook(tell_halves)
    return model


def images(seed: int, batch: int = 8) -> Tensor:
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=normaliser_names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_parameter_moves_in_a_step(name: str) -> None:
    model = network(name)
    for factor in (m for m in model.modules() if isinstance(m, BranchScale)):
        nn.init.ones_(factor.scale)  # at 0 nothing behind it moves
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    largest = dict.fromkeys(before, 0.0)
    for seed in (1, 2):
        optimiser.zero_grad()
        loss = (model(images(seed)) - images(9)[:, :, 0, 0]).square().mean()
        assert loss.isfinite()
        loss.backward()
        for n, p in model.named_parameters():
            assert p.grad is not None, n
            assert p.grad.isfinite().all(), n
            # Rounding alone moves a parameter too: a gradient must be far above that.
            largest[n] = max(largest[n], float(p.grad.abs().max()))
        optimiser.step()
    assert all(value > 1e-5 for value in largest.values()), largest
    assert all(not torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_gradients_are_finite_in_bfloat16(name: str) -> None:
    model = network(name)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(images(1))
    outputs.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_evaluation_takes_one_image_and_does_not_depend_on_those_beside_it(name: str) -> None:
    model = network(name)
    model(images(2))
    model.eval()
    alone = model(images(1)[-1:])
    assert alone.isfinite().all()
    torch.testing.assert_close(model(images(1))[-1:], alone, rtol=1e-4, atol=1e-5)


def test_a_batch_of_one_is_trained_on_or_refused_with_a_reason(name: str) -> None:
    model = network(name).train()
    layers = layers_of_batch_statistics(model).values()
    if all(isinstance(layer, FrozenBatchNorm) for layer in layers):
        model(images(1, 1)).sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    else:
        with pytest.raises((UserError, ValueError), match="more than 1 value per channel"):
            model(images(1, 1))


def test_joint_and_separate_forwards_agree_where_that_is_said(name: str) -> None:
    joint = network(name, told=False).train()
    with torch.no_grad():
        for p in joint.parameters():  # away from shares and gates of 1
            p.mul_(0.8)
    separate = copy.deepcopy(joint)
    x = images(1)
    x[4:] = 2 * x[4:] + 1
    both = (Segment("source", 4), Segment("target", 4))
    tell_domains(joint, both)
    apart = []
    for segment, part in zip(both, x.split(4), strict=True):
        tell_domains(separate, (segment,))
        apart.append(separate(part))
    same = torch.allclose(joint(x), torch.cat(apart), rtol=1e-4, atol=1e-5)
    assert same != normaliser(name).mixes_domains


def test_what_folds_gives_plain_layers_that_compute_the_same(name: str) -> None:
    model = network(name, told=False)
    tell_domains(model, (Segment("target", 8),))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.rand_like(p))
    for _ in range(3):
        model(images(2))
    expected = model.eval()(images(1))
    plain = fold(model)
    assert not any(isinstance(m, ComputedWeight) for m in plain.modules())
    layers = {m: m.of_domain("target") for m in plain.modules() if isinstance(m, DomainLayer)}
    plain = replace_modules(plain, layers)
    torch.testing.assert_close(plain(images(1)), expected, rtol=1e-4, atol=1e-4)
    norms = batch_norms(plain).values()
    flow = Flow(record_calls(plain, images(1)))  # instance norm can't be traced
    swaps = fold_into_layers(plain, flow, norms, scalable_layers(plain))
    plain = replace_modules(plain, swaps)
    assert not batch_norms(plain)
    torch.testing.assert_close(plain(images(1)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [n for n in normaliser_names() if normaliser(n).needs_target])
def test_a_domain_that_comes_twice_in_a_batch_is_normalised_as_documented(name: str) -> None:
    """As FixMatch's two views do: apart, as in separate passes, or all of a domain together."""
    segments = (Segment("target", 2), Segment("source", 3), Segment("target", 3))
    x = images(1)

    def outputs(order: Sequence[int], *told: Segment) -> Tensor:
        model = network(name, told=False)
        tell_domains(model, told)
        outputs: Tensor = model(x[order])
        return outputs

    whole = outputs(range(8), *segments)
    if name in ("adabn", "dsbn"):
        parts = [range(2), range(2, 5), range(5, 8)]
        apart = [outputs(o, one) for o, one in zip(parts, segments, strict=True)]
        torch.testing.assert_close(whole, torch.cat(apart))
    else:
        order = [2, 3, 4, 0, 1, 5, 6, 7]
        together = outputs(order, Segment("source", 3), Segment("target", 5))
        torch.testing.assert_close(whole[order], together)


RESUMED = [
    pytest.param(name, marks=() if name in ("brn", "transnorm") else pytest.mark.long)
    for name in normaliser_names()
    if not normaliser(name).needs_gpu
]


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_ends_as_one_that_was_not_stopped(
    name: str, start: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    options = {"norm": name, "seed": 1, **start(name)}
    whole, half, rest = (small(EntropyMinimisation, **options) for _ in range(3))
    fit(whole, epochs=2)
    fit(half, folder=tmp_path, epochs=2, callbacks=[StopAfterFirst()])
    fit(rest, epochs=2, ckpt_path=tmp_path / "last.ckpt")
    for (key, a), b in zip(whole.state_dict().items(), rest.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


class StopAfterFirst(L.Callback):
    """Ends a run after its first epoch, as a signal would."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch == 0


def test_a_network_of_another_normaliser_is_refused_and_left_as_it_is(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU())
    before = list(model.modules())
    if name == "bn":
        assert normaliser(name).apply(model) is model
    else:
        with pytest.raises(UserError, match="use 'bn' to leave"):
            normaliser(name).apply(model)
    assert list(model.modules()) == before


def test_it_says_which_statistics_it_uses(name: str) -> None:
    text = " ".join((type(normaliser(name)).__doc__ or "").split())
    said = text.partition("Statistics:")[2]
    assert "training" in said
    assert "evaluation" in said


def test_the_state_round_trips(name: str) -> None:
    model, other = network(name).eval(), network(name).eval()
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.1 * torch.randn_like(p))
    assert not torch.equal(model(images(1)), other(images(1)))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(images(1)), other(images(1)))


def test_copies_and_pickles_act_the_same(name: str) -> None:
    model = network(name).eval()
    expected = model(images(1))
    assert torch.equal(copy.deepcopy(model)(images(1)), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(images(1)), expected)


def test_surgery_returns_the_model_and_keeps_the_random_state(name: str) -> None:
    model = Network()
    state = torch.get_rng_state()
    assert normaliser(name).apply(model) is model
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_stay_or_with_pretrained_statistics_what_they_compute(name: str) -> None:
    model = Network().eval()
    for norm in batch_norms(model).values():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.normal_(0, 0.3)
        norm.running_var.uniform_(0.3, 3)
    weights = {n: p.detach().clone() for n, p in model.named_parameters() if p.dim() > 1}
    expected = model(images(1))
    normaliser(name).apply(model)
    if normaliser(name).needs_pretrained:
        torch.testing.assert_close(model.eval()(images(1)), expected)
    else:
        assert all(torch.equal(model.get_parameter(n), w) for n, w in weights.items())


def test_what_is_frozen_stays_frozen_and_what_is_trained_is_trained(name: str) -> None:
    for trained in (False, True):
        model = normaliser(name).apply(Network().requires_grad_(trained))
        assert {p.requires_grad for p in model.parameters()} == {trained}


def test_a_wrong_option_is_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match="'no_such_option'") as caught:
        normaliser(name, no_such_option=1)
    assert "\n" not in str(caught.value)


def test_files_and_names_agree() -> None:
    kinds = available_normalisers()
    assert all(issubclass(kind, Normaliser) and kind.name == key for key, kind in kinds.items())
    files = [kind.__module__ for kind in kinds.values()]
    assert len(files) == len(set(files))
    composed = {f"wa+{key}" for key, kind in kinds.items() if kind.composes}
    assert set(normaliser_names()) == set(kinds) | composed
