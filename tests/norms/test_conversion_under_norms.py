"""Weights trained with batch norm as a start for WeightAlign with a normaliser of activations."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from long_cases import rest_long
from torch import Tensor, nn

from da.errors import UserError
from da.norms import WeightAlign, convert_pretrained, normaliser
from da.norms.weight_align.conversion import PLAIN
from da.norms.weight_align.distillation import EPOCHS, distil
from da.norms.weight_align.layers import Aligned
from da.norms.weight_align.output_errors import relative_error
from tests.norms.conftest import build

SHAPE = (3, 24, 24)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def settled(name: str, images: Tensor) -> nn.Module:
    """A network whose running averages are those of the images."""
    model = build(name)
    for norm in batch_norms(model):
        norm.momentum = None
    with torch.no_grad():
        model.train()(images)
    return model.eval()


def batch_norms(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


class Separable(nn.Module):
    """A stem, an inverted residual block with a linear bottleneck, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn0 = nn.Conv2d(3, 16, 3, 2, bias=False), nn.BatchNorm2d(16)
        self.expand, self.bn1 = nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.project, self.bn3 = nn.Conv2d(32, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.head, self.bn4 = nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn0(self.stem(x))
        y = self.act(self.bn1(self.expand(x)))
        y = self.act(self.bn2(self.depthwise(y)))
        x = x + self.bn3(self.project(y))
        return self.act(self.bn4(self.head(x))).mean((2, 3))


@pytest.fixture(scope="module")
def separable() -> nn.Module:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = Separable()
        for norm in batch_norms(model):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
            norm.momentum = None
        model.train()(IMAGES)
    return model.eval()


IMAGES, OTHERS = random(64, *SHAPE).abs(), random(32, *SHAPE, seed=1).abs()


NETWORKS = ["resnet18", "densenet", "mobilenet_v3", "vgg_bn", "grouped"]


@pytest.mark.parametrize("name", rest_long(NETWORKS, ["resnet18", "grouped"]))
def test_under_batch_norm_a_network_computes_what_wa_alone_does(name: str) -> None:
    """A batch norm in evaluation is a scale and a shift: what g and b are under WA."""
    size = {"vgg_bn": (3, 32, 32), "grouped": (4, 8, 8)}.get(name, SHAPE)
    images = random(40, *size)
    model = settled(name, images)
    alone, under = (
        convert_pretrained(model, images[:32], images[32:], normaliser=WeightAlign(activation=a))
        for a in (None, "bn")
    )
    with torch.no_grad():
        one, other = (c.model.eval()(images[32:]) for c in (alone, under))
    # Each normaliser is fitted once more after its filter, on all positions and without the ridge.
    assert relative_error([other], [one]) < 0.3 * alone.error + 1e-5
    assert under.error < 1.1 * alone.error + 1e-5
    assert not under.distilled
    assert len(batch_norms(under.model)) == len(batch_norms(model))


def test_scale_and_shift_are_the_line_that_numpy_finds_and_averages_those_of_the_images(
    separable: nn.Module,
) -> None:
    found = convert_pretrained(
        separable, IMAGES, OTHERS, normaliser=WeightAlign(activation="bn", exclude=["project"])
    ).model.eval()
    taken: dict[str, np.ndarray] = {}
    for model, side in ((copy.deepcopy(separable), "before"), (found, "after")):
        model.get_submodule("bn1").register_forward_hook(
            lambda _, x, y, side=side: taken.update(  # type: ignore[misc]
                {f"into {side}": x[0].double().numpy(), f"out of {side}": y.double().numpy()}
            )
        )
        with torch.no_grad():
            model(IMAGES)
    z, t = (taken[key].swapaxes(0, 1).reshape(32, -1) for key in ("into after", "out of before"))
    norm: Any = found.get_submodule("bn1")
    np.testing.assert_allclose(norm.running_mean.numpy(), z.mean(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.running_var.numpy(), z.var(1, ddof=1), rtol=1e-4)
    deviation = np.sqrt(norm.running_var.numpy() + norm.eps)
    lines = [np.polyfit(*channel, 1) for channel in zip(z, t, strict=True)]
    slopes, shifts = np.array(lines).T
    scale, shift = (x.detach().numpy() for x in (norm.weight, norm.bias))
    np.testing.assert_allclose(scale, slopes * deviation, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(shift, shifts + slopes * norm.running_mean.numpy(), atol=1e-3)


def test_in_training_a_batch_of_all_images_gives_what_evaluation_gives(
    separable: nn.Module,
) -> None:
    found = convert_pretrained(separable, IMAGES, OTHERS, normaliser=normaliser("wa+bn", **PLAIN))
    model = copy.deepcopy(found.model)
    with torch.no_grad():
        wanted = model.eval()(IMAGES)
        assert relative_error([model.train()(IMAGES)], [wanted]) < 1e-4


def test_plain_layers_keep_the_length_of_their_filters_and_one_channel_becomes_constant(
    separable: nn.Module,
) -> None:
    found = convert_pretrained(separable, IMAGES, OTHERS, normaliser=normaliser("wa+bn", **PLAIN))
    assert found.coverage is not None
    assert found.coverage.left == ("stem", "depthwise")
    assert [layer.name for layer in found.layers] == ["bn0", "bn1", "bn2", "bn3", "bn4"]
    for name in found.coverage.left:
        before, after = (
            m.get_submodule(name).get_parameter("weight").flatten(1).norm(dim=1)
            for m in (separable, found.model)
        )
        torch.testing.assert_close(after, before)
    norm: Any = found.model.get_submodule("bn2")
    (constant,) = (norm.weight == 0).nonzero().flatten().tolist()
    assert norm.bias[constant].item() == 1  # its filters are alive: training may use them again
    assert (
        found.error
        < convert_pretrained(separable, IMAGES, OTHERS, normaliser=normaliser("wa+bn")).error
    )


def test_aligned_layers_have_neither_g_nor_b_and_filters_of_zero_sum(separable: nn.Module) -> None:
    found = convert_pretrained(separable, IMAGES, OTHERS, normaliser=normaliser("wa+bn")).model
    for layer in found.modules():
        if isinstance(layer, Aligned):
            assert layer.g is None
            assert layer.bias is None
            assert layer.aligned_weight().flatten(1).sum(1).abs().max() < 1e-4


NORMS = ["wa+gn", "wa+ln", "wa+in", "ws+gn"]


@pytest.mark.parametrize("norm", rest_long(NORMS, ["wa+gn", "ws+gn"]))
def test_under_statistics_of_images_distillation_brings_it_nearer(
    separable: nn.Module, norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = convert_pretrained(separable, IMAGES, OTHERS, normaliser=normaliser(norm))
    assert near.distilled
    raw = normaliser(norm).apply(copy.deepcopy(separable)).eval()
    monkeypatch.setattr("da.norms.weight_align.conversion.distil", lambda *arguments: None)
    fitted = convert_pretrained(separable, IMAGES, OTHERS, normaliser=normaliser(norm))
    with torch.no_grad():  # on the images themselves: of noise nothing can be learnt for others
        distilled, only_fitted, only_aligned = (
            relative_error([model.eval()(IMAGES)], [separable(IMAGES)])
            for model in (near.model, fitted.model, raw)
        )
    assert distilled < min(only_fitted, only_aligned)


def test_a_network_that_computes_the_same_already_is_left_as_it_is() -> None:
    teacher = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    student = copy.deepcopy(teacher)
    student[0].weight.requires_grad_(False)
    distil(student, teacher, list(random(40, 3).split(16)))
    for one, other in zip(student.parameters(), teacher.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.grad is None
    assert [p.requires_grad for p in student.parameters()] == [False, True, True, True]


def test_what_is_frozen_is_distilled_and_stays_frozen() -> None:
    teacher, student = nn.Linear(3, 2), nn.Linear(3, 2)
    student.requires_grad_(False)
    images = random(160, 3)
    wanted = teacher(images).detach()
    before = relative_error([student(images)], [wanted])
    distil(student, teacher, list(images.split(16)))
    assert relative_error([student(images)], [wanted]) < before
    assert not any(p.requires_grad for p in student.parameters())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"activation": "gn", "insert": True}, r"insert=True of 'wa\+gn' puts normalisers where"),
        ({"activation": "gn", "exclude": "bn1"}, "'expand' of Separable feeds a normaliser that"),
        ({"activation": "bn", "exclude": "bn1"}, "excluded from 'wa'.*exclude 'expand' as well"),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name(
    separable: nn.Module, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(UserError, match=text):
        convert_pretrained(separable, IMAGES, OTHERS, normaliser=WeightAlign(**options))


def test_a_batch_norm_without_scale_and_shift_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, affine=False)).eval()
    with pytest.raises(UserError, match="'1' of Sequential has no scale and shift, which are what"):
        convert_pretrained(model, IMAGES, OTHERS, normaliser=WeightAlign(activation="bn"))


def test_progress_counts_layers_normalisers_and_passes_of_the_distillation(
    separable: nn.Module,
) -> None:
    calls: list[tuple[int, int]] = []
    convert_pretrained(
        *(separable, IMAGES[:20], OTHERS[:4]),
        normaliser=normaliser("wa+gn"),
        progress=lambda *count: calls.append(count),
    )
    assert calls == [(done, 10 + EPOCHS) for done in range(1, 11 + EPOCHS)]


def test_an_excluded_layer_with_its_batch_norm_stays(separable: nn.Module) -> None:
    norm = WeightAlign(activation="gn", exclude=["expand", "bn1"])
    found = convert_pretrained(separable, IMAGES, OTHERS, normaliser=norm)
    assert type(found.model.get_submodule("bn1")) is nn.BatchNorm2d
    assert type(found.model.get_submodule("bn2")) is nn.GroupNorm
    assert "bn1" not in [layer.name for layer in found.layers]
