"""What WeightAlign does to networks: which layers, what becomes of batch norm, the options."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FrozenBatchNorm2d, SqueezeExcitation

from da.errors import UserError
from da.norms import WeightAlign, batch_norms, fold, normaliser
from da.norms.surgery import Affine
from da.norms.weight_align.coverage import measure_coverage
from da.norms.weight_align.layers import Aligned, AlignedConv2d

Make = Callable[[str], nn.Module]


def aligned(model: nn.Module) -> dict[str, Aligned]:
    return {n: m for n, m in model.named_modules() if isinstance(m, Aligned)}


def snapshot(model: nn.Module) -> tuple[list[tuple[str, type, bool]], dict[str, Tensor]]:
    modules = [(n, type(m), m.training) for n, m in model.named_modules()]
    return modules, {k: v.clone() for k, v in model.state_dict().items()}


def refused(model: nn.Module, match: str, **options: object) -> None:
    modules, state = snapshot(model)
    with pytest.raises(UserError, match=match) as caught:
        WeightAlign(**options).apply(model)
    assert "\n" not in str(caught.value)
    assert snapshot(model)[0] == modules
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg_bn", "mobilenet_v3"])
def test_scale_and_shift_become_g_and_b(make: Make, name: str) -> None:
    before = {n: m.state_dict() for n, m in batch_norms(make(name)).items()}
    model = WeightAlign().apply(make(name))
    values = [(m.g, m.bias) for m in aligned(model).values()]
    assert len(values) == len(before)
    for (g, b), state in zip(values, before.values(), strict=True):
        assert torch.equal(g, state["weight"])
        assert torch.equal(b, state["bias"])
    assert not any(isinstance(m, Affine) for m in model.modules())


def test_the_affine_stays_where_no_single_layer_feeds(make: Make) -> None:
    before = {n: m.weight.clone() for n, m in batch_norms(make("densenet")).items()}
    model = WeightAlign().apply(make("densenet"))
    kept = {n for n, m in model.named_modules() if isinstance(m, Affine)}
    # The first norm of a dense layer sees a concatenation; the second is fed by conv1 alone.
    assert {n for n in before if n.endswith("norm1")} <= kept
    assert not {n for n in before if n.endswith("norm2")} & kept
    for name in kept:
        assert torch.equal(model.get_submodule(name).weight, before[name])
    first = model.features.denseblock1.denselayer1
    assert torch.equal(first.conv1.g, before["features.denseblock1.denselayer1.norm2"])


def test_plain_layers_keep_their_bias_and_the_classifier_is_left(make: Make) -> None:
    plain = make("vgg")
    nn.init.uniform_(plain.features[0].bias)
    bias = plain.features[0].bias.clone()
    model = WeightAlign().apply(plain)
    assert torch.equal(model.features[0].bias, bias)
    assert torch.equal(model.features[0].g, torch.ones(8))
    assert list(aligned(model)) == ["features.0", "features.3", "features.5"]
    assert type(model.classifier[0]) is nn.Linear


def test_gates_are_left_and_found_by_structure(make: Make) -> None:
    model = make("mobilenet_v3")
    gates = [m for m in model.modules() if isinstance(m, SqueezeExcitation)]
    WeightAlign().apply(model)
    assert gates
    assert all(type(gate.fc1) is type(gate.fc2) is nn.Conv2d for gate in gates)
    assert sum(type(m) is nn.Conv2d for m in model.modules()) == 2 * len(gates)


def test_weights_and_random_state_stay_as_they_are(make: Make) -> None:
    model = make("resnet18")
    weights = {n: p for n, p in model.named_parameters() if p.dim() > 1}
    state = torch.get_rng_state()
    WeightAlign().apply(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(model.get_parameter(n) is p for n, p in weights.items())


class Shared(nn.Module):
    """One batch norm after two convolutions, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.alias = nn.Sequential(self.norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.alias(self.two(F.relu(self.norm(self.one(x)))))


def test_a_batch_norm_shared_in_two_places_is_replaced_in_both() -> None:
    model = Shared()
    nn.init.constant_(model.norm.weight, 3.0)
    WeightAlign().apply(model)
    assert not batch_norms(model)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.alias)
    assert model.one.g.eq(3).all()
    assert model.two.g.eq(3).all()
    assert model.one.g is not model.two.g


