"""Frozen batch norm: what it computes, what stays and what moves, and where it is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from short_runs import digits, fit, small
from torch import nn

from da.adapters.batch_statistics import BatchStatistics
from da.errors import UserError
from da.methods.dann import DANN
from da.methods.mean_teacher import MeanTeacher
from da.methods.source_only import SourceOnly
from da.norms import batch_norms, normaliser, reestimated
from da.norms.frozen_batch_norm import FrozenBatchNorm

SHAPES = {"vectors": (4,), "lines": (4, 6), "maps": (4, 3, 2), "volumes": (4, 2, 3, 2)}
KINDS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
@pytest.mark.parametrize("affine", [True, False])
def test_it_normalises_by_its_statistics_in_training_and_leaves_them(
    shape: tuple[int, ...], affine: bool
) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5, *shape, generator=generator, dtype=torch.float64)
    plain = KINDS[x.dim()](4, affine=affine).double()
    with torch.no_grad():
        for tensor in (t for t in plain.state_dict().values() if t.is_floating_point()):
            tensor.copy_(torch.rand(4, generator=generator) + 0.5)
    state = copy.deepcopy(plain.state_dict())
    norm = normaliser("bn-frozen").apply(plain)
    found = norm.train()(x)
    assert not norm.training
    assert list(norm.state_dict()) == list(state)  # so that checkpoints of batch norm fit
    assert all(torch.equal(value, state[name]) for name, value in norm.state_dict().items())
    arrays = {
        n: t.numpy().reshape(1, -1, *[1] * (x.dim() - 2)) for n, t in state.items() if t.dim()
    }
    expected = (x.numpy() - arrays["running_mean"]) / np.sqrt(arrays["running_var"] + plain.eps)
    if affine:
        expected = expected * arrays["weight"] + arrays["bias"]
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-12)


def frozen_layers(module: nn.Module) -> dict[str, FrozenBatchNorm]:
    return {n: m for n, m in module.named_modules() if isinstance(m, FrozenBatchNorm)}


@pytest.mark.parametrize("kind", [SourceOnly, DANN, MeanTeacher])
def test_training_moves_scales_and_shifts_and_no_statistic_of_the_backbone(
    kind: type, pretrained: str
) -> None:
    module = small(kind, norm="bn-frozen", weights=pretrained, lr=0.1)
    loaded = torch.load(pretrained, weights_only=True)
    fit(module, digits(batch_size=8))
    after = module.network.backbone.state_dict()
    assert set(after) == set(loaded)
    layers = frozen_layers(module.network.backbone)
    assert len(layers) == 7
    for name in layers:
        for statistic in ("running_mean", "running_var", "num_batches_tracked"):
            key = f"{name}.{statistic}"
            assert torch.equal(after[key], loaded[key]), key
        for parameter in ("weight", "bias"):
            assert not torch.equal(after[f"{name}.{parameter}"], loaded[f"{name}.{parameter}"])


def test_heads_have_no_pretrained_statistics_and_keep_batch_norm(pretrained: str) -> None:
    module = small(DANN, norm="bn-frozen", weights=pretrained)
    module.prepare()
    heads = [*batch_norms(module.network.bottleneck).values(), *batch_norms(module.critic).values()]
    assert heads
    assert {type(norm) for norm in heads} == {nn.BatchNorm1d}
    assert set(module.part_norms.items()) >= {("backbone", "bn-frozen"), ("bottleneck", "bn")}
    fit(module, digits(batch_size=8))
    assert all(norm.num_batches_tracked > 0 for norm in heads)


def test_its_statistics_are_re_estimated_as_those_of_batch_norm(pretrained: str) -> None:
    x = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    found = []
    for norm in ("bn", "bn-frozen"):
        network = small(SourceOnly, norm=norm, weights=pretrained, bottleneck=None).network
        before = network(x).logits if norm == "bn-frozen" else network.eval()(x).logits
        with reestimated(network.train(), [x]), torch.no_grad():
            forms = network(x).logits
        adapted = torch.cat(list(BatchStatistics().predict(copy.deepcopy(network), [x])))
        torch.testing.assert_close(network.eval()(x).logits, before, rtol=0, atol=0)
        assert not torch.allclose(forms, before, atol=1e-3)
        found.append((before, forms, adapted))
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_batch_of_one_image_is_taken_without_heads_that_have_statistics(pretrained: str) -> None:
    options = {"norm": "bn-frozen", "weights": pretrained}
    fit(small(SourceOnly, bottleneck=None, **options), digits(batch_size=1, steps_per_epoch=1))
    with pytest.raises(
        UserError, match=r"batch_size 1 with norm 'bn-frozen'.*1 of such layers.*bottlen"
    ):
        fit(small(SourceOnly, **options), digits(batch_size=1))


@pytest.mark.parametrize("norm", ["bn-frozen", "folded"])
def test_without_pretrained_weights_it_is_refused_by_name(norm: str, pretrained: str) -> None:
    with pytest.raises(UserError) as caught:
        SourceOnly(num_classes=4, norm=norm)
    said = str(caught.value)
    assert said.startswith(f"norm '{norm}' is made of the statistics that come with pretrained")
    assert "give --model.weights imagenet or a file" in said
    assert "\n" not in said
    with pytest.raises(UserError, match=f"norm '{norm}'.*scope leaves the backbone out; add it"):
        SourceOnly(num_classes=4, norm=norm, weights=pretrained, scope=["bottleneck"])


@pytest.mark.parametrize("norm", ["bn-frozen", "folded"])
def test_what_has_no_statistics_is_refused_and_stays_as_it_is(norm: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))
    model.append(nn.BatchNorm2d(4, track_running_stats=False))
    before = list(model.modules())
    weight = model[0].weight.detach().clone()
    with pytest.raises(UserError, match="'3' of Sequential has no running statistics"):
        normaliser(norm).apply(model)
    assert list(model.modules()) == before
    assert torch.equal(model[0].weight, weight)
    with pytest.raises(UserError, match=f"has no batch norm for '{norm}' to"):
        normaliser(norm).apply(nn.Sequential(nn.Conv2d(3, 4, 3)))
    with pytest.raises(UserError, match="unknown normaliser"):
        normaliser(f"wa+{norm}")
