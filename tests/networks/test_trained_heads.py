"""What a training takes of a checkpoint beside its backbone: a bottleneck and a head that fit."""

import logging

import pytest
import torch
from short_runs import digits, small

from da.methods.dann import DANN
from da.methods.mcd import MCD
from da.methods.mean_teacher import MeanTeacher
from da.methods.source_only import SourceOnly
from da.networks.trained_heads import start_heads_from
from da.networks.weight_files import read_weight_file

CLASSES = tuple("0123456789")


def checkpoint(folder, classes=CLASSES, name="source-only.ckpt", kind=SourceOnly, **options):
    """A file as trainings write it, of a network that was never trained."""
    module = small(kind, seed=9, **options)
    module.prepare()
    content = {"state_dict": module.state_dict(), "classes": list(classes)}
    content["spec"] = {
        "norm": module.hparams["norm"],
        "norm_options": module.hparams["norm_options"],
        "model_args": {"scope": list(module.hparams["scope"])},
    }
    module.on_save_checkpoint(content)
    path = folder / name
    torch.save(content, path)
    return str(path), module.evaluated()


def start(path, classes=CLASSES, kind=DANN, **options):
    """A module that starts from a file, and what is said of it."""
    module = small(kind, weights=path, **options)
    said = start_heads_from(module.network, read_weight_file(path), module.hparams, classes)
    return module, said.partition(f"weights: of '{path}' ")[2]


def same(one, other):
    return all(torch.equal(value, other.state_dict()[k]) for k, value in one.state_dict().items())


def test_dann_computes_at_its_start_what_the_source_only_network_computes(tmp_path, caplog):
    path, source_only = checkpoint(tmp_path)
    module = small(DANN, weights=path)
    with caplog.at_level(logging.INFO):
        module.prepare(digits())
    assert caplog.messages == [
        f"weights: of '{path}' backbone, bottleneck and classifier are taken"
    ]
    assert same(module.network, source_only)
    # A copy that a method makes is of what was taken.
    teacher = small(MeanTeacher, weights=path)
    teacher.prepare(digits())
    assert same(teacher.evaluated(), source_only)


def test_a_teacher_is_what_is_taken_where_it_is_what_was_evaluated(tmp_path):
    path, teacher = checkpoint(tmp_path, kind=MeanTeacher)
    content = torch.load(path, weights_only=True)
    for key in [key for key in content["state_dict"] if key.startswith("network.")]:
        content["state_dict"][key] = content["state_dict"][key] * 0
    torch.save(content, path)
    module, said = start(path)
    assert said == "backbone, bottleneck and classifier are taken"
    assert same(module.network, teacher)


def test_classes_are_matched_by_name(tmp_path):
    path, source_only = checkpoint(tmp_path)
    module, said = start(path, CLASSES[::-1])
    assert said == "backbone, bottleneck and classifier are taken"
    for mine, theirs in zip(
        module.network.classifier.parameters(), source_only.classifier.parameters(), strict=True
    ):
        assert torch.equal(mine, theirs.flip(0))
    module, said = start(path, ("ten", *CLASSES[1:]))
    assert (
        said == "backbone and bottleneck are taken; the classifier is new (its classes are others)"
    )
    assert same(module.network.bottleneck, source_only.bottleneck)
    assert not torch.equal(module.network.classifier.weight, source_only.classifier.weight)


NEW = "the backbone is taken; bottleneck and classifier are new"


ALL = "backbone, bottleneck and classifier are taken"
OF_BN = "its bottleneck was trained with norm 'bn', the model has 'gn'"


@pytest.mark.parametrize(
    ("of_file", "of_model", "said"),
    [
        ({}, {"bottleneck": 8}, f"{NEW} (its bottleneck has another shape)"),
        ({}, {"norm": "gn"}, f"{NEW} ({OF_BN})"),
        ({}, {"norm": "gn", "scope": ["backbone"]}, ALL),
        ({"bottleneck": None}, {}, f"{NEW} (its bottleneck has another shape)"),
        ({"bottleneck": None}, {"bottleneck": None}, "backbone and classifier are taken"),
        ({"norm": "wa"}, {"norm": "wa", "conversion": "off"}, ALL),
    ],
)
def test_what_does_not_fit_is_new_and_the_reason_is_said(tmp_path, of_file, of_model, said):
    path, source_only = checkpoint(tmp_path, **of_file)
    module, words = start(path, **of_model)
    assert words == said
    taken = said.partition("taken")[0]
    for name in ("bottleneck", "classifier"):
        part, theirs = (getattr(x, name) for x in (module.network, source_only))
        if name in taken:
            assert same(part, theirs)
        elif [*part.parameters()]:
            shapes = [[p.shape for p in x.parameters()] for x in (part, theirs)]
            assert shapes[0] != shapes[1] or not same(part, theirs)


def test_the_backbone_alone_can_be_named_and_files_from_elsewhere_give_no_heads(tmp_path):
    path, source_only = checkpoint(tmp_path)
    _, said = start(f"{path}::network.backbone")
    assert said == f"{NEW} (nothing else of the file is named)"
    torch.save(source_only.state_dict(), tmp_path / "elsewhere.pth")
    module, said = start(str(tmp_path / "elsewhere.pth"), kind=MCD)
    assert said == NEW
    assert same(module.network.backbone, source_only.backbone)
    assert not same(module.network.classifier, source_only.classifier)