class Branching(nn.Module):
    """A convolution whose output goes past the batch norm as well."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x + self.norm(x)


def test_a_layer_with_a_second_consumer_does_not_take_the_affine() -> None:
    model = WeightAlign().apply(Branching())
    assert isinstance(model.norm, Affine)
    assert isinstance(model.conv, Aligned)


class Twice(nn.Module):
    """A convolution that a batch norm follows in one of its two calls."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.unused = nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.unused(x)
        return F.relu(self.conv(F.relu(self.norm(self.conv(x)))))


def test_a_layer_called_twice_keeps_its_own_scale_and_one_unused_too() -> None:
    model = WeightAlign().apply(Twice())
    assert isinstance(model.norm, Affine)
    model = WeightAlign(activation="bn").apply(Twice())
    assert model.conv.g is not None
    assert model.unused.g is not None


@pytest.mark.parametrize("name", ["bn", "gn", "in", "ln"])
@pytest.mark.parametrize("network", ["resnet18", "densenet"])
def test_under_an_activation_normaliser_there_is_neither_g_nor_b(
    make: Make, name: str, network: str
) -> None:
    model = WeightAlign(activation=name).apply(make(network))
    assert aligned(model)
    assert all(m.g is None and m.bias is None for m in aligned(model).values())
    assert bool(batch_norms(model)) == (name == "bn")


class PreActivation(nn.Module):
    """Norm, activation, convolution, and a sum at the end of each block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.convs[0](F.relu(self.norms[0](x)))
        x += self.convs[1](F.relu(self.norms[1](x)))
        return self.norms[2](x)


def test_pre_activation_keeps_affines_and_the_scale_of_sums() -> None:
    model = WeightAlign().apply(PreActivation())
    assert all(isinstance(norm, Affine) for norm in model.norms)
    model = WeightAlign(activation="bn").apply(PreActivation())
    # A scale inside a sum acts; a shift would be cancelled by every batch norm after it.
    assert all(conv.g is not None and conv.bias is None for conv in model.convs)


@pytest.mark.parametrize(
    ("gain", "value"), [("he", 2.0), ("variance-preserving", 2 / (1 - 1 / math.pi))]
)
def test_gains(make: Make, gain: str, value: float) -> None:
    model = WeightAlign(gain=gain).apply(make("resnet18"))
    assert {m.gain for m in aligned(model).values()} == {value}
    rows = next(iter(aligned(model).values())).aligned_weight().flatten(1)
    assert rows.shape[1] == 147


@pytest.mark.parametrize(
    ("activation", "factor"),
    [
        (nn.ReLU(inplace=True), 2.0),
        (nn.LeakyReLU(0.1), 2 / (1 + 0.1**2)),  # He et al. 2015, eq. 15
        (nn.PReLU(3, init=0.25), 2 / (1 + 0.25**2)),
        (nn.Tanh(), 1 / 0.394294),  # E[tanh(z)^2], numerically
        (nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Dropout()), 2.0),
        (nn.Identity(), 1.0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_gain_auto_is_that_of_the_activation_before(activation: nn.Module, factor: float) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3), activation, nn.Conv2d(3, 3, 3))
    WeightAlign(gain="auto").apply(model)
    assert model[0].gain == 1.0  # an image feeds it
    assert model[2].gain == pytest.approx(factor, rel=1e-4)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(3, 3, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.one(x), negative_slope=0.2)
        return self.three(self.two(x).relu_())


@pytest.mark.parametrize("example", [None, torch.randn(1, 3, 4, 4)])
def test_gain_auto_sees_functions(example: Tensor | None) -> None:
    model = WeightAlign(gain="auto", example=example).apply(Functional())
    gains = [model.one.gain, model.two.gain, model.three.gain]
    assert gains == pytest.approx([1.0, 2 / 1.04, 2.0], rel=1e-4)


@pytest.mark.parametrize(("residual", "factor"), [("one", 1.0), ("depth", 0.25), ("zero", 0.0)])
def test_residual_start(residual: str, factor: float) -> None:
    model = nn.Sequential(*[Block(i) for i in range(16)])  # as many blocks as a ResNet-50 has
    WeightAlign(residual=residual).apply(model)
    for block in model:
        assert block.one.g.eq(1).all()
        torch.testing.assert_close(block.two.g, torch.full((4,), 2 * factor))
        assert block.shortcut is None or block.shortcut.g.eq(1).all()


class Block(nn.Module):
    """A residual block; every other one has a convolution in its shortcut."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))
        nn.init.constant_(self.norms[1].weight, 2.0)
        self.shortcut = nn.Conv2d(4, 4, 3, padding=1) if index % 2 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[1](self.two(F.relu(self.norms[0](self.one(x)))))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v3"])
