"""Bad input to fit, test and predict: one line, exit code 2 or 3, nothing half-written."""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from long_cases import rest_long
from PIL import Image

import run
from da.engine.components import available_methods
from da.engine.run_folder import read_failure
from da.norms import normaliser_names

ROOT = Path(__file__).parents[2]
SHORT = ["--data.steps_per_epoch", "2", "--trainer.max_epochs", "1"]


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """Calls run.py in an empty folder; gives exit code and standard error, and keeps the rules."""
    monkeypatch.chdir(tmp_path)

    def run_it(line):
        argv = line.split() if isinstance(line, str) else line
        before = sorted(tmp_path.rglob("*"))
        code = run.main(argv)
        error = capfd.readouterr().err
        if code == 2:
            assert sorted(tmp_path.rglob("*")) == before, "something was written"
        assert error.startswith("error: "), error
        assert error.count("\n") == 1, error
        assert "Traceback" not in error
        return code, error.removeprefix("error: ").strip()

    return run_it


METHODS = f"One of: {', '.join(sorted(available_methods()))}"
NORMS = ", ".join(normaliser_names())

OPTIONS = {
    # domains
    "--data.target nowhere": "unknown domain 'nowhere'; did you mean",
    "--data.source nowhere": "optical, outlined, photo, rendered, sketched",
    "--data.source photo --data.target photo": "source and target are both 'photo': choose two",
    "--data.source photo --data.batch_size 700": "target 'optical' has 601 training images, fewer "
    "than one batch of 700: set batch_size to 601 or less",
    # misspelt options
    "--model.nrom wa": "unknown option 'model.nrom'; did you mean 'model.norm'? One of: model.",
    "--model DANN --model.critic_wdth 3": "did you mean 'model.critic_width'?",
    "--model.critic_width 3": "unknown option 'model.critic_width'",  # of another method
    "--data.soruce rendered": "did you mean 'data.source'? One of: data.allow_same, data.augment",
    "--trainer.max_epoch 3": "did you mean 'trainer.max_epochs'? One of: trainer.accelerator",
    "--trainer.max_epoc=3": "unknown option 'trainer.max_epoc'",
    "--trianer.max_epochs 3": "unknown option 'trianer'; did you mean 'trainer'?",
    "--modle DANN": "unknown option 'modle'; did you mean 'model'? One of: ckpt_path, config, ",
    "--nonsense": "One of: ckpt_path, config, data, logger, model, out, scores, ",
    # options without their part, and as they are called elsewhere
    "--lr 0.01": "unknown option 'lr'; did you mean '--model.lr'?",
    "--epochs 5": "unknown option 'epochs'; did you mean '--trainer.max_epochs'?",
    "--batch_size=8": "unknown option 'batch_size'; did you mean '--data.batch_size'?",
    "--batch-size 8": "unknown option 'batch-size'; did you mean '--data.batch_size'?",
    "--norm WA": "unknown option 'norm'; did you mean '--model.norm'?",
    "--seed 1": "unknown option 'seed'; did you mean '--seed_everything'?",
    "--backbone resnet50": "unknown option 'backbone'; did you mean '--model.backbone'?",
    "--max_epochs 1": "unknown option 'max_epochs'; did you mean '--trainer.max_epochs'?",
    "--source photo": "unknown option 'source'; did you mean '--data.source'?",
    "nonsense": "unknown option 'nonsense'",
    # misspelt names
    "--model DANX": f"unknown method 'DANX'; did you mean 'DAN'? {METHODS}",
    "--model=DANX": "unknown method 'DANX'; did you mean 'DAN'?",
    "--model da.methods.dann.DAN": "did you mean 'da.methods.dann.DANN'? One of: da.methods.",
    "--data Digit": "unknown data set 'Digit'; did you mean 'Digits'? One of: Digits",
    "--data datasets.digits.Digit": "did you mean 'datasets.digits.Digits'?",
    "--model.norm wb": f"unknown normaliser 'wb'; did you mean 'wa+bn'? One of: {NORMS}",
    "--model.norm WA": "unknown normaliser 'WA'; did you mean 'wa'? One of: ",
    "--model dann": "unknown method 'dann'; did you mean 'DANN'? One of: ",
    "--model.norm no": f"unknown normaliser 'no'; did you mean 'none'? One of: {NORMS}",
    "--model.norm off": f"unknown normaliser 'off'; one of: {NORMS}",
    "--model.backbone resnet5": "unknown backbone 'resnet5'; did you mean 'resnet50'? One of: ",
    "--model.norm wa --model.norm_options.gian he": "did you mean 'gain'? One of: ",
    "--model.norm wa --model.norm_options.gain hee": "One of: auto, balanced, he, variance-pres",
    "--model.norm gn --model.norm_options.example 3": "example: expected a tensor, an input of the "
    "network, got 3; it is given from Python alone, leave it out",
    "--model.norm gn --model.norm_options.group 3": "One of: groups, insert",
    "--model.norm sws --model.norm_options.exclude 3": "exclude: expected a name or a list of "
    "names of layers, got 3",
    "--model.norm wa --model.norm_options.include [1]": "include: expected a name or a list of na",
    "--model.norm wa --model.norm_options.insert true": "unknown option of wa 'insert'; did you "
    "mean 'min_weights'? One of: exclude, gain, include, min_channels, min_weights, residual",
    "--model.norm sws --model.norm_options.exclude *": "batch norm left for 'sws' to align",
    "--model.norm brn --model.norm_options.r_max .inf": "r_max: expected a finite number from 1",
    "--model.norm brn --model.norm_options.d_max .nan": "d_max: expected a finite number from 0",
    "--model.norm da.norms.base.Normaliser": "this one is abstract, as it leaves out apply",
    # values
    "--data.batch_size many": "data.batch_size: expected a whole number; got 'many'",
    "--data.batch_size 1.5": "data.batch_size: expected a whole number; got '1.5'",
    "--data.batch_size 0": "data.batch_size: expected a number above 0, got 0",
    "--data.batch_size": "data.batch_size: expected a value, got none",
    "--data.steps_per_epoch all": "expected one of source, target, longest or a whole number; "
    "got 'all'",
    "--data.augment maybe": "data.augment: expected true or false; got 'maybe'",
    "--model.lr fast": "model.lr: expected a number or null; got 'fast'",
    "--model.lr nan": "model.lr: expected a number or null; got 'nan'",
    "--model.lr 0": "model.lr: expected a number above 0.0, got 0.0",
    "--model.momentum 1": "momentum: expected a number from 0 up to but not 1, got 1.0",
    "--model.weight_decay -1": "weight_decay: expected a number from 0, got -1.0",
    "--model.scope [head]": "model.scope: expected one of backbone, bottleneck, critic; got 'head'",
    "--model.scope backbone": "model.scope: expected a list [a, b]; got 'backbone'",
    "--model.scope [critic,critic]": "scope: critic is named twice; name each part once",
    "--model.forward_mode both": "model.forward_mode: expected one of joint, separate; got 'both'",
    "--model.bottleneck 0": "bottleneck: expected a whole number from 1 or null, got 0",
    "--model.horizon 0": "horizon: expected a whole number from 1 or null, got 0",
    "--model DANN --model.critic_width 0": "critic_width: expected a whole number from 1, got 0",
    "--model.num_classes 3": "model.num_classes: it is set from the data; leave it out",
    "--model.seed 3": "model.seed: it is set from --seed_everything; leave it out",
    "--seed_everything x": "seed_everything: expected a whole number; got 'x'",
    "--seed_everything false": "seed_everything: expected an integer such as 0, got False",
    "--seed_everything -1": "seed_everything: expected an integer from 0 to 2^32 - 1, got -1",
    "--trainer.max_epochs x": "trainer.max_epochs: expected a whole number or null; got 'x'",
    "--trainer.max_epochs 0": "trainer.max_epochs: expected more than 0",
    "--trainer.precision 7": "trainer.precision: expected one of 64, 32, 16, ",
    "--trainer.accelerator gpuu": "trainer: You selected an invalid accelerator name",
    "--trainer.precision bf16-true": "trainer.precision: the data are float32, bf16-true is not "
    "for them; give bf16-mixed",
    "--trainer.devices 99": "trainer.devices: expected 1 device on 1 node, got 99 devices on 1 "
    "node; one run trains on one device",
    # batches of one under batch norm
    "--data.batch_size 1": "batch_size 1 with norm 'bn': batch norm has no statistics of one image",
    "--data.batch_size 1 --model.norm wa+bn": "use a batch of 2 or more, or a normaliser without",
    "--data.batch_size 1 --model.norm wa --model.scope [backbone]": "first network.bottleneck.1",
    "--data.batch_size 1 --model.norm brn --model.norm_options.single_image true": "(1 of such "
    "layers, the first network.bottleneck.1, which see no maps, as single_image asks: "
    "--model.bottleneck null is without)",
    # files
    "--config no.yaml": "config: no file 'no.yaml'; give a YAML file of options",
    "--config=no.yaml": "config: no file 'no.yaml'",
    "--ckpt_path no.ckpt": "checkpoint: no file 'no.ckpt'; give the .ckpt that a training wrote",
    "--model.weights no.pth": "weights: no file 'no.pth'; give a .pth, .pt or .safetensors file",
    "--data Folder --data.root nowhere --data.source a --data.target b": "nowhere",
    # pretrained weights
    "--model.norm wa+gn --model.norm_options.insert true --model.weights imagenet": "norm 'wa+gn' "
    "with insert on pretrained weights: they know no normaliser where one would be inserted, so ",
    "--model.conversion sauce": "model.conversion: expected one of source, both, off; got 'sauce'",
    "--model.conversion_images 1": "conversion_images: expected a whole number from 2, got 1",
}


