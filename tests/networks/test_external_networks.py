"""Networks from elsewhere: their tensors, under the names that libraries give them, find a place.

Every file here is the state dict of a real network with the layout of its library.
"""

import pytest
import torch
import torchvision
from torch import nn

from da.errors import UserError
from da.methods.source_only import SourceOnly
from da.networks.backbones.base import build_backbone
from da.networks.external_networks import common_prefix, map_network
from da.networks.weight_files import unwrap_tensors

torch.manual_seed(0)


class ImageClassifier(nn.Module):
    """TLLib's: its ResNets keep ImageNet's classifier beside the head, idle."""

    def __init__(self, network, features, classes=5, width=None, keep=True):
        super().__init__()
        self.backbone = network
        if keep is False:
            del self.backbone.fc
        self.pool_layer = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.bottleneck = nn.Identity()
        if width:
            self.bottleneck = nn.Sequential(
                nn.Linear(features, width), nn.BatchNorm1d(width), nn.ReLU()
            )
        self.head = nn.Linear(width or features, classes)

    def forward(self, x):
        b = self.backbone
        x = b.maxpool(b.relu(b.bn1(b.conv1(x))))
        x = self.pool_layer(b.layer4(b.layer3(b.layer2(b.layer1(x)))))
        return self.head(self.bottleneck(x))


class Split(nn.Module):
    """Other people's names: everything flat, the backbone an encoder."""

    def __init__(self, classes=5, width=7, bias=True):
        super().__init__()
        self.encoder = build_backbone("digits_resnet")
        self.fc1 = nn.Linear(48, width)
        self.bn = nn.BatchNorm1d(width)
        self.fc2 = nn.Linear(width, classes, bias=bias)

    def forward(self, x):
        return self.fc2(self.bn(self.fc1(self.encoder(x))).relu())


