import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from da.analysis.activations import (
    channels_of,
    measure_layers,
    normalises,
    training_batches,
    watch_layers,
)
from da.methods.dann import DANN
from da.methods.source_only import SourceOnly
from da.norms import batch_norms, normaliser, reestimated
from da.norms.base import DomainLayer
from da.norms.identity import BranchScale
from da.ops.moments import ChannelMoments
from da.types import Segment

NORMS = ["bn", "wa", "gn", "in", "ln", "none", "wa+bn", "wa+gn"]


@pytest.fixture
def images():
    """Two domains of 12 images, the target shifted and scaled."""
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(12, 3, 32, 32, generator=generator)
    return source, 2 * torch.randn(12, 3, 32, 32, generator=generator) + 0.5


def small(norm, kind=SourceOnly):
    """The small ResNet with bottleneck, with batch norms that have seen something."""
    module = kind(num_classes=4, task="a->b", norm=norm, bottleneck=20)
    generator = torch.Generator().manual_seed(1)
    for layer in batch_norms(module).values():
        layer.running_mean.normal_(generator=generator)
        layer.running_var.uniform_(0.5, 2, generator=generator)
    return module.eval()


def by_hand(module, x):
    """Every layer's output and what goes on from it, written out for the small ResNet."""
    found = {}

    def at(name, layer, norm, value):
        into = layer(value)
        found[name] = into, into if isinstance(norm, BranchScale) else norm(into)
        return norm(into)

    net = module.network.backbone
    x = F.relu(at("backbone.stem.0", net.stem[0], net.stem[1], x))
    for i, block in enumerate(net.blocks):
        name = f"backbone.blocks.{i}"
        y = F.relu(at(f"{name}.conv1", block.conv1, block.bn1, x))
        y = at(f"{name}.conv2", block.conv2, block.bn2, y)
        short = block.downsample
        x = F.relu(y + at(f"{name}.downsample.0", short[0], short[1], x))
    x = F.relu(
        at(
            "bottleneck.0",
            module.network.bottleneck[0],
            module.network.bottleneck[1],
            x.mean((2, 3)),
        )
    )
    at("classifier", module.network.classifier, nn.Identity(), x)
    return found


@pytest.mark.parametrize("norm", NORMS)
def test_moments_are_numpys_before_and_after_the_normaliser(norm, images):
    module = small(norm)
    found = measure_layers(module, images[0].split(5), images[1].split(5))
    with torch.no_grad():
        expected = {"source": by_hand(module, images[0]), "target": by_hand(module, images[1])}
    assert [layer.name for layer in found] == list(expected["source"])
    for layer in found:
        for domain in ("source", "target"):
            pairs = zip((layer.into, layer.out), expected[domain][layer.name], strict=True)
            for ours, values in pairs:
                array = values.transpose(0, 1).flatten(1).double().numpy()
                np.testing.assert_allclose(ours[domain].mean, array.mean(1), rtol=1e-4, atol=1e-5)
                np.testing.assert_allclose(ours[domain].std, array.std(1), rtol=1e-4, atol=1e-5)
    assert [layer.kind for layer in found] == ["convolution"] * 7 + ["linear"] * 2
    followed = {layer.name for layer in found if layer.norm}
    if norm in ("wa", "none"):
        assert not followed
    else:
        assert "backbone.stem.0" in followed
        assert "classifier" not in followed
    running = {layer.name for layer in found if layer.running}
    assert running == (followed if norm.endswith("bn") else set())


def test_running_statistics_are_batch_norms_and_evaluation_normalises_with_them(images):
    module = small("bn")
    for layer in measure_layers(module, *([x] for x in images))[:-1]:
        assert not layer.name.startswith("network.")
        path, _, last = layer.name.rpartition(".")
        name = {"conv1": f"{path}.bn1", "conv2": f"{path}.bn2", "0": f"{path}.1"}[last]
        norm = module.network.get_submodule(name)
        torch.testing.assert_close(layer.running.mean, norm.running_mean.double())
        torch.testing.assert_close(layer.running.std, norm.running_var.double().sqrt())
        for domain in ("source", "target"):
            scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
            mean = (layer.into[domain].mean - layer.running.mean) * scale + norm.bias.detach()
            torch.testing.assert_close(layer.out[domain].mean, mean, rtol=1e-4, atol=1e-5)
            std = layer.into[domain].std * scale.abs()
            torch.testing.assert_close(layer.out[domain].std, std, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["bn", "wa", "wa+bn", "gn"])
@pytest.mark.parametrize("training", [True, False])
def test_the_network_stays_as_it_is(norm, training, images):
    module = small(norm).train(training)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    twin = copy.deepcopy(module)
    first = measure_layers(module, *([x] for x in images))
    assert module.training == training
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
    for part in module.modules():
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
    with torch.no_grad():
        torch.manual_seed(0)
        expected = twin(images[1])
        torch.manual_seed(0)
        assert torch.equal(module(images[1]), expected)
    if norm == "wa":  # and within the block it computes the same
        with torch.no_grad(), watch_layers(module, ChannelMoments):
            assert torch.equal(module(images[1]), expected)
    if not training:
        again = measure_layers(module, *([x] for x in images))
        for a, b in zip(first, again, strict=True):
            assert torch.equal(a.out["source"].mean, b.out["source"].mean)


def test_hooks_go_when_the_network_fails(images):
    module = small("bn")
    with pytest.raises(RuntimeError):
        measure_layers(module, [images[0]], [torch.zeros(2, 7, 32, 32)])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