def test_residual_zero_marks_one_layer_per_block(make: Make, name: str) -> None:
    model = make(name)
    blocks = sum(
        isinstance(m, (BasicBlock, Bottleneck)) or getattr(m, "use_res_connect", False)
        for m in model.modules()
    )
    WeightAlign(residual="zero").apply(model)
    zero = [n for n, m in aligned(model).items() if m.g.eq(0).all()]
    ends = {"resnet18": ".conv2", "resnet50": ".conv3", "mobilenet_v3": ".0"}[name]
    assert len(zero) == blocks > 3
    assert all(n.endswith(ends) for n in zero)


def test_layers_are_excluded_and_included_by_name_glob_and_block(make: Make) -> None:
    model = WeightAlign(exclude=["conv1", "layer4", "*.downsample.*"], include="fc").apply(
        make("resnet18")
    )
    assert isinstance(model.bn1, nn.Identity)  # the batch norm of an excluded layer goes, too
    assert model.conv1.bias is not None
    assert set(batch_norms(model)) == {
        *("layer4.0.bn1", "layer4.0.bn2", "layer4.0.downsample.1"),
        *("layer2.0.downsample.1", "layer3.0.downsample.1"),
    }
    names = set(aligned(model))
    assert "fc" in names
    assert "layer3.0.conv2" in names
    assert not any(n.startswith(("conv1", "layer4")) or "downsample" in n for n in names)


@pytest.mark.parametrize("bias", [False, True])
def test_scale_and_shift_of_a_removed_batch_norm_go_into_the_plain_layer(bias: bool) -> None:
    layer, norm = nn.Conv2d(4, 4, 3, groups=4, bias=bias), nn.BatchNorm2d(4)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 4, 5, 5)
    with torch.no_grad():
        expected = layer(x) * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
        model = WeightAlign(min_channels=2, include="2").apply(
            nn.Sequential(layer, norm, nn.Conv2d(4, 3, 1))
        )
        torch.testing.assert_close(model[:2](x), expected)
    assert [type(module) for module in model] == [nn.Conv2d, nn.Identity, AlignedConv2d]


@pytest.mark.parametrize(
    ("channels", "aligned"), [(1, 3), (2, 2), (4, 1), (8, 1), (9, 0)], ids=lambda v: str(v)
)
def test_layers_of_few_input_channels_stay_plain(channels: int, aligned: int) -> None:
    layers = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 9, 1)
    model = nn.Sequential(*layers, nn.BatchNorm2d(9))
    WeightAlign(min_channels=channels).apply(model)
    assert sum(isinstance(m, AlignedConv2d) for m in model) == aligned
    coverage = measure_coverage(model)
    assert (coverage.layers if coverage else 0) == aligned
    if coverage:
        sizes = [m.weight.numel() for m in model[:3] if isinstance(m, AlignedConv2d)]
        assert (coverage.weights, coverage.of_weights) == (sum(sizes), 216 + 72 + 72)
        few = [name for name, seen in zip("012", (3, 1, 8), strict=True) if seen < channels]
        assert coverage.left == tuple(few)


@pytest.mark.parametrize(
    ("least", "plain"), [(8, [3]), (9, [3, 4, 8]), (10, [3, 4, 5, 8]), (99, [3, 4, 5, 8])]
)
def test_the_smallest_filters_stay_plain_as_long_as_three_in_five_are_aligned(
    least: int, plain: list[int]
) -> None:
    # One sees a single channel; of those of 9 weights the last is the one that may be plain.
    inputs = [16, 16, 9, 16, 8, 9, 16, 16, 8, 16]
    layers = [nn.Conv2d(n, 16, 1) for n in inputs]
    layers[3] = nn.Conv2d(16, 16, 3, groups=16)
    model = nn.ModuleList(layers)
    network = Parallel(model)
    WeightAlign(min_channels=2, min_weights=least).apply(network)
    found = [i for i, m in enumerate(network.layers) if not isinstance(m, AlignedConv2d)]
    assert found == plain