def lived(network):
    """With statistics and scales that are nobody's defaults."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
    return network.eval()


def resnet(classes=5):
    return torchvision.models.resnet18(num_classes=classes)


def plain(name):
    return lambda: torchvision.models.get_model(name, num_classes=5)


#: Name of the backbone, what makes the network, width of its bottleneck, what the line says.
NETWORKS = {
    "torchvision resnet": ("resnet18", resnet, None, "5 classes from 'fc'"),
    "torchvision vgg": ("vgg11_bn", plain("vgg11_bn"), None, "from 'classifier.6'"),
    "tllib": ("resnet18", lambda: ImageClassifier(resnet(1000), 512), None, "out: backbone.fc"),
    "tllib dann": (
        "resnet18",
        lambda: ImageClassifier(resnet(1000), 512, width=256),
        256,
        "bottleneck of 256 from 'bottleneck.0' (its bias in the running mean) and 'bottleneck.1', "
        "a ReLU after it assumed, "
        "classifier of 5 classes from 'head', left out: backbone.fc",
    ),
    "tllib dann, older": (
        "resnet18",
        lambda: ImageClassifier(resnet(), 512, width=32, keep=False),
        32,
        "backbone resnet18 from 'backbone.…'",
    ),
    "as wide as the features": (
        "resnet18",
        lambda: ImageClassifier(resnet(), 512, width=512, keep=False),
        512,
        "from 'head'",
    ),
    "as wide as the classes": (
        "resnet18",
        lambda: ImageClassifier(resnet(), 512, classes=512, width=512, keep=False),
        512,
        "bottleneck of 512 from 'bottleneck.0'",
    ),
    "flat": ("digits_resnet", Split, 7, "from 'encoder.…', bottleneck of 7 from 'fc1'"),
    "no bias": ("digits_resnet", lambda: Split(bias=False), 7, "5 classes from 'fc2'"),
}


def tensors_by_name(content, path):
    return unwrap_tensors(content, "checkpoint", path, "give another")


def mapped(tensors, name):
    bare = build_backbone(name)
    return map_network(tensors, bare.state_dict(), bare.num_features, name, "a.pth")


def cases():
    for case in NETWORKS:
        slow = [pytest.mark.long] if "vgg" in case else []  # 119 million weights
        yield pytest.param(case, "", marks=slow)
    yield from (("tllib dann", "module."), ("torchvision resnet", "model.network."))


@pytest.mark.parametrize(("case", "prefix"), cases())
def test_a_network_from_elsewhere_computes_the_same_here(case, prefix):
    name, make, width, said = NETWORKS[case]
    theirs = lived(make())
    found = mapped({prefix + k: v for k, v in theirs.state_dict().items()}, name)
    classes = 512 if "classes" in case else 5
    assert (found.width, found.classes) == (width, classes)
    assert "\n" not in found.said
    assert prefix or said in found.said
    ours = SourceOnly(num_classes=classes, backbone=name, bottleneck=width)
    ours.network.load_state_dict(found.state)
    images = torch.randn(6, 3, 64, 64)
    with torch.no_grad():
        expected, logits = theirs(images), ours.eval()(images)
    assert expected.std() > 1e-3
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    theirs.train(), ours.train()
    if "vgg" not in case:  # dropout
        with torch.no_grad():  # batch norm cancels the bias that is not there
            torch.testing.assert_close(ours(images), theirs(images), rtol=1e-3, atol=1e-4)


def test_files_of_half_precision_and_of_old_pytorch():
    theirs = lived(Split()).half()
    state = {k: v for k, v in theirs.state_dict().items() if "num_batches" not in k}
    found = mapped(state, "digits_resnet")
    assert found.state["bottleneck.1.running_mean"].dtype == torch.float32
    ours = SourceOnly(num_classes=5, bottleneck=7)
    ours.network.load_state_dict(found.state, strict=False)
    images = torch.randn(6, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            ours.eval()(images), theirs.float()(images), rtol=1e-3, atol=1e-3
        )


STATE = {"fc.weight": torch.zeros(2, 3), "fc.bias": torch.zeros(2)}


@pytest.mark.parametrize("key", ["state_dict", "model", "net", "model_state_dict"])
def test_what_stands_around_the_tensors_is_taken_off(key):
    content = {key: STATE, "epoch": 3, "optimizer": {"param_groups": []}, "best": 0.7}
    assert tensors_by_name(content, "a.pth") == STATE
    assert tensors_by_name({"model": content}, "a.pth") == STATE


@pytest.mark.parametrize(
    "content",
    [3, [STATE], {}, {"model": 3}, {"weights": STATE}, {"state_dict": {"a": 1}}, STATE | {"e": 1}],
)
def test_files_without_tensors_by_name_are_refused(content):
    with pytest.raises(
        UserError, match=r"^checkpoint: 'a.pth' holds no state dict of tensors; give"
    ):
        tensors_by_name(content, "a.pth")


def test_two_networks_in_one_file_are_ambiguous():
    with pytest.raises(UserError, match="holds model and net, either could be the network; name"):
        tensors_by_name({"model": STATE, "net": STATE}, "a.pth")
    state = resnet().state_dict()
    twice = {f"student.{k}": v for k, v in state.items()}
    twice |= {f"teacher.{k}": v for k, v in state.items()}
    with pytest.raises(UserError, match=r"holds resnet18 2 times \('student.…', 'teacher.…'\)"):
        mapped(twice, "resnet18")


def changed(network=None, drop=(), add=None):
    state = (network or ImageClassifier(resnet(1000), 512, width=9)).state_dict()
    return {k: v for k, v in state.items() if not k.startswith(drop)} | (add or {})


def linear(inputs, outputs, name):
    return {f"{name}.weight": torch.zeros(outputs, inputs), f"{name}.bias": torch.zeros(outputs)}


WRONG = {
    "no name fits": (dict(STATE), "60 of its 60 tensors are missing"),
    "a tensor is missing": (
        changed(drop=("backbone.layer3.0.bn1.weight",)),
        "does not fit resnet18: 1 of its 60 tensors are missing "
        r"\(first: backbone.layer3.0.bn1.weight\); name the network .*--model.backbone NAME",
    ),
    "another network": (
        torchvision.models.resnet34(num_classes=5).state_dict(),
        r"holds \d+ layers beyond resnet18, a bottleneck and a classifier \(first: layer1.2.conv1",
    ),
    "another shape": (
        changed(add={"backbone.conv1.weight": torch.zeros(64, 1, 7, 7)}),
        r"1 tensors are of another shape \(first: backbone.conv1.weight, 64×1×7×7 and not 64×3×7×7",
    ),
    "no classifier": (
        changed(resnet(), drop=("fc.",)),
        "holds resnet18 without a classifier: no linear layer takes its 512 features",
    ),
    "two classifiers": (
        changed(resnet(), add=linear(512, 5, "fc_rotation")),
        "is ambiguous: 'fc' or 'fc_rotation' could be the classifier; save the network with one",
    ),
    "two classifiers after the bottleneck": (
        changed(add=linear(9, 5, "adv_head")),
        "is ambiguous: 'adv_head' or 'head' could be the classifier",
    ),
    "a bottleneck without a normaliser": (
        changed(drop=("bottleneck.1.",)),
        r"no classifier and no bottleneck .*\(bottleneck.0 512 to 9, head 9 to 5\)",
    ),
    "a bottleneck that nothing reads": (
        changed(drop=("head.",)),
        r"no classifier and no bottleneck .*\(bottleneck.0 512 to 9\)",
    ),
    "a normaliser without statistics after a bias": (
        changed(drop=("bottleneck.1.running", "bottleneck.1.num")),
        "has a bias in 'bottleneck.0', and no batch norm after it that would take it",
    ),
    "weight norm": (
        changed(drop=("head.",), add={"head.weight_g": torch.zeros(5, 1)}),
        r"holds 1 layers beyond resnet18, .*\(first: head\)",
    ),
    "two normalisers": (
        changed(add={f"n.{k}": torch.zeros(9) for k in ("weight", "bias")}),
        "holds 2 layers beyond resnet18",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_one_line(case):
    state, match = WRONG[case]
    with pytest.raises(UserError, match=match) as caught:
        mapped(state, "resnet18")
    assert str(caught.value).startswith("checkpoint: 'a.pth' ")
    assert "\n" not in str(caught.value)


def test_the_prefix_that_names_share():
    assert common_prefix(["a.b.c.weight", "a.b.d.weight"]) == "a.b."
    assert common_prefix(["a.weight", "b.weight"]) == ""
