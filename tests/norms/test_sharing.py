"""One aligned weight for several forward passes gives what one for each would."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import _global_optimizer_post_hooks

from da.norms import WeightAlign, aligned_once, fold
from da.norms.weight_align import layers


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 5 * 5, 6, bias=False),
        nn.BatchNorm1d(6),
        nn.Linear(6, 4),
    )
    return WeightAlign().apply(model)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often a weight was aligned."""
    calls: list[int] = []
    plain = layers.align
    monkeypatch.setattr(layers, "align", lambda *a: (calls.append(1), plain(*a))[1])
    return calls


def gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_separate_passes_share_the_weights_and_one_backward(counted: list[int]) -> None:
    x, y = torch.randn(4, 3, 15, 15), torch.randn(4, 3, 15, 15)
    model = network()
    (model(x).square().mean() + model(y).square().mean()).backward()
    expected = gradients(model)
    assert len(counted) == 6
    counted.clear()
    model.zero_grad()
    with aligned_once(model):
        outputs = model(x), model(y)
    (outputs[0].square().mean() + outputs[1].square().mean()).backward()
    assert len(counted) == 3
    for a, b in zip(gradients(model), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_micro_batches_share_the_weights_and_the_backward_through_them(counted: list[int]) -> None:
    x = torch.randn(6, 3, 15, 15)
    model = network()
    model(x).square().mean().backward()
    expected = gradients(model)
    counted.clear()
    model.zero_grad()
    with aligned_once(model, micro_batches=True):
        for part in x.chunk(3):
            (model(part).square().mean() / 3).backward()
        assert model[0].weight.grad is None  # held back: it comes at the end, at once
    assert len(counted) == 3
    for a, b in zip(gradients(model), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_evaluation_aligns_once_and_a_changed_weight_anew(counted: list[int]) -> None:
    model = network().eval()
    x = torch.randn(2, 3, 15, 15)
    with torch.no_grad(), aligned_once(model):
        before = [model(x) for _ in range(5)]
        assert len(counted) == 3
        model[0].weight.neg_()
        after = model(x)
        assert len(counted) == 4
    assert all(torch.equal(before[0], other) for other in before)
    assert not torch.allclose(before[0], after)
    assert torch.equal(after, model(x))


def test_gradients_come_also_where_an_evaluation_came_first() -> None:
    model = network()
    x = torch.randn(2, 3, 15, 15)
    with aligned_once(model):
        with torch.no_grad():
            model(x)
        model(x).sum().backward()
    assert model[0].weight.grad is not None
    assert all(m.shared is None for m in model.modules() if isinstance(m, layers.Aligned))


def test_an_inner_block_leaves_the_outer_one_in_charge(counted: list[int]) -> None:
    model = network()
    x = torch.randn(2, 3, 15, 15)
    with aligned_once(model, micro_batches=True):
        for _ in range(2):
            with aligned_once(model):
                out = model(x) + model(x)
            out.sum().backward()
        assert model[0].weight.grad is None
    assert model[0].weight.grad is not None
    assert len(counted) == 3


def test_after_an_error_nothing_is_shared_and_no_gradient_comes() -> None:
    model = network()

    def interrupted() -> None:
        with aligned_once(model, micro_batches=True):
            model(torch.randn(2, 3, 15, 15)).sum().backward()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert model[0].weight.grad is None
    assert model[0].shared is None


def test_copies_and_folds_made_within_are_free_of_it() -> None:
    model = network()
    x = torch.randn(2, 3, 15, 15)
    with aligned_once(model):
        expected = model(x)
        other, plain = copy.deepcopy(model), fold(model)
    assert other[0].shared is None
    assert torch.equal(other(x), expected)
    torch.testing.assert_close(plain(x), expected)


def test_a_replica_has_the_weight_of_its_own_parameters() -> None:
    model = network()
    with aligned_once(model):
        model(torch.randn(2, 3, 15, 15))
        replica = model[0]._replicate_for_data_parallel()
        replica.weight, replica.g = model[0].weight.detach() ** 2, model[0].g.detach()
        assert torch.equal(replica.acting_weight(), replica.compute_aligned_weight())
        assert not torch.equal(replica.acting_weight(), model[0].acting_weight())


def test_under_autocast_the_weight_is_cast_once_from_float32_statistics() -> None:
    model = network()
    x = torch.randn(2, 3, 15, 15)
    layer = model[0]
    with torch.no_grad():
        layer.weight.add_(100.0)  # in bfloat16 a filter of this mean has no deviation left
    with torch.autocast("cpu", torch.bfloat16), aligned_once(model):
        first = layer.acting_weight()
        assert first.dtype == torch.bfloat16
        assert layer.acting_weight() is first
        model(x).float().square().mean().backward()
    torch.testing.assert_close(first.float(), layer.aligned_weight(), rtol=1e-2, atol=1e-3)
    assert layer.weight.grad.dtype == torch.float32
    assert layer.acting_weight().dtype == torch.float32


def test_gradients_of_micro_batches_add_up_in_float32_under_autocast() -> None:
    model = network()
    x = torch.randn(64, 3, 15, 15)

    def accumulate() -> list[Tensor]:
        for part in x.split(2):
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(part).float().square().mean()
            (loss / 32).backward()
        return gradients(model)

    expected = accumulate()
    model.zero_grad()
    with aligned_once(model, micro_batches=True):
        accumulate()
    for a, b in zip(gradients(model), expected, strict=True):
        assert (a - b).norm() < 5e-3 * b.norm()


def test_a_replaced_parameter_is_another_weight() -> None:
    model = network().eval()
    x = torch.randn(2, 3, 15, 15)
    with torch.no_grad(), aligned_once(model):
        before = model(x)
        model[0].weight = nn.Parameter(torch.randn_like(model[0].weight))
        after = model(x)
        assert len(model[0].shared.cached) == 1
    assert not torch.allclose(before, after)
    assert torch.equal(after, model(x))


# Whoever changes a weight: each leaves a model whose outputs within the block are those after it.


def step_of(kind: Any, **options: Any) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        for p in model.parameters():
            p.grad = torch.ones_like(p) * torch.linspace(-1, 1, len(p)).view(
                -1, *[1] * (p.dim() - 1)
            )
        kind(model.parameters(), lr=0.1, **options).step()

    return change


def step_of_another_library(model: nn.Module) -> None:
    class Own(torch.optim.Optimizer):
        def step(self, closure: Any = None) -> None:
            for p in self.param_groups[0]["params"]:
                p.data.mul_(torch.linspace(1, 2, len(p)).view(-1, *[1] * (p.dim() - 1)))

    Own(model.parameters(), {}).step()


def other_values(model: nn.Module) -> list[Tensor]:
    return [torch.randn_like(p) for p in model.parameters()]


def load_values(model: nn.Module, **options: Any) -> None:
    model.load_state_dict(
        {k: torch.randn_like(v) for k, v in model.state_dict().items()}, **options
    )


def swap_memory(model: nn.Module) -> None:
    """Twice, so that the allocator may give the first memory's address again."""
    for _ in range(2):
        for p, value in zip(model.parameters(), other_values(model), strict=True):
            p.data = value


def average(model: nn.Module) -> None:
    with torch.no_grad():
        torch._foreach_lerp_(list(model.parameters()), other_values(model), 0.5)


def write_in_inference_mode(model: nn.Module) -> None:
    with torch.inference_mode():
        for p, value in zip(model.parameters(), other_values(model), strict=True):
            p.copy_(value)


def set_from_a_vector(model: nn.Module) -> None:
    size = sum(p.numel() for p in model.parameters())
    nn.utils.vector_to_parameters(torch.randn(size), model.parameters())


CHANGES: dict[str, Callable[[nn.Module], None]] = {
    "SGD": step_of(torch.optim.SGD),
    "SGD, foreach": step_of(torch.optim.SGD, foreach=True),
    "SGD, fused": step_of(torch.optim.SGD, fused=True),
    "Adam, fused": step_of(torch.optim.Adam, fused=True),
    "AdamW, fused": step_of(torch.optim.AdamW, fused=True),
    "Adagrad, fused": step_of(torch.optim.Adagrad, fused=True),
    "another library's optimiser": step_of_another_library,
    "load_state_dict": load_values,
    "load_state_dict, assign": lambda model: load_values(model, assign=True),
    "other memory": swap_memory,
    "parameters from a vector": set_from_a_vector,
    "an average": average,
    "inference mode": write_in_inference_mode,
    "another dtype and back": lambda model: (load_values(model), model.double().float())[0],
}


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed_whoever_makes_it(change: str, grad: bool) -> None:
    model = network()
    x = torch.randn(2, 3, 15, 15)
    with torch.set_grad_enabled(grad):
        with aligned_once(model):
            before = model(x)
            with torch.enable_grad():
                CHANGES[change](model)
            within = model(x)
        after = model(x)
    assert not torch.allclose(before, after)
    assert torch.equal(within, after)


def test_steps_are_counted_only_while_weights_are_shared() -> None:
    before = len(_global_optimizer_post_hooks)
    with aligned_once(network()), aligned_once(network()):
        assert len(_global_optimizer_post_hooks) == before + 2
    assert len(_global_optimizer_post_hooks) == before


def test_gradients_held_back_before_and_after_the_classifiers_step_all_arrive() -> None:
    x, y = torch.randn(2, 3, 15, 15), torch.randn(2, 3, 15, 15)
    expected, model = network(), network()
    for net in (expected, model):
        optimiser = torch.optim.SGD(net[8].parameters(), 0.1, fused=True)
        with aligned_once(net, micro_batches=True) if net is model else nullcontext():
            net(x).square().sum().backward()
            optimiser.step()
            net(y).square().sum().backward()
    for a, b in zip(gradients(model), gradients(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_weight_that_is_thawed_gets_its_gradient() -> None:
    model = network()
    x = torch.randn(2, 3, 15, 15)
    for p in model[0].parameters():
        p.requires_grad_(False)
    with aligned_once(model):
        model(x)
        model[0].weight.requires_grad_(True)
        model(x).square().sum().backward()
    assert model[0].weight.grad is not None


@pytest.mark.parametrize("micro_batches", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_what_inference_mode_made_does_not_reach_training(grad: bool, micro_batches: bool) -> None:
    model = network()
    x = torch.randn(2, 3, 15, 15)
    model(x).square().mean().backward()
    expected = gradients(model)
    model.zero_grad()
    with aligned_once(model, micro_batches):
        with torch.inference_mode(), torch.set_grad_enabled(grad):
            inferred = model(x)
        with torch.no_grad():
            evaluated = model(x)
            assert not any(v.is_inference() for v in [model[0].acting_weight(), evaluated])
        output = model(x)
        output.square().mean().backward()
    assert torch.equal(inferred.clone(), output)
    assert torch.equal(evaluated, output)
    for a, b in zip(gradients(model), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_evaluation_in_inference_mode_aligns_once(counted: list[int]) -> None:
    model = network().eval()
    x = torch.randn(2, 3, 15, 15)
    with torch.inference_mode(), aligned_once(model):
        outputs = [model(x) for _ in range(4)]
    assert len(counted) == 3
    assert all(torch.equal(outputs[0], other) for other in outputs)


def test_parameters_made_in_inference_mode_are_aligned_at_each_call(counted: list[int]) -> None:
    x = torch.randn(2, 3, 15, 15)
    with torch.inference_mode():
        model = network()
        with aligned_once(model):
            model(x)
            assert len(counted) == 3
            model[0].weight.neg_()
            within = model(x)
        assert torch.equal(within, model(x))
