"""What every backbone found on disk must do."""

import pytest
import torch
from long_cases import rest_long
from torch import nn

from da.discovery import subclasses
from da.errors import UserError
from da.networks.backbones.base import Backbone, backbone_families, build_backbone
from da.ops.seeding import seeded

NAMES = list(backbone_families())
#: Built and run for real; the others on the meta device, which knows shapes and computes nothing.
SMALL = ["digits_resnet", "dtn", "lenet", "resnet18"]


def on_meta(name):
    with torch.device("meta"):
        return build_backbone(name)


def test_names_are_unique_and_known():
    classes = subclasses("da.networks.backbones", Backbone)
    assert sum(len(kind.names) for kind in classes.values()) == len(NAMES)
    assert {"digits_resnet", "lenet", "dtn", "resnet50", "resnet101", "vgg16", "vgg16_bn"} <= set(
        NAMES
    )
    assert set(SMALL) <= set(NAMES)


@pytest.mark.parametrize("size", rest_long([32, 64], [32]))
@pytest.mark.parametrize("name", NAMES)
def test_num_features_is_the_width_of_the_output(name, size):
    model = on_meta(name)
    images = torch.empty(2, 3, size, size, device="meta")
    assert model(images).shape == (2, model.num_features)
    assert model.name == name


@pytest.mark.parametrize("name", NAMES)
def test_it_is_built_as_published_and_without_a_classifier(name):
    layers = list(on_meta(name).modules())
    assert not any(isinstance(m, nn.Linear) and m.out_features == 1000 for m in layers)
    bare = name == "lenet" or (name.startswith("vgg") and not name.endswith("_bn"))
    assert any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in layers) == (not bare)


@pytest.mark.parametrize("name", SMALL)
def test_features_are_finite_and_every_parameter_gets_a_gradient(name):
    with seeded(0, name):
        model = build_backbone(name)
        images = torch.randn(4, 3, 32, 32)
        features = model(images)
    assert features.shape == (4, model.num_features)
    assert features.dtype == torch.float32
    features.square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any() or key.endswith("bias"), key


@pytest.mark.parametrize("name", SMALL)
def test_a_seed_gives_the_weights(name):
    def built(seed):
        with seeded(seed, "backbone"):
            return build_backbone(name).state_dict()

    first, again, other = built(0), built(0), built(1)
    assert all(torch.equal(first[k], again[k]) for k in first)
    convolutions = [k for k in first if first[k].ndim == 4]
    assert not any(torch.equal(first[k], other[k]) for k in convolutions)


@pytest.mark.parametrize("name", ["digits_resnet", "dtn", "lenet"])
def test_its_own_weights_go_through_a_file(name, tmp_path):
    model = build_backbone(name)
    torch.save(model.state_dict(), tmp_path / "a.pth")
    other = build_backbone(name, str(tmp_path / "a.pth"))
    for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_do_not_exist_are_refused(name):
    with pytest.raises(UserError, match=r"no file 'no\.pth'") as caught, torch.device("meta"):
        build_backbone(name, "no.pth")
    assert "\n" not in str(caught.value)