class Parallel(nn.Module):
    """Layers side by side."""

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sum(layer(x[:, : layer.in_channels]).sum() for layer in self.layers)


@pytest.mark.parametrize("value", [0, True, 1.5, "4"])
@pytest.mark.parametrize("name", ["min_channels", "min_weights"])
def test_the_least_numbers_of_a_layer_are_whole(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"{name}: expected a whole number from 1, got"):
        WeightAlign(**{name: value})


def test_an_excluded_batch_norm_stays_and_its_layer_has_neither_g_nor_b(make: Make) -> None:
    model = WeightAlign(exclude="bn1").apply(make("resnet18"))
    assert list(batch_norms(model)) == ["bn1"]
    assert model.conv1.g is None
    assert model.conv1.bias is None


@pytest.mark.parametrize("option", ["exclude", "include"])
def test_a_pattern_that_matches_nothing_is_refused(make: Make, option: str) -> None:
    refused(make("resnet18"), f"{option} matches nothing.*'layer9'", **{option: ["fc", "layer9"]})


def test_single_layers_and_normalisers_as_the_root() -> None:
    assert isinstance(WeightAlign().apply(nn.Conv2d(3, 4, 3)), Aligned)
    assert isinstance(WeightAlign().apply(nn.BatchNorm2d(3)), Affine)


def test_the_training_mode_dtype_and_frozen_parameters_carry_over() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).double().eval()
    model.requires_grad_(False)
    WeightAlign().apply(model)
    assert not model[0].training
    assert not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    mixed = nn.Sequential(nn.Conv2d(3, 4, 3).bfloat16(), nn.BatchNorm2d(4))
    assert {p.dtype for p in WeightAlign().apply(mixed).parameters()} == {torch.bfloat16}


def test_a_batch_norm_without_affine_gives_ones_and_zeros() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False))
    WeightAlign().apply(model)
    assert model[0].g.eq(1).all()
    assert model[0].bias.eq(0).all()