class Twice(nn.Module):
    """One convolution and one batch norm, each called twice; in-place ReLU; a norm by itself."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.act = nn.ReLU(inplace=True)
        self.late = nn.Conv2d(3, 5, 1)
        self.last = nn.BatchNorm2d(5)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        x = self.act(self.norm(self.conv(x)))
        x = self.act(self.norm(self.conv(x)))
        return self.last(self.act(self.late(x)))


def test_shared_modules_and_norms_behind_an_activation_in_place(images):
    torch.manual_seed(0)
    model = Twice().eval()
    model.norm.running_mean.fill_(0.3)
    found = {layer.name: layer for layer in measure_layers(model, *(x.split(4) for x in images))}
    assert list(found) == ["conv", "late", "last"]
    assert found["last"].kind == "normaliser"
    assert found["late"].norm == ""
    x = images[0]
    with torch.no_grad():
        one = model.conv(x)
        two = model.conv(model.norm(one).relu())
        late = model.late(model.norm(two).relu())
    expected = {
        ("conv", "into"): torch.cat([one, two]),
        ("conv", "out"): model.norm(torch.cat([one, two])),
        ("late", "into"): late,
        ("late", "out"): late,
        ("last", "into"): late.relu(),
        ("last", "out"): model.last(late.relu()),
    }
    for (name, point), values in expected.items():
        array = values.detach().transpose(0, 1).flatten(1).double().numpy()
        ours = getattr(found[name], point)["source"]
        np.testing.assert_allclose(ours.mean, array.mean(1), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(ours.std, array.std(1), rtol=1e-4)


@pytest.mark.parametrize("norm", ["bn", "wa", "wa+bn"])
def test_a_network_whose_norms_come_before_its_layers(norm):
    model = torchvision.models.DenseNet(8, (2, 2), 8, num_classes=3)
    model = normaliser(norm).apply(model).eval()
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = measure_layers(model, [x], [x + 1])
    assert [layer.kind for layer in found].count("convolution") == 1 + 2 * 4 + 1
    norms = [layer for layer in found if layer.kind == "normaliser"]
    assert bool(norms) == (norm != "wa")
    assert all(layer.running for layer in norms)
    for layer in found:
        assert (layer.into["source"].std > 0).any()


def test_channels_of_layer_norms_and_what_is_no_normaliser():
    assert channels_of(nn.LayerNorm(8)) == -1
    assert channels_of(nn.LayerNorm((8, 4, 4))) == -3
    assert channels_of(torchvision.models.convnext.LayerNorm2d(8)) == 1
    assert channels_of(nn.Linear(2, 2)) == -1
    assert channels_of(nn.Conv1d(2, 2, 1)) == 1
    assert normalises(nn.GroupNorm(1, 4))
    assert not normalises(nn.Identity())
    assert not normalises(nn.Conv2d(1, 1, 1))
    assert not normalises(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))


@pytest.mark.parametrize(
    ("kind", "mode"), [(SourceOnly, "joint"), (DANN, "joint"), (DANN, "separate")]
)
def test_statistics_before_training_come_from_what_training_would_show(kind, mode, images):
    module = kind(num_classes=4, task="a->b", forward_mode=mode)
    halves = [x.split(6) for x in images]
    with reestimated(module.evaluated(), training_batches(module, *halves)):
        stem = measure_layers(module, *halves)[0]
    source, target = stem.into["source"], stem.into["target"]
    if kind is SourceOnly:
        mean, square = source.mean, source.std**2
        assert stem.target_share == pytest.approx(0, abs=1e-4)
    else:
        mean, square = (source.mean + target.mean) / 2, (source.std**2 + target.std**2) / 2
        assert stem.target_share == pytest.approx(0.5, abs=1e-4)
    if mode == "joint" and kind is DANN:  # one batch of both also varies between the domains
        square = square + ((source.mean - target.mean) / 2) ** 2
    torch.testing.assert_close(stem.running.mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stem.running.std, square.sqrt(), rtol=1e-2, atol=0)


class Noting(DomainLayer):
    """Notes the domains that it is told of."""

    def __init__(self):
        super().__init__()
        self.told = []

    def forward(self, x):
        self.told.append(self.domains)
        return x


def test_the_network_is_told_which_domain_it_sees(images):
    module = small("bn", DANN)
    module.network.bottleneck.append(Noting())
    told = module.network.bottleneck[-1].told
    measure_layers(module, images[0].split(8), [images[1]])
    sizes = [("source", 8), ("source", 4), ("target", 12)]
    assert told == [(Segment(*pair),) for pair in sizes]


@pytest.mark.parametrize(
    ("kind", "mode", "expected"),
    [
        (SourceOnly, "joint", [[("source", 8)], [("source", 4)]]),
        (DANN, "joint", [[("source", 8), ("target", 8)], [("source", 4), ("target", 4)]]),
        (DANN, "separate", [[(role, n)] for n in (8, 4) for role in ("source", "target")]),
    ],
)
def test_batches_before_training_say_which_samples_are_of_which_domain(
    kind, mode, expected, images
):
    module = kind(num_classes=4, task="a->b", forward_mode=mode)
    batches = list(training_batches(module, *(x.split(8) for x in images)))
    assert [[tuple(part) for part in domains] for _, domains in batches] == expected
    for shown, domains in batches:
        of_either = dict(zip(("source", "target"), images, strict=True))
        for part, (domain, size) in zip(
            shown.split([part.size for part in domains]), domains, strict=True
        ):
            assert any(torch.equal(part, x) for x in of_either[domain].split(8))
            assert len(part) == size
