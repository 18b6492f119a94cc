"""Backbones and their weights: local files, torchvision's, and those that are refused."""

import argparse
import os
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.models.resnet import BasicBlock

from da.errors import UserError
from da.networks.backbones.base import build_backbone, build_torchvision_model, load_weights


@pytest.fixture(scope="module")
def resnet18():
    """A classifier of torchvision with random weights and statistics, as its files hold it."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18().eval()
    for name, buffer in model.named_buffers():
        if name.endswith("var"):
            buffer.uniform_(0.5, 1.5)
        elif name.endswith("mean"):  # near 0: far from it every ReLU would be dead
            buffer.uniform_(-0.1, 0.1)
    return model


def features(model, images):
    """What torchvision's network computes before its classifier."""
    found = []
    handle = model.fc.register_forward_pre_hook(lambda m, x: found.append(x[0]))
    with torch.no_grad():
        model(images)
    handle.remove()
    return found[0]


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors", "nested.pth", "old.pth"])
def test_torchvision_weights_from_a_file(resnet18, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    state = dict(resnet18.state_dict())
    if suffix == ".safetensors":
        save_file(state, path)
    elif suffix == "nested.pth":
        torch.save({"state_dict": state, "epoch": 90}, path)
    elif suffix == "old.pth":  # before PyTorch 0.4.1, as torchvision's ResNet files still are
        torch.save({k: v for k, v in state.items() if "num_batches" not in k}, path)
    else:
        torch.save(state, path)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        ours = build_backbone("resnet18", str(path)).eval()(images)
    assert ours.std() > 1e-2
    torch.testing.assert_close(ours, features(resnet18, images), rtol=0, atol=0)


def test_a_file_with_another_classifier_or_none_fits(resnet18, tmp_path):
    for classes in (12, None):
        state = {k: v for k, v in resnet18.state_dict().items() if not k.startswith("fc.")}
        if classes:
            state |= {"fc.weight": torch.zeros(classes, 512), "fc.bias": torch.zeros(classes)}
        torch.save(state, tmp_path / "a.pth")
        model = build_backbone("resnet18", str(tmp_path / "a.pth"))
        assert torch.equal(model.network.conv1.weight, resnet18.conv1.weight)


@pytest.mark.parametrize(
    "beside",
    [
        {"spec": {"lr": 0.1}},
        {"spec": {"norm": "wa"}},
        {"settings": {"a": 1}, "classes": ["a"]},
        {"settings": {"model": "resnet18"}, "classes": ["a"]},
    ],
)
def test_what_another_program_keeps_beside_the_weights_is_passed_over(resnet18, tmp_path, beside):
    torch.save({"state_dict": resnet18.state_dict(), **beside}, tmp_path / "a.pth")
    model = build_backbone("resnet18", str(tmp_path / "a.pth"))
    assert torch.equal(model.network.conv1.weight, resnet18.conv1.weight)


@pytest.mark.parametrize(
    ("key", "average"), [("state_dict", "state_dict_ema"), ("model", "model_ema")]
)
def test_which_weights_are_taken_beside_their_average_is_said(
    resnet18, tmp_path, caplog, key, average
):
    state = resnet18.state_dict()
    averaged = {f"module.{k}": v * 2 for k, v in state.items()} | {"n_averaged": torch.tensor(3)}
    other = {
        "optimizer": {"state": {0: torch.zeros(2)}, "param_groups": []},
        "args": {},
        "epoch": 3,
    }
    path = tmp_path / "a.pth"
    torch.save({key: state, average: averaged, **other}, path)
    for _ in range(2):
        model = build_backbone("resnet18", str(path))
    assert torch.equal(model.network.conv1.weight, resnet18.conv1.weight)
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == (
        f"weights: '{path}' holds {key} beside {average}, and {key} is taken; to have the other, "
        f"name it: {path}::{average}"
    )
    chosen = build_backbone("resnet18", f"{path}::{average}")
    assert torch.equal(chosen.network.conv1.weight, 2 * resnet18.conv1.weight)
    assert "names nothing in that file" in refusal(f"{path}::other")


def test_an_average_alone_one_network_of_two_and_options_in_a_namespace(resnet18, tmp_path):
    state = resnet18.state_dict()
    path = tmp_path / "a.pth"
    torch.save({"model_ema": state, "args": argparse.Namespace(lr=0.1, name="x")}, path)
    model = build_backbone("resnet18", str(path))
    assert torch.equal(model.network.conv1.weight, resnet18.conv1.weight)
    both = {f"module.encoder_q.{k}": v for k, v in state.items()}
    both |= {f"module.encoder_k.{k}": v * 3 for k, v in state.items()}
    torch.save({"state_dict": both}, path)
    assert f"name one of them: {path}::module.encoder_" in refusal(path)
    model = build_backbone("resnet18", f"{path}::module.encoder_k")
    assert torch.equal(model.network.conv1.weight, 3 * resnet18.conv1.weight)
    torch.save({"net": {f"m._orig_mod.{k}": v for k, v in state.items()}}, path)
    model = build_backbone("resnet18", str(path))
    assert torch.equal(model.network.conv1.weight, resnet18.conv1.weight)


class Running(argparse.Namespace):
    """A namespace by name alone: what it is rebuilt by runs."""

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_a_namespace_lets_nothing_run(resnet18, tmp_path):
    marker = str(tmp_path / "ran")
    torch.save({"model": resnet18.state_dict(), "args": Running(marker=marker)}, tmp_path / "a.pth")
    refusal(tmp_path / "a.pth")
    assert not Path(marker).exists()


def refusal(path, name="resnet18"):
    with pytest.raises(UserError) as caught:
        build_backbone(name, str(path))
    said = str(caught.value)
    assert "\n" not in said
    assert str(path) in said
    return said


def test_what_does_not_fit_or_is_no_weights_is_refused_in_one_line(resnet18, tmp_path):
    assert "no file" in refusal(tmp_path / "no.pth")
    assert "no file" in refusal(tmp_path)
    whole = tmp_path / "whole.pth"
    torch.save(resnet18.state_dict(), whole)
    content = whole.read_bytes()
    for share in (0, 0.01, 0.5, 0.999):
        cut = tmp_path / "cut.pth"
        cut.write_bytes(content[: int(len(content) * share)])
        assert "it is cut short" in refusal(cut)
    page = tmp_path / "page.pth"
    page.write_text("<!DOCTYPE html><html>Quota exceeded</html>")
    assert "can't be read: it is no file of tensors" in refusal(page)
    page = page.rename(tmp_path / "page.safetensors")
    assert "can't be read" in refusal(page)
    # Another network: resnet34 has more blocks, resnet50 other shapes and names, vgg none of them.
    said = refusal(whole, "digits_resnet")
    assert "does not fit DigitsResNet" in said
    with torch.device("meta"):
        for name in ("resnet34", "resnet50", "vgg11"):
            said = refusal(whole, name)
            assert "does not fit" in said
            assert "first: " in said
    changed = {**resnet18.state_dict(), "conv1.weight": torch.zeros(64, 1, 7, 7)}
    torch.save(changed, whole)
    assert (
        "1 of another shape (first: conv1.weight; the file's first name is conv1.weight)"
        in refusal(whole)
    )
    torch.save([torch.zeros(2)], whole)
    assert "holds no state dict of tensors" in refusal(whole)
    torch.save({"epoch": 3}, whole)
    assert "holds no state dict of tensors" in refusal(whole)


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_code_in_a_weight_file_is_not_run(tmp_path):
    marker = tmp_path / "ran"
    torch.save({"conv1.weight": Evil(str(marker))}, tmp_path / "evil.pth")
    refusal(tmp_path / "evil.pth")
    assert not marker.exists()


def test_a_refused_file_leaves_the_network_alone(resnet18, tmp_path):
    model = build_backbone("digits_resnet")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    wrong = {k: torch.ones_like(v) for k, v in before.items()} | {"more": torch.zeros(1)}
    torch.save(wrong, tmp_path / "a.pth")
    with pytest.raises(UserError, match="1 not in the network"):
        load_weights(model, str(tmp_path / "a.pth"))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


# ImageNet weights, from a server on this machine.


def offer(monkeypatch, url):
    entry = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    monkeypatch.setattr(entry.value, "url", url)


def test_imagenet_weights_are_downloaded_checked_and_kept(
    resnet18, server, publish, cached, monkeypatch
):
    folder, address, asked = server
    name = publish(resnet18.state_dict(), folder, "resnet18")
    offer(monkeypatch, f"{address}/{name}")
    expected = torch.load(folder / name)
    for _ in range(2):
        found = build_backbone("resnet18", "imagenet").network.state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in found.items())
    assert asked == [f"/{name}"]  # the second time it is at hand
    assert cached() == [name]


