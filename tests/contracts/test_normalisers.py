"""What every normaliser found on disk must do, WeightAlign's compositions included."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from da.errors import UserError
from da.norms import Normaliser, batch_norms, normaliser, normaliser_names
from da.norms.base import available_normalisers, tell_domains
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


def network(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = normaliser(name).apply(Network())
    model.register_forward_pre_hook(tell_halves)
    return model


def images(seed: int, batch: int = 8) -> Tensor:
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=normaliser_names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_parameter_moves_in_a_step(name: str) -> None:
    model = network(name)
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


def test_evaluation_is_finite_and_takes_one_image(name: str) -> None:
    model = network(name).eval()
    assert model(images(1, 1)).isfinite().all()


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
