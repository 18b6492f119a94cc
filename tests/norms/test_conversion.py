"""Weights trained with batch norm as a start for WeightAlign: the fit, and what comes out."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from da.errors import UserError
from da.networks.backbones.base import build_backbone
from da.norms import WeightAlign
from da.norms import convert_pretrained as convert_by_default
from da.norms.weight_align.channel_bases import (
    find_streams,
    least_missed_direction,
    reflection_to_ones,
    turn_streams,
)
from da.norms.weight_align.constant_channels import (
    find_depthwise_readers,
    make_constant,
    most_replaceable_channel,
)
from da.norms.weight_align.conversion import Conversion
from da.norms.weight_align.filter_inputs import sample_rows
from da.norms.weight_align.filter_losses import FilterLoss, measure_losses
from da.norms.weight_align.layers import Aligned
from da.norms.weight_align.least_squares import SecondMoments, zero_sum_fit
from da.norms.weight_align.output_errors import relative_error
from da.norms.weight_align.paired_networks import trace_graph


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def settled(model: nn.Module, images: Tensor) -> nn.Module:
    """The model in evaluation mode, with running statistics of the images."""
    model.train()
    with torch.no_grad():
        for _ in range(30):
            model(images)
    return model.eval()


def convert_pretrained(model: nn.Module, *images: Any, **options: Any) -> Conversion:
    """Every layer aligned and fitted, and nothing else."""
    return convert_by_default(model, *images, **{"normaliser": WeightAlign(), **options})


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# The fit.


def correlated(count: int, n: int, seed: int = 0) -> Tensor:
    return random(count, n, seed=seed) @ random(n, n, seed=seed + 1) / n**0.5 + 1


def moments_of(x: Tensor, t: Tensor) -> SecondMoments:
    found = SecondMoments()
    for part in zip(x.split(300, 1), t.split(300, 1), strict=True):
        found.add(*part)
    return found


@pytest.mark.parametrize("rows_of_x", [400, 5000, 4], ids=["one block", "blocks", "few rows"])
def test_the_fit_is_what_numpy_finds_by_eliminating_a_weight(rows_of_x: int) -> None:
    """min |X v + b - t|²/R + λ|v - w|² with v = B u, the columns of B spanning the zero sums."""
    x, t = correlated(rows_of_x, 6).double(), random(rows_of_x, 3, seed=5).double()
    w = random(3, 6, seed=6)
    v, b = zero_sum_fit(moments_of(x[None], t[None]), w[None], 0.01)

    deviations = (x - x.mean(0)).numpy()
    ridge = 0.01 * (deviations**2).mean()
    basis = np.vstack([np.eye(5), -np.ones((1, 5))])
    wanted = (t - t.mean(0)).numpy()
    root = np.sqrt(rows_of_x)
    system = np.vstack([deviations @ basis / root, np.sqrt(ridge) * basis])
    sides = np.vstack([wanted / root, np.sqrt(ridge) * w.double().numpy().T])
    expected = basis @ np.linalg.lstsq(system, sides, rcond=None)[0]
    np.testing.assert_allclose(v[0].T.numpy(), expected, atol=1e-9)
    intercept = t.mean(0).numpy() - x.mean(0).numpy() @ expected
    np.testing.assert_allclose(b[0].numpy(), intercept, atol=1e-9)


def test_on_the_input_that_the_filter_saw_it_is_the_closed_form() -> None:
    """v = w - C⁻¹1 (1ᵀw) / (1ᵀC⁻¹1)."""
    x, w = correlated(500, 8).double(), random(4, 8, seed=3).double()
    v, b = zero_sum_fit(moments_of(x[None], (x @ w.T + 2)[None]), w[None], 1e-9)
    inverse = np.linalg.inv(np.cov(x.numpy(), rowvar=False))
    ones = inverse.sum(1)
    expected = w.numpy() - np.outer(w.numpy().sum(1), ones / ones.sum())
    np.testing.assert_allclose(v[0].numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(
        b[0].numpy(), 2 + x.mean(0).numpy() @ (w.numpy() - expected).T, atol=1e-6
    )


def test_inputs_that_never_move_cost_nothing() -> None:
    """The constraint is met by the weights that see a constant, and the output is kept."""
    x, w = correlated(500, 8).double(), random(4, 8, seed=3).double()
    x[:, 5] = 0.0
    v, b = zero_sum_fit(moments_of(x[None], (x @ w.T)[None]), w[None], 1e-9)
    assert torch.allclose(x @ v[0].T + b, x @ w.T, atol=1e-6)
    assert v.sum(2).abs().max() < 1e-12


def test_each_group_is_fitted_by_itself_and_a_dead_one_is_centred() -> None:
    x = torch.stack([correlated(300, 5), correlated(300, 5, seed=9), torch.ones(300, 5)]).double()
    t, w = random(3, 300, 2, seed=4).double(), random(3, 2, 5, seed=8).double()
    v, b = zero_sum_fit(moments_of(x, t), w, 1e-3)
    for group in range(2):
        alone, shift = zero_sum_fit(
            moments_of(x[group : group + 1], t[group : group + 1]), w[group : group + 1], 1e-3
        )
        torch.testing.assert_close(v[group], alone[0])
        torch.testing.assert_close(b[group], shift[0])
    torch.testing.assert_close(v[2], w[2] - w[2].mean(1, keepdim=True))
    torch.testing.assert_close(b[2], t[2].mean(0))


LAYERS = {
    "linear": (nn.Linear(6, 4), (6,)),
    "1d": (nn.Conv1d(3, 4, 3, stride=2, padding=1), (3, 9)),
    "2d": (nn.Conv2d(3, 4, (3, 2)), (3, 7, 6)),
    "3d": (nn.Conv3d(2, 4, 2, padding=1), (2, 3, 4, 3)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2, padding=1), (4, 6, 5)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4, stride=2), (4, 7, 7)),
    "dilated": (nn.Conv2d(3, 4, 3, dilation=(2, 1), stride=(1, 2), padding=(2, 0)), (3, 7, 8)),
    "same": (nn.Conv2d(3, 4, (2, 4), padding="same"), (3, 6, 7)),
    "reflected": (nn.Conv2d(3, 4, 3, padding=2, padding_mode="reflect"), (3, 6, 7)),
    "circular": (nn.Conv1d(3, 4, 3, padding=1, padding_mode="circular"), (3, 8)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("per_image", [5, 1000])
def test_rows_are_what_the_filters_take_in_and_put_out(name: str, per_image: int) -> None:
    layer, shape = LAYERS[name]
    x = random(3, *shape)
    with torch.no_grad():
        t = layer(x)
    taken, given = sample_rows(layer, x, t, per_image, torch.Generator().manual_seed(0))
    groups = getattr(layer, "groups", 1)
    weight = layer.weight.detach().reshape(groups, len(layer.weight) // groups, -1)
    bias = layer.bias.detach().reshape(groups, 1, -1)
    torch.testing.assert_close(taken @ weight.mT + bias, given)
    positions = t[0, 0].numel() if t.dim() > 2 else 1
    assert given.shape[1] == 3 * min(per_image, positions)
    distinct = {tuple(row.tolist()) for row in given.transpose(0, 1).flatten(1)}
    assert len(distinct) == given.shape[1]


# The network.


def test_the_original_stays_and_the_structure_is_that_of_the_surgery(
    some_case: tuple[nn.Module, Tensor],
) -> None:
    model, images = some_case
    settled(model, images)
    model.train()
    before, modes = state(model), {n: m.training for n, m in model.named_modules()}
    kept = images.clone()
    result = convert_pretrained(model, images.repeat(4, *(1 for _ in images.shape[1:])))
    assert (result.images, result.held_out) == (15, 1)
    assert torch.equal(images, kept)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert modes == {n: m.training for n, m in model.named_modules()}

    plain = WeightAlign().apply(copy.deepcopy(model))
    assert str(plain) == str(result.model)
    plain.load_state_dict(result.model.state_dict())
    torch.testing.assert_close(plain.eval()(images), result.model.eval()(images))
    expected = [n for n, m in plain.named_modules() if isinstance(m, Aligned)]
    assert sorted(error.name for error in result.layers) == sorted(expected)


def test_filters_sum_to_zero_and_have_the_norm_of_he(some_case: tuple[nn.Module, Tensor]) -> None:
    model, images = some_case
    result = convert_pretrained(settled(model, images), images, images)
    for layer in result.model.modules():
        if isinstance(layer, Aligned):
            v = layer.aligned_weight().flatten(1)
            assert v.sum(1).abs().max() <= 1e-5 * v.abs().sum(1).max()
            torch.testing.assert_close(v.norm(dim=1), layer.g * layer.gain**0.5)
            variance = layer.weight.flatten(1).var(1, correction=0)
            torch.testing.assert_close(variance, torch.full_like(variance, layer.gain / v.shape[1]))


def centred(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
                dims = tuple(range(1, module.weight.dim()))
                module.weight -= module.weight.mean(dims, keepdim=True)
    return model


def test_a_network_whose_filters_sum_to_zero_is_converted_exactly(
    some_case: tuple[nn.Module, Tensor],
) -> None:
    model, images = some_case[0].double(), some_case[1].double()
    settled(centred(model), images)
    result = convert_pretrained(model, images, images)
    assert result.error < 1e-8
    assert result.agreement in (1.0, None)
    assert all(layer.error < 1e-8 for layer in result.layers)
    with torch.no_grad():
        expected, found = model(images), result.model.eval()(images)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.std()))


def small(channels: int = 6) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            *(nn.Conv2d(3, channels, 3, bias=False), nn.BatchNorm2d(channels), nn.ReLU()),
            *(nn.Conv2d(channels, channels, 3), nn.BatchNorm2d(channels), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)),
        )


def test_converting_beats_aligning_as_it_is() -> None:
    images, others = random(64, 3, 10, 10).abs(), random(64, 3, 10, 10, seed=1).abs()
    model = settled(small(24), images)
    result = convert_pretrained(model, images, others)
    plain = WeightAlign().apply(copy.deepcopy(model)).eval()
    with torch.no_grad():
        wanted = model(others)
        measured = relative_error([result.model(others)], [wanted])
        assert measured == pytest.approx(result.error, rel=1e-4)
        assert result.error < 0.7 * relative_error([plain(others)], [wanted])
        same = (result.model(others).argmax(1) == wanted.argmax(1)).double().mean()
    assert result.agreement == pytest.approx(float(same))


def test_the_layers_errors_are_those_of_the_whole_network_up_to_there() -> None:
    images, others = random(40, 3, 8, 8).abs(), random(30, 3, 8, 8, seed=1).abs()
    model = settled(small(), images)
    result = convert_pretrained(model, images, others)
    assert [layer.name for layer in result.layers] == ["0", "3"]
    for layer, upto in zip(result.layers, (2, 5), strict=True):
        with torch.no_grad():
            given, wanted = result.model[:upto](others), model[:upto](others)
        assert layer.error == pytest.approx(relative_error([given], [wanted]), rel=1e-3)


def test_relative_error_is_one_minus_the_share_explained() -> None:
    wanted = random(50, 3, 4)
    mean = wanted.mean((0, 2), keepdim=True)
    assert relative_error([mean.expand_as(wanted)], [wanted]) == pytest.approx(1)
    given = wanted + 0.1 * random(50, 3, 4, seed=1)
    expected = (given - wanted).square().sum() / (wanted - mean).square().sum()
    split = relative_error(list(given.split(7)), list(wanted.split(7)))
    assert split == pytest.approx(float(expected))


def test_every_tenth_image_is_held_out_and_nothing_of_it_fitted() -> None:
    images = random(40, 3, 8, 8).abs()
    model = settled(small(), images)
    result = convert_pretrained(model, images)
    assert (result.images, result.held_out) == (36, 4)
    kept = [i for i in range(40) if i % 10 != 9]
    by_hand = convert_pretrained(model, images[kept].split(5), iter(images[9::10].split(3)))
    assert (by_hand.images, by_hand.held_out) == (36, 4)
    assert by_hand.error == pytest.approx(result.error, rel=1e-3)
    others = images.clone()
    others[9::10] = 7.0
    same = state(convert_pretrained(model, others).model)
    assert all(torch.equal(v, same[n]) for n, v in state(result.model).items())


def test_random_numbers_are_left_alone_and_the_result_repeats() -> None:
    images = random(20, 3, 8, 8)
    model = settled(small(), images)
    before = torch.get_rng_state()
    first, second = (state(convert_pretrained(model, images).model) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(v, second[n]) for n, v in first.items())


def test_progress_counts_the_layers() -> None:
    calls = []
    images = random(20, 3, 8, 8)
    convert_pretrained(small().eval(), images, progress=lambda *count: calls.append(count))
    assert calls == [(1, 2), (2, 2)]


def test_a_batch_norm_that_no_layer_feeds_becomes_what_it_computed() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.Flatten())
    images = random(40, 3, 5, 5) * 3 + 1
    settled(centred(model), images)
    result = convert_pretrained(model, images)
    with torch.no_grad():
        torch.testing.assert_close(result.model[0](images), model[0](images))
        torch.testing.assert_close(result.model(images), model(images), atol=1e-4, rtol=1e-4)


def test_a_layer_left_out_takes_its_batch_norm_in_and_computes_the_same() -> None:
    images = random(40, 3, 8, 8)
    model = settled(small(), images)
    nn.init.normal_(model[1].weight)
    result = convert_pretrained(model, images, normaliser=WeightAlign(exclude="0"))
    assert [layer.name for layer in result.layers] == ["3"]
    assert isinstance(result.model[1], nn.Identity)
    with torch.no_grad():
        torch.testing.assert_close(result.model[:2](images), model[:2](images))


def separable() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            *(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU6()),
            *(nn.Conv2d(8, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6()),
            *(nn.Conv2d(12, 12, 3, groups=12, bias=False), nn.BatchNorm2d(12), nn.ReLU6()),
            *(nn.Conv2d(12, 8, 1, bias=False), nn.BatchNorm2d(8)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
        )


def test_by_default_stem_and_depthwise_layers_are_plain_and_more_is_kept() -> None:
    images, others = random(64, 3, 12, 12).abs(), random(64, 3, 12, 12, seed=1).abs()
    model = settled(separable(), images)
    result = convert_by_default(model, images, others)
    assert [layer.name for layer in result.layers] == ["3", "9"]
    coverage = result.coverage
    assert coverage is not None
    assert coverage.left == ("0", "6")
    assert result.error < 0.7 * convert_pretrained(model, images, others).error


class Bottlenecks(nn.Module):
    """Two blocks with a shortcut, whose sums no activation follows, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.expand = nn.ModuleList(nn.Conv2d(6, 12, 1) for _ in range(2))
        self.project = nn.ModuleList(nn.Conv2d(12, 6, 1) for _ in range(2))
        self.head = nn.Conv2d(6, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for expand, project in zip(self.expand, self.project, strict=True):
            x = x + project(torch.relu(expand(x)))
        return torch.relu(self.head(x)).mean((2, 3))


def linear_bottlenecks() -> Bottlenecks:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Bottlenecks().eval()


def test_a_turned_stream_leaves_the_function_and_its_readers_miss_the_sum_least() -> None:
    model, images = linear_bottlenecks(), random(64, 3, 8, 8)
    network = nn.Sequential(copy.deepcopy(model))
    (stream,) = streams = find_streams(trace_graph(network[0], images), network)
    assert sorted(stream.writers) == ["0.project.0", "0.project.1", "0.stem"]
    assert sorted(stream.readers) == ["0.expand.0", "0.expand.1", "0.head"]
    turn_streams(network, streams, measure_losses(network, stream.readers, [images]))
    with torch.no_grad():
        torch.testing.assert_close(network(images), model(images), rtol=1e-5, atol=1e-6)
    one, other = (
        sum(loss.products.sum() / loss.inverse.sum() for loss in losses.values())
        for losses in (
            measure_losses(n, stream.readers, [images]) for n in (network, nn.Sequential(model))
        )
    )
    assert one < 0.7 * other
    # It is a reflection: what writers put out is as long as it was.
    torch.testing.assert_close(network[0].stem.weight.norm(), model.stem.weight.norm())


def random_loss(seed: int) -> FilterLoss:
    w, x = (
        random(9, 5, seed=seed).double(),
        correlated(200, 5).double() @ random(5, 5, seed=seed).double(),
    )
    return FilterLoss(w.mT @ w, torch.linalg.inv(x.T.cov()))


@pytest.mark.parametrize("readers", [1, 3])
def test_no_direction_is_missed_less_than_the_one_that_is_found(readers: int) -> None:
    losses = [random_loss(seed) for seed in range(readers)]
    u = least_missed_direction(losses)
    others = random(20_000, 5, seed=7).double()
    others = torch.cat([others, u + 0.01 * others])
    lost = sum(
        ((v @ loss.products) * v).sum(1) / ((v @ loss.inverse) * v).sum(1)
        for v in [torch.cat([u[None], others])]
        for loss in losses
    )
    assert u.norm() == pytest.approx(1)
    assert lost[0] <= lost[1:].min()


@pytest.mark.parametrize("u", [random(6).double(), torch.ones(6).double()], ids=["any", "ones"])
def test_the_reflection_takes_a_direction_to_equal_numbers_and_is_orthogonal(u: Tensor) -> None:
    u = u / u.norm()
    h = reflection_to_ones(u)
    torch.testing.assert_close(h @ u, torch.full_like(u, 6**-0.5))
    torch.testing.assert_close(h @ h.mT, torch.eye(6).double())


@pytest.mark.parametrize("where", ["activation", "output", "twice"])
def test_a_sum_that_anything_else_reads_keeps_its_signs(where: str) -> None:
    class Other(Bottlenecks):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            if where == "twice":
                return self.head(x) + self.head(x * 2)
            y = self.head(x).mean((2, 3))
            return torch.cat([y, (torch.relu(x) if where == "activation" else x).mean((2, 3))], 1)

    network = nn.Sequential(Other())
    graph = trace_graph(network[0], random(2, 3, 8, 8))
    assert find_streams(graph, network) == []


def test_in_the_new_basis_more_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = linear_bottlenecks(), random(64, 3, 8, 8)
    with torch.no_grad():
        for layer in (*model.expand, model.head):
            layer.weight += 0.5  # what all filters have in common, a zero sum would take away
    turned = convert_by_default(model, images, images)
    monkeypatch.setattr("da.norms.weight_align.conversion.find_streams", lambda *arguments: [])
    assert turned.error < 0.3 * convert_by_default(model, images, images).error


def test_the_aligned_reader_of_a_plain_depthwise_layer_loses_one_channel_and_no_sum() -> None:
    images, others = random(64, 3, 12, 12).abs(), random(64, 3, 12, 12, seed=1).abs()
    model = settled(separable(), images)
    with torch.no_grad():
        model[9].weight += 0.5
        model[9].weight[:, 4] = 0  # the readers don't see it
    result = convert_by_default(
        model, images, others, normaliser=WeightAlign(exclude=["0", "3"], min_channels=4)
    )
    depthwise, reader = result.model[6], result.model[9]
    assert not depthwise.weight[4].any()
    assert depthwise.weight[[c for c in range(12) if c != 4]].flatten(1).any(1).all()
    assert float(depthwise.bias[4].detach()) == 1
    with torch.no_grad():
        torch.testing.assert_close(result.model(others), model(others), rtol=1e-4, atol=1e-4)
        assert reader.aligned_weight().sum(1).abs().max() < 1e-4


def test_the_channel_that_is_made_constant_is_the_one_that_the_fit_misses_least() -> None:
    x, w = correlated(400, 6).double(), random(8, 6).double()
    x = x - x.mean(0)
    y = x @ w.mT
    lost = []
    for c in range(6):
        rest = [i for i in range(6) if i != c]
        lost.append(
            float((y - x[:, rest] @ torch.linalg.lstsq(x[:, rest], y).solution).square().sum())
        )
    found = most_replaceable_channel(FilterLoss(w.mT @ w, torch.linalg.inv(x.T.cov())))
    assert found == lost.index(min(lost))


@pytest.mark.parametrize("change", ["none", "aligned", "gate", "padded", "second"])
def test_only_what_an_activation_alone_parts_from_a_plain_depthwise_layer_reads_it(
    change: str,
) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
            self.act = nn.SiLU()
            self.project = nn.Conv2d(8, 4, 1, padding=int(change == "padded"))

        def forward(self, x: Tensor) -> Tensor:
            x = self.act(self.depthwise(x))
            if change == "gate":
                x = x * x.mean((2, 3), keepdim=True).sigmoid()
            y = self.project(x)
            return y + x.mean() if change == "second" else y

    network = nn.Sequential(Block())
    aligned = {"0.project", *(["0.depthwise"] if change == "aligned" else [])}
    found = find_depthwise_readers(trace_graph(network[0], random(1, 8, 6, 6)), network, aligned)
    assert found == ({"0.project": "0.depthwise"} if change == "none" else {})


def test_a_constant_channel_stays_so_whatever_comes_in() -> None:
    layer = nn.Conv2d(4, 4, 3, groups=4)
    make_constant(layer, 2)
    out = layer(random(5, 4, 6, 6))
    assert (out[:, 2] == 1).all()
    assert out[:, 1].std() > 0


def test_a_constant_input_takes_what_the_others_sum_to() -> None:
    x, w = correlated(300, 5), random(1, 3, 5)
    x[:, 3] = 0.7
    rest = [0, 1, 2, 4]
    t = x[:, rest] @ w[0][:, rest].mT + 0.3
    moments = SecondMoments()
    moments.add(x[None], t[None])
    v, b = zero_sum_fit(moments, w, 1e-2, constant=3)
    torch.testing.assert_close(v[0][:, rest].float(), w[0][:, rest], rtol=1e-4, atol=1e-5)
    assert v.sum(2).abs().max() < 1e-9
    torch.testing.assert_close((x.double() @ v[0].mT + b).float(), t, rtol=1e-4, atol=1e-4)


def test_a_path_that_depends_on_the_shape_is_that_of_the_images() -> None:
    model = build_backbone("dtn").eval()
    images = random(20, 3, 32, 32)
    example = WeightAlign(example=images[:1])
    result = convert_pretrained(model, images, normaliser=example)
    assert len(result.layers) == 3
    assert result.error < 1


def test_a_layer_that_is_called_twice_is_fitted_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(torch.relu(self.layer(x)))

    result = convert_pretrained(Twice(), random(20, 3, 6, 6))
    assert [layer.name for layer in result.layers] == ["layer"]
    assert result.agreement is None


def test_half_precision_storage_changes_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = random(40, 3, 8, 8).abs()
    model = settled(small(), images)
    full = convert_pretrained(model, images)
    monkeypatch.setattr("da.norms.weight_align.paired_networks.HALF_ABOVE", 0)
    half = convert_pretrained(model, images)
    assert half.error == pytest.approx(full.error, rel=1e-2)
    with torch.no_grad():
        model[0].weight *= 1e30  # half precision would overflow: such chunks stay as they are
        model[1].running_var *= 1e36
    assert convert_pretrained(model, images).error < 1


# What is refused.


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y if y.sum() > 0 else -y


class Two(Branching):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.layer(x)
        return y, y + 1


def refused(model: nn.Module, images: object, normaliser: WeightAlign | None = None) -> str:
    with pytest.raises(UserError) as error:
        convert_pretrained(model, images, normaliser=normaliser)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_cannot_be_converted_is_refused_by_name() -> None:
    images = random(20, 3, 8, 8)
    text = refused(Branching(), images, WeightAlign(example=images))
    assert text.startswith("Branching can't be traced, and its weights are converted call by call")
    assert "give one input as example" in refused(Branching(), images)
    text = refused(Two(), images, WeightAlign())
    assert text.startswith("Two gives a tuple, and conversion needs a network that gives one")
    model = small()
    model[1] = nn.BatchNorm2d(6, track_running_stats=False)
    assert refused(model, images).startswith("'1' of Sequential has no running statistics")
    text = refused(small(), images, WeightAlign(exclude="1"))
    assert text.startswith("'0' of Sequential feeds a normaliser that is excluded from 'wa'")
    assert "exclude '0' as well" in text


def test_images_that_do_not_do_are_refused() -> None:
    images = random(20, 3, 8, 8)
    assert refused(small(), [(images, torch.zeros(20))]).startswith(
        "images: expected float tensors (N, C, H, W), and tuple came"
    )
    assert "and torch.uint8 came" in refused(small(), images.byte())
    assert refused(small(), []) == "images: no images came; give some hundreds"
    text = refused(small(), images[:9])
    assert text.startswith("Sequential can't be converted on 9 images and measured on 0: at least")


def test_a_network_in_a_wrapper_of_torch_is_converted_as_it_is_without() -> None:
    torch.manual_seed(0)
    images = random(60, 3, 8, 8)
    model = settled(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()), images)
    expected = convert_pretrained(model, images)
    found = convert_pretrained(nn.DataParallel(model), images)
    assert [layer.name for layer in found.layers] == ["module.0"]
    assert found.error == expected.error
    for mine, theirs in zip(found.model.parameters(), expected.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_an_aligned_layer_that_a_module_calls_out_of_sight_is_refused_by_name() -> None:
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(nn.Linear(4, 8), encoder).eval()
    normaliser = WeightAlign(include=("0", "1.linear1"), exclude=("1.norm1", "1.norm2"))
    with pytest.raises(UserError, match=r"'1\.linear1' of Sequential is aligned, and '1' calls it"):
        convert_pretrained(model, random(20, 5, 4), normaliser=normaliser)


def test_a_channel_that_is_added_to_many_is_no_stream_of_one_basis() -> None:
    class Broadcast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.many, self.one = nn.Conv2d(8, 16, 1), nn.Conv2d(8, 1, 1)
            self.reader, self.last = nn.Conv2d(16, 30, 1), nn.Conv2d(30, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.reader(self.many(x) + self.one(x)).relu()).mean((2, 3))

    torch.manual_seed(0)
    model = Broadcast().eval()
    assert find_streams(trace_graph(model, random(1, 8, 6, 6)), nn.Sequential(model)) == []
    assert convert_pretrained(model, random(40, 8, 6, 6)).error < 1


def test_a_network_of_several_outputs_is_refused_before_a_layer_is_fitted() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.layer(x), x

    done: list[tuple[int, int]] = []
    with pytest.raises(UserError, match="Several gives a tuple, and conversion needs"):
        convert_pretrained(
            Several().eval(), random(20, 3, 8, 8), progress=lambda *at: done.append(at)
        )
    assert done == []
