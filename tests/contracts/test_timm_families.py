"""What models of timm's families must do under the normalisers that apply to them."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from short_runs import digits, fit, small
from torch import nn

from da.errors import UserError
from da.methods.source_only import SourceOnly
from da.networks.backbones.base import Backbone, build_backbone
from da.norms import batch_norms, normaliser, normaliser_names
from da.norms.base import tell_domains
from da.norms.weight_align.layers import Aligned
from da.ops.seeding import seeded
from da.types import Segment

timm = pytest.importorskip("timm", reason="timm is not installed: pip install -e '.[timm]'")

#: With batch norm: alone (ResNet), with its activation inside, with gates, with TensorFlow's
#: padding, before concatenations.
BATCH_NORM = [
    *("resnet10t", "mobilenetv3_small_050", "tf_mobilenetv3_small_minimal_100"),
    *("efficientnet_b0", "regnety_002", "densenet121"),
]
CASES = [
    *((name, norm) for name in BATCH_NORM for norm in ("bn", "wa")),
    *(("mobilenetv3_small_050", norm) for norm in ("gn", "in", "ln", "none", "wa+bn", "wa+gn")),
    *(("nf_regnet_b0", norm) for norm in ("bn", "wa")),
    *((name, "bn") for name in ("convnext_atto", "vit_tiny_patch16_224")),
]


@cache
def built(name: str) -> Backbone:
    with seeded(0, name):
        return build_backbone(f"timm/{name}")


@pytest.mark.parametrize(("name", "norm"), CASES, ids=lambda value: value)
def test_features_have_their_width_and_every_parameter_moves(name: str, norm: str) -> None:
    model = normaliser(norm).apply(copy.deepcopy(built(name)))
    assert isinstance(model, Backbone)
    assert bool(batch_norms(model)) == (name in BATCH_NORM and norm in ("bn", "wa+bn"))
    assert any(isinstance(m, Aligned) for m in model.modules()) == norm.startswith("wa")
    with seeded(0, "images"), torch.no_grad():
        size = 224 if name.startswith("vit") else 64
        images = torch.randn(4, 3, size, size)
        # Away from the start, where branches that are multiplied by 0 have no gradient.
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p) * (p.std(correction=0) + (p.squeeze().dim() < 2)))
    features = model(images)
    assert features.shape == (4, model.num_features)
    (features - images[:, 0, 0, :1]).square().mean().backward()
    for n, p in model.named_parameters():
        assert p.grad is not None, n
        assert p.grad.isfinite().all(), n
    size_of = {n: float(p.grad.abs().max()) for n, p in model.named_parameters()}
    still = {n for n, value in size_of.items() if value < 1e-8 * max(size_of.values())}
    if norm in ("bn", "in", "wa+bn"):  # the shift of a linear bottleneck is cancelled by the next
        still = {n for n in still if not n.endswith("bn3.bias") and not n.endswith("bn2.bias")}
    assert not still


@pytest.mark.long
@pytest.mark.parametrize("norm", normaliser_names())
@pytest.mark.parametrize("name", BATCH_NORM)
def test_every_normaliser_takes_the_place_of_batch_norm(name: str, norm: str) -> None:
    model = normaliser(norm).apply(copy.deepcopy(built(name)))
    with seeded(0, "images"):
        images = torch.randn(4, 3, 64, 64)
    tell_domains(model, (Segment("source", 2), Segment("target", 2)))
    model(images).square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    tell_domains(model, (Segment("target", 1),))
    assert model.eval()(images[:1]).isfinite().all()


@pytest.mark.parametrize("name", BATCH_NORM)
def test_batch_norms_are_torchs_own_and_start_at_one(name: str) -> None:
    norms = batch_norms(built(name)).values()
    assert {type(norm) for norm in norms} == {nn.BatchNorm2d}
    assert all(norm.weight.eq(1).all() for norm in norms)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("convnext_atto", "LayerNorm2d"),
        ("vit_tiny_patch16_224", "LayerNorm"),
        ("resnet50_gn", "GroupNorm"),
        ("resnetv2_50d_evos", "EvoNorm2dS0"),
    ],
)
def test_other_normalisers_are_named_and_left(name: str, kind: str) -> None:
    model = build_backbone(f"timm/{name}")
    with pytest.raises(UserError, match=rf"another normaliser.*'network\..*' is a {kind}.*'bn'"):
        normaliser("wa").apply(model)


@pytest.mark.long
def test_a_backbone_of_layer_norm_trains_with_adamw() -> None:
    module = small(SourceOnly, backbone="timm/convnext_atto", optimizer="adamw", lr=1e-3)
    before = copy.deepcopy(module.network.backbone.state_dict())
    fit(module, digits(steps_per_epoch=2))
    after = module.network.backbone.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    assert any(not torch.equal(value, before[key]) for key, value in after.items())


def test_a_model_that_cannot_be_traced_is_run_on_its_own_example() -> None:
    with torch.device("meta"):
        model = normaliser("wa").apply(build_backbone("timm/vgg11_bn"))
    aligned = [m for m in model.modules() if isinstance(m, Aligned)]
    assert len(aligned) == 10
    assert not batch_norms(model)
    assert not any(type(m).__name__ == "Affine" for m in model.modules())