class Dynamic(nn.Module):
    """Can't be traced: its path depends on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.two, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        nn.init.constant_(self.norm.weight, 3.0)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.one(x)))
        y = self.last(self.two(x))
        self.seen = y
        return y + x if x.mean() > -9 else y


def test_what_cannot_be_traced_is_refused_unless_an_example_is_given() -> None:
    refused(Dynamic(), r"Dynamic can't be traced.*give one input as example=")
    refused(Dynamic(), r"can't run the example of shape \(1, 7\)", example=torch.ones(1, 7))
    model = WeightAlign(example=torch.randn(1, 3, 8, 8), residual="zero").apply(Dynamic())
    assert model.one.g.eq(3).all()
    assert model.two.g.eq(0).all()
    assert not hasattr(model, "seen")
    assert model.norm.__class__ is model.last.__class__ is nn.Identity


@pytest.mark.parametrize("name", ["resnet18", "densenet", "mobilenet_v3", "vgg_bn"])
def test_tracing_and_running_an_example_see_the_same(make: Make, name: str) -> None:
    options = {"gain": "auto", "residual": "depth"}
    traced = WeightAlign(**options).apply(make(name))
    model = make(name)
    hidden = nn.Sequential(Opaque(), model)
    WeightAlign(**options, example=torch.randn(1, 3, 32, 32)).apply(hidden)
    expected, got = traced.state_dict(), model.state_dict()
    assert list(expected) == list(got)
    assert all(torch.equal(v, got[k]) for k, v in expected.items())
    assert [m.gain for m in aligned(model).values()] == [m.gain for m in aligned(traced).values()]


class Opaque(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 1 if x.shape[0] > 0 and bool(x.sum() == x.sum()) else x


class Standardised(nn.Conv2d):
    pass


class ByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(self.conv(x), None, None, training=True)


def weight_normed() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(model[0])
    return model


def frozen() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), FrozenBatchNorm2d(4))


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (
            lambda: ConvNeXt([CNBlockConfig(8, None, 2)]),
            r"ConvNeXt has another normaliser.*'features.0.1' is a LayerNorm2d.*use 'bn'",
        ),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)), "'1' is a GroupNorm"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4)), "is a InstanceNorm2d"),
        (lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3)), "'0' is a ConvTranspose2d.*exclude"),
        (lambda: nn.Sequential(Standardised(3, 4, 3)), "'0' is a Standardised.*exclude='0'"),
        (weight_normed, "weight of '0' .Conv2d. is computed from other parameters"),
        (
            lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))),
            "'0' is a ParametrizedConv2d",
        ),
        (frozen, "'1' of Sequential is a FrozenBatchNorm2d"),
        (ByHand, "ByHand calls batch_norm as a function"),
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU()), "no convolution and no batch norm"),
        (lambda: WeightAlign().apply(nn.Sequential(nn.Conv2d(3, 4, 3))), "'0' is aligned already"),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name_and_untouched(
    model: Callable[[], nn.Module], match: str
) -> None:
    refused(model(), match)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"gain": "kaiming"}, "unknown gain 'kaiming'.*auto, balanced, he, variance-preserving"),
        ({"residual": "none"}, "unknown residual 'none'.*depth, one, zero"),
        ({"activation": "wa"}, "unknown activation normaliser 'wa'.*bn, gn, in, ln"),
        ({"activation": "gn", "residual": "zero"}, "residual='zero' sets g"),
        ({"group": 3}, "unknown option of wa 'group'"),
        (
            {"activation": "gn", "group": 3},
            r"unknown option of wa\+gn 'group'; did you mean 'groups'",
        ),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], match: str) -> None:
    with pytest.raises(UserError, match=match):
        WeightAlign(**options)


def test_the_variance_is_carried_through_relus_as_derived() -> None:
    torch.manual_seed(0)
    layers = [m for _ in range(6) for m in (nn.Conv2d(256, 256, 1), nn.ReLU())][:-1]
    x = torch.randn(64, 256, 4, 4).relu()
    paper = WeightAlign().apply(nn.Sequential(*layers))
    with torch.no_grad():
        he = paper(x).var() ** 0.5
        exact = WeightAlign(gain="variance-preserving").apply(fold(paper))(x).var() ** 0.5
    # Six layers lose sqrt(1 - 1/pi) each with the paper's factor and nothing with the exact one.
    assert float(exact) == pytest.approx(1.0, rel=0.1)
    assert float(he) == pytest.approx((1 - 1 / math.pi) ** 3, rel=0.1)


class UsedWithoutACall(nn.Module):
    """Its first convolution is never called; of its second only the dtype is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3)
        self.auxiliary = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.conv2d(x, self.first.weight, padding=1)
        x = self.norm(x).relu().to(self.second.weight.dtype).type_as(self.second.weight)
        if self.training:
            self.auxiliary(x)
        return self.second(x)


class UsedOnOnePath(UsedWithoutACall):
    """Can't be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


@pytest.mark.parametrize("kind", [UsedWithoutACall, UsedOnOnePath])
def test_a_layer_that_is_used_without_a_call_is_refused_by_name(kind: type[nn.Module]) -> None:
    model, example = kind(), torch.ones(2, 4, 8, 8)
    with pytest.raises(UserError, match=r"weight of 'first' without .* exclude='first'"):
        WeightAlign(example=example).apply(model)
    assert type(model.norm) is nn.BatchNorm2d
    WeightAlign(example=example, exclude="first").apply(model)
    aligned = {name for name, module in model.named_modules() if isinstance(module, Aligned)}
    assert aligned == {"second", "auxiliary"}


def test_a_weight_that_is_also_used_without_a_call_takes_over_no_batch_norm() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(self.norm(self.layer(x)), self.layer.weight.t())

    torch.manual_seed(0)
    model = Both().eval()
    nn.init.uniform_(model.norm.weight, 0.5, 2)
    x = torch.randn(3, 4)
    expected = model(x)
    torch.testing.assert_close(normaliser("folded").apply(model)(x), expected)