@pytest.mark.parametrize("options", rest_long(OPTIONS, list(OPTIONS)[::3]))
def test_a_bad_option_is_one_line(call, options):
    code, said = call(f"fit {options}")
    assert code == 2
    assert OPTIONS[options] in said


YAML = {
    "model: [1,\n  b: {": "a.yaml:2:7: broken YAML: ",
    "- 1\n- 2\n": "config: 'a.yaml' holds a list, expected a mapping of options",
    "": "config: 'a.yaml' holds nothing, expected a mapping of options",
    "modle:\n  class_path: DANN\n": "unknown option 'modle'; did you mean 'model'?",
    "trainer:\n  max_epoch: 3\n": "did you mean 'trainer.max_epochs'?",
    "model:\n  class_path: DANX\n": f"unknown method 'DANX'; did you mean 'DAN'? {METHODS}",
    "model:\n  class_path: DANN\n  init_args: {nrom: wa}\n": "did you mean 'model.norm'?",
    "model:\n  class_path: DANN\n  init_args: {norm: no}\n": "unknown normaliser 'no'; did you",
    "model:\n  class_path: DANN\n  init_args: {norm: off}\n": "unknown normaliser 'off'; one of",
    "model:\n  class_path: DANN\n  init_args: {lr: fast}\n": "model.lr: expected a number or null;",
    "data:\n  class_path: Digits\n  init_args: {batch_size: many}\n": "data.batch_size: expected a "
    "whole number; got 'many'",
    "data:\n  class_path: Digits\n  init_args: {soruce: photo}\n": "did you mean 'data.source'?",
    "model:\n  class_path: DANN\n  init_args: {num_classes: 3}\n": "model.init_args.num_classes: "
    "it is set from the data; leave it out",
    "model:\n  init_args: {task: a->b}\n": "model.init_args.task: it is set from the data",
    "model.seed: 3\n": "model.seed: it is set from --seed_everything; leave it out",
    "data:\n  class_path: Digits\n  init_args: {seed: 3}\n": "data.init_args.seed: it is set from "
    "--seed_everything; leave it out",
    "seed_everything: x\n": "seed_everything: expected a whole number; got 'x'",
}


