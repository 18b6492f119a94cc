"""Files with the names, shapes and types of the published ImageNet weights, whose own download
needs a network: torchvision's and timm's, from a server on this machine and from a path."""

import dataclasses

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from da.networks.backbones.base import build_backbone

pytestmark = pytest.mark.long


def published(name):
    """The state dict of torchvision's classifier, shapes without values."""
    with torch.device("meta"):
        return torchvision.models.get_model(name).state_dict()


def without_counters(state):
    """As files older than PyTorch 0.4.1 have it."""
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


def unread(model, file, head):
    """The tensors of a file, but for the head's, that are not in the network exactly."""
    own = model.network.state_dict()
    names = {k for k in file if not k.startswith(head)}
    assert names == set(without_counters(own)) | {k for k in own if k in file}
    return [k for k in names if not torch.equal(own[k], file[k])]


@pytest.mark.parametrize("counters", [True, False])
@pytest.mark.parametrize(
    ("name", "head"),
    [("resnet18", "fc."), ("resnet50", "fc."), ("resnet101", "fc."), ("vgg16_bn", "classifier.6.")],
)
def test_torchvisions(name, head, counters, server, publish, cached, monkeypatch):
    folder, address, asked = server
    entry = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    state = published(name)
    parameters = sum(v.numel() for k, v in without_counters(state).items() if "running" not in k)
    assert parameters == entry.meta["num_params"]  # of the published file
    file = publish(state if counters else without_counters(state), folder, name)
    monkeypatch.setattr(entry.value, "url", f"{address}/{file}")
    expected = torch.load(folder / file)
    for source in ("imagenet", "imagenet", str(folder / file)):
        assert not unread(build_backbone(name, source), expected, head)
    assert asked == [f"/{file}"]
    assert cached() == [file]


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("nf_resnet50.ra2_in1k", "head.fc."),
        ("resnet50_gn.a1h_in1k", "fc."),
        ("resnet50.a1_in1k", "fc."),
    ],
)
def test_timms(name, head, server, publish, cached, monkeypatch):
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install -e '.[timm]'")
    folder, address, asked = server
    state = timm.create_model(name).state_dict()
    parameters = sum(v.numel() for k, v in without_counters(state).items() if "running" not in k)
    assert parameters == pytest.approx(25.56e6, rel=1e-3)
    file = publish(state, folder, name.replace(".", "_"))
    known = timm.models._registry._model_pretrained_cfgs
    monkeypatch.setitem(known, name, dataclasses.replace(known[name], url=f"{address}/{file}"))
    expected = torch.load(folder / file)
    for source in ("imagenet", "imagenet", str(folder / file)):
        assert not unread(build_backbone(f"timm/{name}", source), expected, head)
    assert asked == [f"/{file}"]
    assert cached() == [file]


def test_one_file_of_full_size_fits_torchvision_and_timm_alike(tmp_path):
    """resnet50 has the same names in both, and two implementations of one function."""
    pytest.importorskip("timm", reason="timm is not installed: pip install -e '.[timm]'")
    torch.manual_seed(0)
    model = torchvision.models.resnet50()
    for name, buffer in model.named_buffers():
        if name.endswith("var"):
            buffer.uniform_(0.5, 1.5)
        elif name.endswith("mean"):
            buffer.uniform_(-0.1, 0.1)
    images, found = torch.randn(1, 3, 64, 64), []
    for suffix, write in ((".safetensors", save_file), (".pth", torch.save)):
        path = tmp_path / f"resnet50{suffix}"
        write(model.state_dict(), path)
        assert path.stat().st_size > 102e6
        for name in ("resnet50", "timm/resnet50"):
            with torch.no_grad():
                found.append(build_backbone(name, str(path)).eval()(images))
        path.unlink()
    assert found[0].std() > 1e-2
    for features in found[1:]:
        torch.testing.assert_close(features, found[0])
