"""Domain-specific batch norm: its formula, its domains, and that it never guesses one."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from short_runs import digits, fit
from torch import Tensor, nn

from da.errors import UserError
from da.methods.dann import DANN
from da.methods.entropy_minimisation import EntropyMinimisation
from da.norms import WeightAlign, batch_norms, normaliser, reestimated
from da.norms.base import tell_domains
from da.norms.dsbn import DomainBatchNorm
from da.types import Segment

BOTH = (Segment("source", 5), Segment("target", 3))
SHAPES = {"vectors": (4,), "lines": (4, 6), "maps": (4, 3, 2), "volumes": (4, 2, 3, 2)}
KINDS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def images(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Five of the source and three of the target, which is shifted and scaled; float64."""
    x = torch.randn(8, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x[5:] = 3 * x[5:] - 2
    return x


def layer(dimensions: int) -> DomainBatchNorm:
    """One whose scales, shifts and statistics are all different."""
    norm = normaliser("dsbn").apply(KINDS[dimensions](4).double())
    assert isinstance(norm, DomainBatchNorm)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in (t for t in norm.state_dict().values() if t.is_floating_point()):
            tensor.copy_(torch.rand(4, generator=generator) + 0.5)
    return norm


def told(norm: nn.Module, x: Tensor, *domains: Segment) -> Tensor:
    tell_domains(norm, domains)
    return norm(x)


def normalised(x: np.ndarray, norm: nn.Module, mean: np.ndarray, var: np.ndarray) -> np.ndarray:
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    g, b = (p.detach().numpy().reshape(shape) for p in (norm.weight, norm.bias))
    return g * (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + norm.eps) + b


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_each_domain_is_normalised_by_its_own_batch_and_scale(shape: tuple[int, ...]) -> None:
    x = images(shape)
    norm = layer(x.dim())
    before = copy.deepcopy(norm.state_dict())
    found = told(norm, x, *BOTH).detach().numpy()
    axes = (0, *range(2, x.dim()))
    for domain, part in (("source", slice(0, 5)), ("target", slice(5, 8))):
        values = x[part].numpy()
        mean, var = values.mean(axes), values.var(axes)
        own = getattr(norm, domain)
        np.testing.assert_allclose(found[part], normalised(values, own, mean, var), rtol=1e-9)
        unbiased = values.var(axes, ddof=1)
        for name, statistic in (("running_mean", mean), ("running_var", unbiased)):
            expected = 0.9 * before[f"{domain}.{name}"].numpy() + 0.1 * statistic
            np.testing.assert_allclose(getattr(own, name).numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_evaluation_uses_the_statistics_of_the_domain(shape: tuple[int, ...]) -> None:
    x = images(shape)
    norm = layer(x.dim()).eval()
    for domain in ("source", "target"):
        own = getattr(norm, domain)
        statistics = own.running_mean.numpy(), own.running_var.numpy()
        found = told(norm, x, Segment(domain, 8)).detach().numpy()
        np.testing.assert_allclose(found, normalised(x.numpy(), own, *statistics), rtol=1e-9)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_joint_and_separate_forwards_agree(shape: tuple[int, ...]) -> None:
    x = images(shape)
    joint, separate, reverse = (layer(x.dim()) for _ in range(3))
    outputs = told(joint, x, *BOTH)
    apart = [told(separate, x[:5], BOTH[0]), told(separate, x[5:], BOTH[1])]
    turned = told(reverse, torch.cat([x[5:], x[:5]]), BOTH[1], BOTH[0])
    torch.testing.assert_close(outputs, torch.cat(apart), rtol=0, atol=0)
    torch.testing.assert_close(outputs, torch.cat([turned[3:], turned[:3]]), rtol=0, atol=0)
    for found in (outputs, torch.cat(apart), turned):
        found.pow(3).sum().backward()
    for other in (separate, reverse):
        for name, p in joint.named_parameters():
            torch.testing.assert_close(p.grad, other.get_parameter(name).grad, msg=name)
        for name, buffer in joint.named_buffers():
            assert torch.equal(buffer, other.get_buffer(name)), name


def test_joint_and_separate_trainings_are_the_same_training() -> None:
    ends = []
    for mode in ("joint", "separate"):
        module = EntropyMinimisation(10, bottleneck=16, norm="dsbn", forward_mode=mode, seed=1)
        fit(module, digits(batch_size=8), precision="64-true")
        ends.append(module.state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=1e-7, atol=1e-10, msg=name)


def test_views_of_one_domain_are_batches_of_their_own() -> None:
    x = images((4,))
    norm, alone = layer(2), layer(2)
    views = (Segment("target", 5), Segment("target", 3))
    apart = [told(alone, x[:5], views[0]), told(alone, x[5:], views[1])]
    assert torch.equal(told(norm, x, *views), torch.cat(apart))
    assert torch.equal(norm.target.running_mean, alone.target.running_mean)
    assert int(norm.source.num_batches_tracked) == int(alone.source.num_batches_tracked)


def test_both_domains_start_from_the_batch_norm_that_is_replaced() -> None:
    norm = nn.BatchNorm2d(4, eps=1e-3, momentum=0.3)
    with torch.no_grad():
        for tensor in norm.state_dict().values():
            tensor.add_(torch.arange(1, 5) if tensor.dim() else 7)
    state = copy.deepcopy(norm.state_dict())
    model = normaliser("dsbn").apply(nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU()).eval())
    assert list(model[1].state_dict()) == [f"{d}.{n}" for d in ("source", "target") for n in state]
    for domain in (model[1].source, model[1].target):
        assert all(torch.equal(v, state[k]) for k, v in domain.state_dict().items())
        assert (domain.eps, domain.momentum, domain.training) == (1e-3, 0.3, False)
    pointers = [p.data_ptr() for p in model[1].parameters()]
    assert len(set(pointers)) == 4


def test_a_bare_convolution_gets_one_where_that_is_asked_for() -> None:
    model = normaliser("dsbn", insert=True).apply(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    assert isinstance(model[0][1], DomainBatchNorm)
    assert told(model, torch.randn(8, 3, 5, 5), *BOTH).isfinite().all()


@pytest.mark.parametrize(
    ("domains", "match"),
    [
        ((), "was not told which samples are of which"),
        ((Segment("source", 5),), "was told of 5 of source samples, and 8 came"),
        ((Segment("source", 5), Segment("target", 4)), "5 of source . 4 of target samples"),
        ((Segment("photo", 8),), "knows source and target, not 'photo'"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_a_domain_is_never_guessed(
    domains: tuple[Segment, ...], match: str, training: bool
) -> None:
    with pytest.raises(UserError, match=match) as caught:
        told(layer(2).train(training), images((4,)), *domains)
    assert "\n" not in str(caught.value)


def test_a_network_is_evaluated_on_a_domain_with_what_is_that_domains() -> None:
    module = EntropyMinimisation(10, bottleneck=16, norm="dsbn", seed=1)
    fit(module, digits(batch_size=8))
    module.eval()
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    as_source, as_target = (module.activations(x, d).logits for d in ("source", "target"))
    assert not torch.allclose(as_source, as_target, rtol=1e-2)
    joint = module.network(torch.cat([x, x]), (Segment("target", 4), Segment("source", 4))).logits
    torch.testing.assert_close(joint, torch.cat([as_target, as_source]))
    assert torch.equal(module(x), as_target)  # what is exported meets the target
    for norm in (m for m in module.modules() if isinstance(m, DomainBatchNorm)):
        with torch.no_grad():
            norm.source.weight.zero_()
    assert torch.equal(module(x), as_target)


def test_the_critic_keeps_batch_norm() -> None:
    module = DANN(10, bottleneck=16, critic_width=8, norm="dsbn")
    module.prepare()
    kinds = {
        name: {type(m) for m in part.modules()}
        for name, part in (("critic", module.critic), *module.network.named_children())
    }
    assert DomainBatchNorm in kinds["backbone"] & kinds["bottleneck"]
    assert DomainBatchNorm not in kinds["critic"]
    assert nn.BatchNorm1d in kinds["critic"]


def test_every_parameter_of_a_run_moves() -> None:
    module = DANN(10, bottleneck=16, critic_width=8, norm="dsbn", weight_decay=0.0, lr=0.05)
    module.prepare()
    before = {k: p.detach().clone() for k, p in module.named_parameters()}
    fit(module, digits(batch_size=8))
    assert not [k for k, p in module.named_parameters() if torch.equal(p, before[k])]


def test_a_batch_of_one_is_refused_before_training() -> None:
    module = EntropyMinimisation(10, bottleneck=16, norm="dsbn")
    with pytest.raises(UserError, match=r"batch_size 1 with norm 'dsbn'.*no statistics of one"):
        fit(module, digits(batch_size=1))


def test_statistics_that_are_a_domains_own_are_not_reestimated_on_another() -> None:
    model = nn.Sequential(layer(2))
    before = copy.deepcopy(model.state_dict())
    assert not batch_norms(model)
    with reestimated(model, [images((4,))]):
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_it_does_not_compose_with_weight_align() -> None:
    with pytest.raises(UserError, match=r"unknown normaliser 'wa\+dsbn'"):
        normaliser("wa+dsbn")
    with pytest.raises(UserError, match="unknown activation normaliser 'dsbn'"):
        WeightAlign(activation="dsbn")
