"""Trained networks under the names of torchvision and timm, and as plain layers."""

import re

import pytest
import torch
import torchvision
from long_cases import rest_long
from torch import nn

from da.errors import UserError
from da.exports.library_network import build_library_network, library_network
from da.exports.plain_network import PlainClassifier, fold_all_batch_norms, plain_network
from da.methods.dann import DANN
from da.methods.mcd import MCD
from da.methods.shot import SHOT
from da.norms import batch_norms, normaliser_names
from da.norms.surgery import Affine
from da.norms.weight_align.layers import Aligned

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def trained(kind=DANN, backbone="digits_resnet", norm="wa", bottleneck=16, **options):
    """A method whose statistics, scales and shifts are not those of the start."""
    module = kind(num_classes=4, backbone=backbone, norm=norm, bottleneck=bottleneck, **options)
    module.prepare()
    generator = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.running_mean.normal_(0, 0.1, generator=generator)
            layer.running_var.uniform_(0.5, 1.5, generator=generator)
        for name in ("weight", "bias"):
            value = layer._parameters.get(name)
            if value is not None and value.dim() == 1:
                value.data.add_(torch.empty_like(value).uniform_(-0.2, 0.2, generator=generator))
    return module.eval()


def logits(module, images=IMAGES):
    with torch.no_grad():
        return module(images)


@pytest.mark.parametrize("norm", ["bn", "wa", "wa+bn", "wa+gn", "in", "none", "dsbn"])
def test_a_plain_network_computes_the_same_without_this_library(norm):
    module = trained(norm=norm)
    expected = logits(module)
    plain = plain_network(module.evaluated())
    torch.testing.assert_close(logits(PlainClassifier(plain)), expected, rtol=1e-4, atol=1e-5)
    assert fold_all_batch_norms(plain) == 0
    torch.testing.assert_close(logits(PlainClassifier(plain)), expected, rtol=1e-4, atol=1e-5)
    assert not batch_norms(plain, within_domain_layers=True)
    assert not [m for m in plain.modules() if isinstance(m, Aligned) or type(m) is Affine]
    torch.testing.assert_close(logits(module), expected)  # the original is as it was


@pytest.mark.parametrize("kind", [MCD, SHOT])
def test_what_a_method_evaluates_is_what_is_exported(kind):
    module = trained(kind, norm="bn")
    plain = plain_network(module.evaluated())
    fold_all_batch_norms(plain)
    torch.testing.assert_close(logits(PlainClassifier(plain)), logits(module), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", normaliser_names())
def test_every_normaliser_loads_elsewhere_unless_it_reads_the_image(norm, start):
    module = trained(norm=norm, **start(norm))
    network = plain_network(module.evaluated())
    try:
        named = library_network(network, "digits_resnet")
    except UserError as error:
        of_each_image = {"frn", "gn", "ibn", "in", "ln", "ws+gn", "wa+gn", "wa+in", "wa+ln"}
        assert norm in of_each_image
        place, kinds = re.match(
            r"'(\S+)' of this network \((.*?)\) has no place", str(error)
        ).groups()
        layer = network.backbone.get_submodule(place)
        parts = layer if isinstance(layer, nn.Sequential) else [layer]
        assert kinds == ", ".join(type(part).__name__ for part in parts)
        assert "Norm" in kinds
        return
    again = build_library_network(named.facts(), named.state)
    torch.testing.assert_close(logits(again), logits(module), rtol=1e-4, atol=1e-5)


TRAINED_WITH = ["bn", "wa", "wa+bn", "dsbn", "none", "brn", "bn-sync"]


@pytest.mark.parametrize("norm", rest_long(TRAINED_WITH, ["wa", "dsbn"]))
def test_torchvision_loads_a_network_whatever_it_was_trained_with(norm):
    module = trained(backbone="resnet18", norm=norm)
    named = library_network(plain_network(module.evaluated()), "resnet18")
    assert (named.library, named.model, named.head) == ("torchvision", "resnet18", "fc")
    assert named.layers == [[512, 16], "relu", [16, 4]]
    theirs = torchvision.models.resnet18()
    theirs.fc = nn.Sequential(nn.Linear(512, 16), nn.ReLU(), nn.Linear(16, 4))
    theirs.load_state_dict(named.state, strict=True)
    torch.testing.assert_close(logits(theirs.eval()), logits(module), rtol=1e-4, atol=1e-4)
    again = build_library_network(named.facts(), named.state)
    torch.testing.assert_close(logits(again), logits(theirs))


def test_without_a_bottleneck_the_head_is_the_classifier_of_torchvision():
    module = trained(backbone="resnet18", bottleneck=None)
    named = library_network(plain_network(module.evaluated()), "resnet18")
    theirs = torchvision.models.resnet18(num_classes=4)
    theirs.load_state_dict(named.state, strict=True)
    torch.testing.assert_close(logits(theirs.eval()), logits(module), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["bn", "wa"])
def test_timm_loads_a_network_whose_joined_layers_were_taken_apart(norm):
    timm = pytest.importorskip("timm")
    module = trained(backbone="timm/tf_efficientnet_lite0", norm=norm, bottleneck=None)
    named = library_network(plain_network(module.evaluated()), "timm/tf_efficientnet_lite0")
    theirs = timm.create_model("tf_efficientnet_lite0", num_classes=4)
    theirs.load_state_dict(named.state, strict=True)
    torch.testing.assert_close(logits(theirs.eval()), logits(module), rtol=1e-3, atol=1e-3)


def test_two_linear_layers_in_turn_are_one():
    module = trained(SHOT, norm="bn")
    named = library_network(plain_network(module.evaluated()), "digits_resnet")
    assert (named.library, named.layers) == ("da", [[48, 4]])
    again = build_library_network(named.facts(), named.state)
    torch.testing.assert_close(logits(again), logits(module), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "norm", "place"), [(DANN, "gn", "bn1"), (MCD, "bn", "MeanOfClassifiers")]
)
def test_what_has_no_place_in_the_library_is_refused_with_what_holds_it(kind, norm, place):
    module = trained(kind, backbone="resnet18", norm=norm)
    with pytest.raises(UserError, match=r"has no place in resnet18 .* onnx or torch-export") as e:
        library_network(plain_network(module.evaluated()), "resnet18")
    assert place in str(e.value)


def test_tensors_that_are_not_the_network_s_are_refused_in_one_line():
    module = trained(norm="bn")
    named = library_network(plain_network(module.evaluated()), "digits_resnet")
    state = dict(named.state)
    state.popitem()
    with pytest.raises(UserError, match="do not fit da's digits_resnet") as caught:
        build_library_network(named.facts(), state)
    assert "\n" not in str(caught.value)
