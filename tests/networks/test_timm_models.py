"""timm's models as backbones: the same features, measured widths, and where weights come from."""

import dataclasses
import hashlib
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import run
from da.errors import UserError
from da.networks.backbones.base import build_backbone

timm = pytest.importorskip("timm", reason="timm is not installed: pip install -e '.[timm]'")
SMALL = "mobilenetv3_small_050"


def classifier(name, **options):
    """timm's own network of a name, with statistics and scales that are not those of the start."""
    torch.manual_seed(0)
    model = timm.create_model(name, **options)
    for key, tensor in model.state_dict().items():
        if tensor.dtype == torch.float32 and tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5) if "var" in key else tensor.add_(
                0.1 * torch.randn_like(tensor)
            )
    return model


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        *((name, ".safetensors") for name in ("resnet10t", "regnety_002", "densenet121", SMALL)),
        *((name, ".pth") for name in ("tf_mobilenetv3_small_minimal_100", "nf_regnet_b0", SMALL)),
        ("convnext_atto", ".safetensors"),
    ],
)
def test_features_are_those_of_timm(name, suffix, tmp_path):
    model = classifier(name)
    path = tmp_path / f"a{suffix}"
    state = model.state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    ours = build_backbone(f"timm/{name}", str(path))
    model.reset_classifier(0)
    images = torch.randn(2, 3, 75, 64)
    for training in (False, True):
        model.train(training)
        ours.train(training)
        with torch.no_grad():
            torch.manual_seed(1)  # dropout
            expected = model(images)
            torch.manual_seed(1)
            got = ours(images)
        assert torch.equal(got, expected)
        assert got.shape == (2, ours.num_features)
    # What training did to the running statistics is the same too.
    mine = [b for b in ours.buffers() if b.dtype == torch.float32]
    theirs = [b for b in model.buffers() if b.dtype == torch.float32]
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert not any(type(m).__name__ in ("BatchNormAct2d", "Conv2dSame") for m in ours.modules())


@pytest.mark.parametrize(
    ("name", "width"),
    [
        (SMALL, 1024),
        ("vgg11", 4096),
        ("resnet50_gn", 2048),
        ("vgg11_bn", 4096),
    ],
)
def test_the_width_is_measured(name, width):
    with torch.device("meta"):
        model = build_backbone(f"timm/{name}")
    assert model.num_features == width
    assert model.training


def test_building_draws_nothing_beyond_timms_own_weights():
    torch.manual_seed(0)
    timm.create_model("resnet10t", num_classes=0)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    build_backbone("timm/resnet10t")
    assert torch.equal(torch.get_rng_state(), state)


def refusal(name, weights=None):
    with pytest.raises(UserError) as caught:
        build_backbone(name, weights)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names_of_timm_and_torchvision_do_not_collide():
    from torchvision.models import ResNet

    with torch.device("meta"):
        assert type(build_backbone("resnet50").network) is ResNet
        assert type(build_backbone("timm/resnet50").network) is type(timm.create_model("resnet50"))


def test_a_wrong_name_lists_near_ones():
    said = refusal("timm/resnet50_gm")
    assert said.startswith("unknown backbone 'timm/resnet50_gm': timm ")
    assert "did you mean one of: timm/resnet50_gn, " in said
    assert refusal("timm/§").endswith("models, and not that")
    assert refusal("timm/hf-hub:someone/resnet10t").startswith("unknown backbone 'timm/hf-hub:")
    said = refusal("timm/resnet50.a1_in1")
    assert said.startswith("unknown backbone 'timm/resnet50.a1_in1'; did you mean ")
    assert "timm/resnet50.a1_in1k" in said
    assert "timm/NAME" in refusal("nf_resnet50")


def test_a_tag_names_weights_and_not_another_network():
    with torch.device("meta"):
        tagged, bare = build_backbone("timm/resnet50.a1_in1k"), build_backbone("timm/resnet50")
    assert list(tagged.state_dict()) == list(bare.state_dict())


def test_an_image_of_another_size_is_refused_where_the_model_has_one():
    model = build_backbone("timm/vit_tiny_patch16_224")
    with pytest.raises(UserError, match=r"does not take images of 32 × 48 .*size is 224 × 224"):
        model(torch.empty(1, 3, 32, 48))


def test_without_timm_it_is_said_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "timm", None)
    said = refusal("timm/resnet50")
    assert said.startswith("backbone 'timm/resnet50' needs timm")
    assert said.endswith("pip install timm")
    code = run.main(["fit", "--data.source", "rendered", "--model.backbone", "timm/resnet50"])
    assert code == 2
    assert said in capsys.readouterr().err


def test_a_model_that_does_not_pool_is_refused(monkeypatch):
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.pretrained_cfg = {"input_size": (3, 8, 8)}

        def forward(self, x):
            return x.flatten(2)

    known = timm.models._registry._model_entrypoints
    monkeypatch.setitem(known, "tokens", lambda **_: Tokens())
    assert "gives an output of shape (1, 3, 64) for one image" in refusal("timm/tokens")


def test_files_that_do_not_fit_are_refused(tmp_path):
    torch.save(classifier("resnet10t").state_dict(), tmp_path / "a.pth")
    assert "does not fit MobileNetV3" in refusal(f"timm/{SMALL}", str(tmp_path / "a.pth"))
    assert "no file" in refusal(f"timm/{SMALL}", str(tmp_path / "b.pth"))


# timm's own weights, from a server on this machine.