@pytest.mark.parametrize("kind", ["another hash", "cut short", "a page"])
def test_a_download_that_is_not_the_file_is_refused_and_not_kept(
    kind, resnet18, server, publish, cached, monkeypatch
):
    folder, address, _ = server
    name = publish(resnet18.state_dict(), folder, "resnet18")
    if kind == "another hash":
        name = (folder / name).rename(folder / "resnet18-00000000.pth").name
    elif kind == "cut short":
        (folder / f"{name}.cut").touch()
    else:
        (folder / name).write_text("<!DOCTYPE html><html>Sign in to this network</html>")
    offer(monkeypatch, f"{address}/{name}")
    with pytest.raises(UserError) as caught:
        build_backbone("resnet18", "imagenet")
    said = str(caught.value)
    assert said.startswith(f"weights: could not download {address}/{name} (")
    assert said.endswith("fetch it by hand and give the file: --model.weights FILE")
    assert "\n" not in said
    assert cached() == []


def test_a_missing_file_and_no_server_are_refused(server, cached, monkeypatch):
    _, address, _ = server
    for url in (f"{address}/resnet18-12345678.pth", "http://127.0.0.1:1/resnet18-12345678.pth"):
        offer(monkeypatch, url)
        with pytest.raises(UserError, match=r"could not download .*give the file") as caught:
            build_backbone("resnet18", "imagenet")
        assert "\n" not in str(caught.value)
    assert cached() == []