@pytest.mark.parametrize("text", YAML)
def test_a_bad_configuration_is_one_line(call, text, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    code, said = call("fit --config a.yaml")
    assert code == 2
    assert YAML[text] in said


def test_a_configuration_that_is_no_text(call, tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    assert call("fit --config a.yaml") == (
        2,
        "a.yaml: expected text in UTF-8, got other bytes",
    )


def test_commands_and_their_first_argument(call):
    assert "unknown command 'fitt'; did you mean 'fit'? One of: ablate, " in call("fitt")[1]
    for command in ("test", "predict"):
        assert "expected the path of a checkpoint" in call(command)[1]
        assert "expected the path of a checkpoint first, got '--out'" in call(f"{command} --out")[1]
        assert "no file 'no.ckpt'" in call(f"{command} no.ckpt")[1]


MISSING = {
    "--data.source a": "data.target: expected one of a, b; got none",
    "--data.target a": "data.source: expected one of a, b; got none",
    "": "data.source and data.target: expected one of a, b; got none",
}


@pytest.mark.parametrize("given", MISSING)
@pytest.mark.parametrize("by", ["option", "configuration", "checkpoint"])
def test_the_domains_of_one_data_set_are_no_default_of_another(call, tmp_path, request, given, by):
    for domain in "ab":
        folder_of(tmp_path / "images", domain, ["cat", "dog"])
    options = f"fit --data Folder --data.root images {given}"
    if by == "configuration":
        (tmp_path / "a.yaml").write_text("data: {class_path: Folder, init_args: {root: images}}")
        options = f"fit --config a.yaml {given}"
    if by == "checkpoint":  # of the digits
        options = options.replace("fit", f"test {request.getfixturevalue('trained')}", 1)
    assert call(options) == (2, MISSING[given])


def test_a_data_set_without_its_folder(call):
    assert call("fit --data Folder") == (
        2,
        "root is missing: name the folder that holds DOMAIN/CLASS/IMAGE",
    )


def folder_of(root, domain, classes, count=5):
    rng = np.random.default_rng(0)
    for label, i in itertools.product(classes, range(count)):
        path = root / domain / label / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)


def test_folders_with_other_classes_and_too_few_images(call, tmp_path):
    folder_of(tmp_path / "images", "a", ["cat", "dog"])
    folder_of(tmp_path / "images", "b", ["cat", "horse"])
    folder_of(tmp_path / "images", "c", ["cat", "dog"], count=3)
    options = "fit --data Folder --data.root images --data.source a --model.backbone digits_resnet"
    code, said = call(f"{options} --data.target b --data.batch_size 2")
    assert code == 2
    assert "only in 'a': dog; only in 'b': horse" in said
    code, said = call(f"{options} --data.target c --data.batch_size 8")
    assert code == 2
    assert "fewer than one batch of 8" in said
    code, said = call(f"{options} --data.target d")
    assert code == 2
    assert "'d'" in said
    assert "a, b, c" in said


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize("content", [b"<html>quota exceeded</html>", b"", b"PK\x03\x04 cut"])
def test_weights_that_are_none(call, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    code, said = call(f"fit --model.weights {name}")
    assert code == 2
    assert re.search(f"weights: '{name}' (can't be read: it is|is damaged: it is cut short)", said)
    assert "weights_only" not in said  # torch's advice is to run whatever is in the file


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("option", ["--model.weights", "--ckpt_path"])
def test_code_in_a_file_is_not_run(call, tmp_path, monkeypatch, option):
    marker = tmp_path / "it ran"
    torch.save({"a": Evil(marker)}, tmp_path / "evil.pth")
    code, said = call(f"fit {option} evil.pth")
    assert (code, marker.exists()) == (2, False)
    assert "'evil.pth' can't be read: it is no file of tensors" in said
    # The variable overrides weights_only=True within torch.load.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    code, said = call(f"fit {option} evil.pth")
    assert (code, marker.exists()) == (2, False)
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD lets files run code; unset it" in said


@pytest.mark.parametrize("norm", ["bn", "wa"])
def test_a_loss_that_is_not_finite_is_diverged_and_never_done(call, tmp_path, norm):
    code, said = call(
        f"fit --model.lr 1e6 --model.norm {norm} --out run "
        "--data.steps_per_epoch 20 --trainer.max_epochs 3"
    )
    assert code == 3
    assert said.startswith("diverged: ")
    assert "not finite" in said
    assert "lower the learning rate (now 1e+06)" in said
    assert not (tmp_path / "run" / "result.json").exists()
    failure = read_failure(tmp_path / "run")
    assert (failure.state, failure.reason) == ("diverged", said)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint of two steps with WeightAlign."""
    out = tmp_path_factory.mktemp("trained")
    assert run.main(["fit", "--model.norm", "wa", "--out", str(out), *SHORT]) == 0
    return out / "last.ckpt"


def test_a_checkpoint_of_another_kind_is_refused(call, trained, tmp_path):
    code, said = call(f"test {trained} --model.norm bn --out t.json")
    assert code == 2
    assert "was trained with norm 'wa', the model has 'bn'; where none is given it is" in said
    code, said = call(f"test {trained} --model.bottleneck 32 --out t.json")
    assert code == 2
    assert "does not fit the model" in said
    resumed = f"fit --ckpt_path {trained} {' '.join(SHORT)} --out run"
    code, said = call(f"{resumed} --model.norm bn")
    assert code == 2
    assert "model.norm: " in said
    assert "was trained with wa, now bn; resume with the same settings" in said
    code, said = call(f"{resumed} --model.norm wa --model.lr 0.2")
    assert code == 2
    assert "model.lr" in said
    folder_of(tmp_path / "images", "a", ["cat", "dog"])
    folder_of(tmp_path / "images", "b", ["cat", "dog"])
    data = "--data Folder --data.root images --data.source a --data.target b"
    code, said = call(f"test {trained} {data} --out t.json")
    assert code == 2
    assert "has 10 classes, the data 2" in said


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_cut_checkpoint_is_named(call, trained, tmp_path, share):
    content = trained.read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(content[: int(share * len(content))])
    for line in ("test cut.ckpt", "predict cut.ckpt --images .", "fit --ckpt_path cut.ckpt"):
        code, said = call(line)
        assert code == 2
        assert re.match("checkpoint: 'cut.ckpt' (can't be read|is damaged): it is cut short", said)


def test_a_file_of_tensors_is_no_checkpoint(call, tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "a.ckpt")
    code, said = call("fit --ckpt_path a.ckpt")
    assert (code, said) == (
        2,
        "checkpoint: 'a.ckpt' holds no settings; it was not written by fit",
    )
    assert "does not fit digits_resnet: 21 of its" in call("test a.ckpt")[1]


def test_predict_without_images(call, trained, tmp_path):
    assert "give --images FOLDER" in call(f"predict {trained}")[1]
    assert "'no' is not a folder" in call(f"predict {trained} --images no")[1]
    (tmp_path / "empty").mkdir()
    assert "holds no images" in call(f"predict {trained} --images empty")[1]


def test_seed_zero_and_a_name_that_yaml_1_1_reads_as_false(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run.main(["fit", "--seed_everything", "0", "--model.norm", "none", *SHORT]) == 0
    folder = tmp_path / "runs/fit/rendered-optical-SourceOnly-none-seed0"
    settings = json.loads((folder / "config.json").read_text())
    assert settings["seed_everything"] == 0
    assert settings["model"]["init_args"]["norm"] == "none"
    # What fit writes is a configuration for the same run.
    config = str(folder / "config.json")
    assert run.main(["fit", "--config", config, "--seed_everything", "3", "--out", "again"]) == 0
    again = json.loads((tmp_path / "again/config.json").read_text())
    assert {**again, "seed_everything": 0} == settings


@pytest.mark.long  # hostile YAML and the environment are tried on real processes in the fast tests
def test_a_real_process_says_one_line():
    done = subprocess.run(
        [sys.executable, ROOT / "run.py", "fit", "--data.target", "nowhere"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown domain 'nowhere'")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