def offer(monkeypatch, name, **source):
    """Has timm take a network's weights from elsewhere."""
    known = timm.models._registry._model_pretrained_cfgs
    monkeypatch.setitem(known, name, dataclasses.replace(known[name], **source))


def test_a_release_is_downloaded_checked_and_kept(server, publish, cached, monkeypatch):
    folder, address, asked = server
    model = classifier(SMALL)
    name = publish(model.state_dict(), folder, SMALL)
    offer(monkeypatch, SMALL, url=f"{address}/{name}")
    expected = torch.load(folder / name)
    for _ in range(2):
        ours = build_backbone(f"timm/{SMALL}", "imagenet")
        assert torch.equal(ours.network.conv_stem.weight, expected["conv_stem.weight"])
        assert torch.equal(ours.network.bn1[0].running_var, expected["bn1.running_var"])
        assert ours.num_features == 1024
    assert asked == [f"/{name}"]  # the second time it is at hand
    assert cached() == [name]


@pytest.mark.parametrize("kind", ["another hash", "cut short", "a page", "no file"])
def test_what_is_not_the_release_is_refused_and_not_kept(
    kind, server, publish, cached, monkeypatch
):
    folder, address, _ = server
    name = publish(classifier(SMALL).state_dict(), folder, SMALL)
    if kind == "another hash":
        name = (folder / name).rename(folder / f"{SMALL}-00000000.pth").name
    elif kind == "cut short":
        (folder / f"{name}.cut").touch()
    elif kind == "a page":
        (folder / name).write_text("<!DOCTYPE html><html>Sign in to this network</html>")
    else:
        (folder / name).unlink()
    offer(monkeypatch, SMALL, url=f"{address}/{name}")
    said = refusal(f"timm/{SMALL}", "imagenet")
    assert said.startswith(f"weights: could not download {address}/{name} (")
    assert cached() == []


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_a_release_of_another_network_or_with_code_is_refused(
    server, publish, cached, monkeypatch, tmp_path
):
    folder, address, _ = server
    state = classifier(SMALL).state_dict()
    for key in ("blocks.1.0.conv_pw.weight", "classifier.bias"):  # any tensor that is missing
        name = publish({k: v for k, v in state.items() if k != key}, folder, SMALL)
        offer(monkeypatch, SMALL, url=f"{address}/{name}")
        said = refusal(f"timm/{SMALL}", "imagenet")
        assert f"{name}' is not what timm takes for '{SMALL}'" in said
    marker = tmp_path / "ran"
    name = publish({"conv_stem.weight": Evil(str(marker))}, folder, SMALL, small=False)
    offer(monkeypatch, SMALL, url=f"{address}/{name}")
    assert "is not what timm takes" in refusal(f"timm/{SMALL}", "imagenet")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert "lets files run code; unset it" in refusal(f"timm/{SMALL}", "imagenet")
    assert not marker.exists()


def test_a_model_without_weights_says_so():
    assert "timm has none for 'nf_regnet_b0'" in refusal("timm/nf_regnet_b0", "imagenet")


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the Hugging Face hub does, with the file or half of it."""

    content, half = b"", True

    def do_HEAD(self):
        self.answer(b"")

    def do_GET(self):
        self.answer(self.content[: len(self.content) // (2 if self.half else 1)])

    def answer(self, body):
        self.send_response(200 if self.path.endswith("model.safetensors") else 404)
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


FETCH = """
from da.networks.backbones.base import build_backbone
from da.errors import UserError
try:
    model = build_backbone("timm/regnety_002", "imagenet")
    print("stem", model.network.stem.conv.weight.unique().tolist())
except UserError as error:
    print("refused", error)
"""


@pytest.mark.long
def test_the_hub_is_asked_once_and_what_it_cuts_is_not_taken(tmp_path, monkeypatch):
    """regnety_002 has no release with a checksum in its name: it comes from the hub."""
    state = {k: torch.full_like(v, 0.5) for k, v in classifier("regnety_002").state_dict().items()}
    save_file(state, tmp_path / "content")
    monkeypatch.setattr(Hub, "content", (tmp_path / "content").read_bytes())
    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{listener.server_port}",
        "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_DISABLE_XET": "1",
        "no_proxy": "127.0.0.1",
        "PYTHONPATH": str(Path(run.__file__).parent),
    }

    def attempt():
        command = [sys.executable, "-c", FETCH]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        return done.stdout.strip() or done.stderr

    try:
        said = attempt()
        assert said.startswith("refused weights: could not download model.safetensors of timm/")
        assert "\n" not in said
        assert not list((tmp_path / "hub").rglob("model.safetensors"))
        monkeypatch.setattr(Hub, "half", False)
        assert attempt() == "stem [0.5]"
    finally:
        listener.shutdown()
        listener.server_close()
    assert attempt() == "stem [0.5]"  # at hand


def test_group_norm_weights_train_one_image_at_a_time_but_for_the_bottleneck():
    from da.methods.source_only import SourceOnly

    with torch.device("meta"):
        module = SourceOnly(num_classes=5, backbone="timm/resnet50_gn", norm="bn", bottleneck=None)
        module.refuse_batch_of_one(1)
        assert sum(isinstance(m, nn.GroupNorm) for m in module.modules()) == 53
        module = SourceOnly(num_classes=5, backbone="timm/resnet50_gn", norm="bn")
        with pytest.raises(UserError, match=r"\(1 of such layers, the first network.bottleneck"):
            module.refuse_batch_of_one(1)
