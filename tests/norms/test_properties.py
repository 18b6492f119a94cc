"""The nine properties of WeightAlign, on bare layers and on torchvision's families."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from da.errors import UserError
from da.norms import WeightAlign, align, batch_norms, fold, naive_align
from da.norms.weight_align.layers import Aligned

Case = tuple[nn.Module, Tensor]


def aligned_layers(model: nn.Module) -> list[Aligned]:
    found = [m for m in model.modules() if isinstance(m, Aligned)]
    assert found
    return found


def loss_of(output: Tensor) -> Tensor:
    """A mean over samples with a nonzero gradient everywhere."""
    return (output - 0.3).square().flatten(1).sum(1).mean()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def close(a: Tensor, b: Tensor, tolerance: float) -> None:
    assert (a - b).abs().max() <= tolerance * b.abs().max()


def test_1_filters_have_mean_0_and_variance_2_over_n(case: Case) -> None:
    model = WeightAlign().apply(case[0].double())
    for layer in aligned_layers(model):
        nn.init.ones_(layer.g)
        rows = layer.aligned_weight().flatten(1)
        torch.testing.assert_close(rows.mean(1), torch.zeros_like(rows[:, 0]), atol=1e-12, rtol=0)
        variance = rows.var(1, correction=0)
        torch.testing.assert_close(variance, torch.full_like(variance, 2 / rows.shape[1]))


def test_2_shift_and_positive_scale_of_a_filter_change_nothing(case: Case) -> None:
    model = WeightAlign().apply(case[0])
    for layer in aligned_layers(model):
        before = layer.aligned_weight()
        shape = (-1, *(1 for _ in layer.weight.shape[1:]))
        generator = torch.Generator().manual_seed(0)
        a = torch.rand(len(before), generator=generator) * 9.9 + 0.1
        c = torch.randn(len(before), generator=generator) * 0.1
        with torch.no_grad():
            layer.weight.mul_(a.view(shape)).add_(c.view(shape))
            n = layer.weight[0].numel()
            kept = n / 2 * layer.weight.flatten(1).var(1, correction=0) >= 1e-4
        assert kept.any()
        after = layer.aligned_weight()
        torch.testing.assert_close(after[kept], before[kept], rtol=1e-4, atol=2e-5)


def test_2_a_negative_scale_flips_the_sign() -> None:
    weight = torch.randn(3, 4, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(align(-2 * weight), -align(weight))


def test_3_gradients_are_centred_and_orthogonal(case: Case) -> None:
    model, x = case
    model = WeightAlign().apply(model.double())
    loss_of(model(x.double())).backward()
    for layer in aligned_layers(model):
        w, d = layer.weight.detach().flatten(1), layer.weight.grad.flatten(1)
        size = d.norm(dim=1) * w.norm(dim=1) + 1e-30
        assert (d.sum(1).abs() <= 1e-8 * d.abs().sum(1) + 1e-14).all()
        inner = (d * (w - w.mean(1, keepdim=True))).sum(1).abs()
        assert (inner <= 1e-7 * size).all()  # up to eps relative to (n / 2) var(w)


def test_3_gradients_agree_with_numerical_differentiation(bare: Case) -> None:
    model, x = bare
    model, x = WeightAlign().apply(model.double()), x.double()

    def output(*values: Tensor) -> Tensor:
        names = [key for key, _ in model.named_parameters()]
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), x)

    values = [p.detach().clone().requires_grad_() for p in model.parameters()]
    assert torch.autograd.gradcheck(output, values)


def test_4_a_sample_does_not_depend_on_its_batch(case: Case) -> None:
    model, x = case
    model = WeightAlign().apply(model).train()
    assert not batch_norms(model)
    with torch.no_grad():
        together = model(x)
        alone = torch.cat([model(one[None]) for one in x])
        others = model(torch.cat([x[:1], 5 * x[1:] + 3]))
    close(alone, together, 1e-5)
    close(others[:1], together[:1], 1e-5)
    assert (others[1:] - together[1:]).abs().max() > 1e-2 * together.abs().max()


def test_4_buffers_and_modes_make_no_difference(case: Case) -> None:
    model, x = case
    model = WeightAlign().apply(model)
    assert not list(model.buffers())
    with torch.no_grad():
        assert torch.equal(model.train()(x), model.eval()(x))


def test_5_joint_and_separate_forwards_agree_unlike_batch_norms(case: Case) -> None:
    model, x = case
    source, target = x[:2], 2 * x[2:] - 1
    had_batch_norm = bool(batch_norms(model))

    def deviation(network: nn.Module) -> float:
        with torch.no_grad():
            joint = network(torch.cat([source, target]))
            separate = torch.cat([network(source), network(target)])
        return float((joint - separate).abs().max() / joint.abs().max())

    if had_batch_norm:
        assert deviation(copy.deepcopy(model).train()) > 0.01
    assert deviation(WeightAlign().apply(model).train()) < 1e-5


def test_6_micro_batches_accumulate_to_the_gradient_of_the_batch(case: Case) -> None:
    model, x = case
    model = WeightAlign().apply(model.double()).train()
    x = x.double()
    loss_of(model(x)).backward()
    whole = gradients(model)
    model.zero_grad()
    for part in (x[:1], x[1:]):
        (loss_of(model(part)) * len(part) / len(x)).backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-7, atol=1e-10)


def test_7_fold_gives_a_plain_network_with_the_same_outputs(case: Case) -> None:
    model, x = case
    model = WeightAlign().apply(model).eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    kinds = [type(m) for m in model.modules()]
    plain = fold(model)
    with torch.no_grad():
        expected = model(x)
        close(plain(x), expected, 1e-5)
        for parameter in plain.parameters():
            parameter.zero_()
        assert torch.equal(model(x), expected)
    assert not any(isinstance(m, Aligned) for m in plain.modules())
    assert not any(name.endswith(".g") for name in plain.state_dict())
    assert kinds == [type(m) for m in model.modules()]
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    pointers = {p.data_ptr() for p in model.parameters()}
    assert pointers.isdisjoint(p.data_ptr() for p in plain.parameters())


def test_8_constant_filters_stay_finite(case: Case) -> None:
    model, x = case
    model = WeightAlign().apply(model)
    for layer in aligned_layers(model):
        nn.init.constant_(layer.weight[0], 0.37)
    output = model(x)
    loss_of(output).backward()
    assert output.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())


@pytest.mark.parametrize(
    "layer",
    [nn.Conv1d(4, 4, 1, groups=4), nn.Conv2d(4, 4, 1, groups=4), nn.Conv2d(1, 4, 1)],
    ids=["conv1d", "depthwise", "one channel"],
)
def test_8_fan_in_1_is_refused_by_name(layer: nn.Module) -> None:
    model = nn.Sequential()
    model.add_module("lone", layer)
    with pytest.raises(UserError, match=r"'lone' .* single weight.* exclude='lone'"):
        WeightAlign().apply(model)
    model.add_module("second", nn.Conv1d(4, 4, 3))
    assert WeightAlign(exclude="lone").apply(model).lone is layer


def test_8_fan_in_1_linear_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4))
    with pytest.raises(UserError, match=r"'0' .Linear. has filters of a single weight"):
        WeightAlign().apply(model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_9_half_weights_have_float32_statistics(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(8, 600, generator=generator) * 0.1 + 1).to(dtype)
    g = torch.rand(8, generator=generator).add(0.5).to(dtype)
    exact = naive_align(weight.double(), g.double())
    assert align(weight, g).dtype == dtype
    # Half a unit in the last place, so the result is rounded once, at the end, and nothing before.
    half_unit = 0.51 * torch.finfo(dtype).eps
    torch.testing.assert_close(align(weight, g).double(), exact, rtol=half_unit, atol=1e-6)


def test_9_autocast_leaves_the_aligned_weight_in_float32(case: Case) -> None:
    model, x = case
    model = WeightAlign().apply(model)
    layers = aligned_layers(model)
    expected = [layer.aligned_weight() for layer in layers]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(x)
        for layer, weight in zip(layers, expected, strict=True):
            assert layer.aligned_weight().dtype == torch.float32
            assert torch.equal(layer.aligned_weight(), weight)
    assert output.isfinite().all()