def test_a_broken_file_in_the_cache_is_named(server, tmp_path, monkeypatch):
    _, address, _ = server
    offer(monkeypatch, f"{address}/resnet18-12345678.pth")
    file = tmp_path / "hub/hub/checkpoints/resnet18-12345678.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"cut")
    with pytest.raises(UserError, match="can't be read") as caught:
        build_backbone("resnet18", "imagenet")
    assert str(file) in str(caught.value)


def test_imagenet_is_the_first_version_of_the_weights(monkeypatch):
    """Published tables were made with V1; torchvision's default is V2 for ResNet-50."""
    asked = []
    monkeypatch.setattr(
        "da.networks.backbones.base.download_weights", lambda url: asked.append(url) or "x"
    )
    with pytest.raises(UserError), torch.device("meta"):
        build_torchvision_model("resnet50", "imagenet", head="fc.")
    assert Path(asked[0]).name == "resnet50-0676ba61.pth"


def test_imagenet_weights_for_digits_are_refused():
    with pytest.raises(UserError, match="none of ImageNet for DigitsResNet"):
        build_backbone("digits_resnet", "imagenet")


# The networks for digits.


def convolutions(model):
    return [
        (m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0], m.padding[0])
        for m in model.modules()
        if isinstance(m, nn.Conv2d)
    ]


def shapes_along(model, kinds):
    """Shapes of what the modules of some kinds give for one image."""
    found = []
    for module in model.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda m, x, y: found.append(tuple(y.shape[1:])))
    model.eval()(torch.zeros(1, 3, 32, 32))
    return found


def test_lenet_is_the_published_one():
    model = build_backbone("lenet")
    assert convolutions(model) == [(1, 20, 5, 1, 0), (20, 50, 5, 1, 0)]
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout2d)] == [0.5]
    along = shapes_along(model, (nn.Conv2d, nn.MaxPool2d, nn.Flatten))
    assert along == [(20, 24, 24), (20, 12, 12), (50, 8, 8), (50, 4, 4), (800,)]
    assert sum(p.numel() for p in model.parameters()) == 20 * 26 + 50 * 501
    grey = torch.rand(2, 1, 32, 32).expand(2, 3, 32, 32)
    shifted = grey + torch.tensor([0.3, -0.1, -0.2]).view(3, 1, 1)
    torch.testing.assert_close(model(grey), model(shifted))  # it sees the mean of the channels


def test_dtn_is_the_published_one():
    model = build_backbone("dtn")
    assert convolutions(model) == [(3, 64, 5, 2, 2), (64, 128, 5, 2, 2), (128, 256, 5, 2, 2)]
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout2d)] == [0.1, 0.3, 0.5]
    along = shapes_along(model, (nn.BatchNorm2d, nn.Flatten))
    assert along == [(64, 16, 16), (128, 8, 8), (256, 4, 4), (4096,)]


def test_digits_resnet_has_residual_branches_and_batch_norm():
    model = build_backbone("digits_resnet")
    blocks = [m for m in model.modules() if isinstance(m, BasicBlock)]
    assert len(blocks) == 2
    assert all(block.downsample is not None for block in blocks)
    layers = convolutions(model)
    assert len([m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]) == len(layers) == 7
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(42_000, rel=0.01)
    assert shapes_along(model, BasicBlock) == [(24, 8, 8), (48, 4, 4)]
