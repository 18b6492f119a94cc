"""Published settings from their files to the table beside the published numbers."""

import csv
import itertools
import re

import numpy as np
import pytest
import torch
import yaml
from in_process_pool import in_process
from PIL import Image

import run
from da.errors import UserError
from da.grids.grid_file import find_config, read_grid
from da.grids.session import Session
from da.grids.validation import check, ready
from da.methods import dann
from da.methods.base import Method
from da.networks.backbones.base import build_backbone
from da.ops.sealed_json import read_sealed
from da.reports.references import AVERAGE, config, published, read
from datasets.domainnet import DomainNet
from datasets.office31 import Office31
from datasets.visda import VisDA2017

KEYS = ("lr", "weight_decay", "momentum", "nesterov")
SMALL = {"image_size": 32, "resize": 36, "num_workers": 0, "cache": False}


def tree(folder, kind, domains, layout, each=2):
    """A set of the published shape with generated images."""
    generator = np.random.default_rng(0)
    for domain in domains:
        for name in kind.classes:
            place = folder / layout.format(domain=domain) / name
            place.mkdir(parents=True)
            for i in range(each):
                pixels = generator.integers(0, 255, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"frame_{i:04}.jpg")
    return folder


def cut(name, folder, epochs=1, steps=2):
    """The published settings as they are, with a small network, small images and few steps."""
    settings = yaml.safe_load(config(name).read_text())
    settings["data_args"] |= SMALL
    settings["model"] |= {"backbone": "digits_resnet", "weights": None}
    settings |= {"epochs": epochs, "steps_per_epoch": steps, "batch_size": 8, "device": "cpu"}
    for override in settings["overrides"]:
        override |= {"epochs": epochs, "steps_per_epoch": steps}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


@pytest.mark.parametrize("name", published())
def test_published_settings_are_grids_of_what_exists(name):
    grid = read_grid(config(name), {})
    check(grid.model_dump(mode="json"))
    quick = read_grid(config(name), {"quick": True})
    for task in grid.tasks:
        for method in grid.methods:
            cell = quick.cell(task, method, "bn", {}, 0, 0.1)
            assert cell.epochs * cell.steps_per_epoch <= 5000


def test_the_published_settings_of_each_method():
    grid = read_grid(find_config("configs/published/office31.yaml"), {})
    task = "amazon->webcam"
    erm, dann = (
        grid.cell(task, m, "bn", {}, 0, grid.rate(task, m, {})) for m in ("SourceOnly", "DANN")
    )
    assert (erm.lr, erm.epochs, erm.steps_per_epoch) == (1e-3, 5, 500)
    assert (dann.lr, dann.epochs, dann.steps_per_epoch) == (1e-2, 20, 1000)
    assert erm.model_args["bottleneck"] is None
    assert erm.model_args["anneal_alpha"] == pytest.approx(3e-4 * 10_000)
    assert dann.model_args["anneal_alpha"] == pytest.approx(1e-3 * 10_000)


#: How many averages stand beside their parts.
AVERAGES = {"office31": 29, "office_home": 21, "visda": 14, "domainnet": 8, "domainnet126": 1,
            "imageclef": 5}  # fmt: skip


@pytest.mark.parametrize("name", AVERAGES)
def test_published_averages_agree_with_their_parts_or_say_what_those_average(name):
    rows = read(name)
    compared = 0
    for whole in rows:
        if whole.task != AVERAGE and whole.metric != "class_mean":
            continue
        mine = [r for r in rows if (r.method, r.source) == (whole.method, whole.source)]
        parts = [
            r.value
            for r in mine
            if (whole.metric == "class_mean" and r.metric.startswith("class:"))
            or (whole.task == AVERAGE and r.metric == whole.metric and r.task != AVERAGE)
        ]
        if parts:
            compared += 1
            assert len(parts) == len(read_grid(config(name), {}).tasks) or name == "visda"
            differs = re.search(r"average (\d+\.\d)$", whole.note)
            value = float(differs[1]) if differs else whole.value
            assert np.mean(parts) == pytest.approx(value, abs=0.0501), whole
    assert compared == AVERAGES[name]


@pytest.mark.long
def test_dann_on_a_tree_of_the_shape_of_office31(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tree(tmp_path / "data", Office31, Office31.domains, "{domain}/images")
    line = ["reproduce", cut("office31", tmp_path), "--method", "dann", "--root", str(root)]
    assert run.main([*line, "--seeds", "0", "--workers", "1", "--out", "out"]) == 0
    said = capsys.readouterr().out
    for label, value in (("A→W", 91.4), ("W→A", 70.4), ("average (6 of 6 tasks)", 86.1)):
        assert f"| {label} | mean over samples | {value} | oracle |" in said
    assert "OUTSIDE (±1.5, one seed: error unknown)" in said
    assert "OTHER IMAGES: target 'webcam' was tested on 62 images, published are 795" in said
    rows = list(csv.DictReader((tmp_path / "out/reproduce.csv").open()))
    assert len(rows) == 7
    ours = [float(r["oracle mean"]) for r in rows]
    assert ours[-1] == pytest.approx(np.mean(ours[:-1]), abs=1e-3)
    # The finished grid is compared again, by what it holds.
    assert run.main(["reproduce", "office31", "--out", "out", "--compare"]) == 0
    assert capsys.readouterr().out.count("| oracle |") == 1 + 7 + 7  # the head, and ranges
    next((tmp_path / "out/cells").glob("*/result.json")).unlink()
    assert run.main(["reproduce", "office31", "--out", "out", "--compare"]) == 0
    said = capsys.readouterr().out
    assert "missing (0 of 1)" in said
    assert "missing (5 of 6)" in said


def test_visda_shows_both_means_and_twelve_classes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Session, "pool", in_process)
    monkeypatch.chdir(tmp_path)
    root = tree(tmp_path / "data", VisDA2017, ("train", "validation"), "{domain}")
    line = ["reproduce", cut("visda", tmp_path), "--method", "source_only", "--root", str(root)]
    assert run.main([*line, "--seeds", "0", "--workers", "1", "--out", "out"]) == 0
    said = capsys.readouterr().out
    assert "| synthetic→real | mean over classes | 51.7 | oracle |" in said
    assert "| synthetic→real | mean over samples | 56.9 | oracle |" in said
    assert "| aeroplane | 63.6 | " in said
    assert "| truck | 4.7 | " in said


def test_wrong_names_are_refused(refused_words):
    assert "unknown benchmark 'office'; did you mean 'office31'" in refused_words(
        "reproduce", "office"
    )
    assert "unknown method 'mic'" in refused_words("reproduce", "office31", "--method", "mic")
    assert "name the folder of a finished grid" in refused_words(
        "reproduce", "office31", "--compare"
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"methods": ["DANN"]}, "it changes nothing"),
        ({"lr": 0.1}, "name the methods or the tasks"),
        ({"methods": ["DANN"], "lr": -1}, "lr: expected a number above 0, got -1"),
        (
            {"methods": ["DANN"], "epoch": 3},
            "unknown setting of overrides.0 'epoch'; did you mean 'epochs'",
        ),
        ({"tasks": ["a-b"], "lr": 1}, "a task is written source->target"),
    ],
)
def test_a_wrong_override_is_one_line(override, message, tmp_path):
    settings = yaml.safe_load(config("office31").read_text()) | {"overrides": [override]}
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match=message) as error:
        read_grid(tmp_path / "g.yaml", {})
    assert "\n" not in str(error.value)


def test_fit_takes_the_published_settings_of_a_method(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tree(tmp_path / "data", Office31, ("amazon", "webcam"), "{domain}/images", each=1)
    line = ["fit", "--config", cut("office31", tmp_path), "--model", "DANN", "--data.root"]
    domains = ["--data.source", "amazon", "--data.target", "webcam", "--model.norm", "wa"]
    assert run.main([*line, str(root), *domains, "--out", "out"]) == 0
    spec = read_sealed(tmp_path / "out/spec.json", "specification", "").content
    assert (spec["data"], spec["method"], spec["norm"]) == ("Office31", "DANN", "wa")
    assert (spec["lr"], spec["model_args"]["horizon"]) == (0.01, 10_000)
    assert (spec["batch_size"], spec["steps_per_epoch"], spec["epochs"]) == (8, 2, 1)
    assert spec["data_args"]["resize"] == 36


@pytest.mark.parametrize(
    ("method", "lr", "gamma", "decay"),
    [
        ("DANN", 1e-2, 1e-3, 1e-3),
        ("EntropyMinimisation", 1e-2, 1e-3, 1e-3),
        ("SourceOnly", 1e-3, 3e-4, 5e-4),
    ],
)
def test_a_fit_has_the_published_rates_and_reversal_at_every_step(
    method, lr, gamma, decay, tmp_path, monkeypatch
):
    """With the published settings as they are, and a small network with weights of its own."""
    monkeypatch.chdir(tmp_path)
    tree(tmp_path / "data", Office31, ("amazon", "webcam"), "{domain}/images")
    torch.save(build_backbone("digits_resnet").state_dict(), "weights.pth")
    reverse, before, strengths, seen = dann.gradient_reversal, {1: 1000, 1000: 5000}, [], {}

    def reversing(features, strength):
        strengths.append(strength)
        return reverse(features, strength)

    def look(module, optimizer):
        step = module.global_step
        names = {id(p): ".backbone." in f".{name}" for name, p in module.named_parameters()}
        seen[step] = [
            ({names[id(p)] for p in group["params"]}, *(group[key] for key in KEYS))
            for group in optimizer.param_groups
        ]
        loop = module.trainer.fit_loop.epoch_loop.manual_optimization
        if step in before:  # the run goes on as if it had come so far
            loop.optim_step_progress.total.completed = before[step] - 1

    monkeypatch.setattr(dann, "gradient_reversal", reversing)
    monkeypatch.setattr(Method, "on_before_optimizer_step", look)
    line = f"fit --config {config('office31')} --model {method} --data.root data --out out"
    small = "--model.backbone digits_resnet --model.weights weights.pth --trainer.accelerator cpu"
    images = "--data.image_size 32 --data.resize 36 --data.num_workers 0 --data.cache false"
    domains = "--data.source amazon --data.target webcam"
    length = "--data.steps_per_epoch 4 --trainer.max_epochs 1"
    assert run.main(f"{line} {small} {images} {domains} {length}".split()) == 0
    assert list(seen) == [0, 1, 1000, 5000]
    for step, groups in seen.items():
        rate = lr * (1 + gamma * step) ** -0.75
        assert sorted(in_backbone for names, *_ in groups for in_backbone in names) == [False, True]
        for (in_backbone,), *values in groups:
            factor = 0.1 if in_backbone else 1
            assert values == [pytest.approx(factor * rate, rel=1e-9), decay, 0.9, True]
    reversals = [2 / (1 + np.exp(-step / 1000)) - 1 for step in seen] if method == "DANN" else []
    # One of each domain.
    assert list(dict.fromkeys(strengths)) == pytest.approx(reversals, rel=1e-9)


@pytest.mark.parametrize(
    ("options", "words", "real"),
    [
        pytest.param(
            *(["--root", "nowhere", "--device", "cpu"], "root 'nowhere' is not a folder", True),
            marks=pytest.mark.long,
        ),
        (["--root", "nowhere", "--device", "cpu"], "root 'nowhere' is not a folder", False),
        (["--device", "cpu"], "root is missing", False),
        (["--root", ".", "--device", "cpu"], "domain 'amazon' of Office-31 is not in", False),
        (["--root", ".", "--device", "cuda"], "PyTorch finds no such device", False),
    ],
)
def test_what_no_cell_could_begin_with_is_refused_at_once(
    tmp_path, monkeypatch, capfd, options, words, real
):
    if not real:
        monkeypatch.setattr(Session, "pool", in_process)
    if "cuda" in options and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.chdir(tmp_path)
    code = run.main(["reproduce", "office31", "--method", "dann", "--out", "out", *options])
    error = capfd.readouterr().err
    assert (code, error.count("\n")) == (2, 1)
    assert words in error


def test_a_published_list_that_is_missing_is_refused_before_any_cell(tmp_path):
    for domain, name in itertools.product(("clipart", "sketch"), DomainNet.classes):
        image = tmp_path / domain / name / "1.jpg"
        image.parent.mkdir(parents=True)
        image.touch()
    rows = {d: [f"{d}/{c}/1.jpg {k}" for k, c in enumerate(DomainNet.classes)]
            for d in ("clipart", "sketch")}  # fmt: skip
    for name in ("clipart_train", "clipart_test", "sketch_train"):
        (tmp_path / f"{name}.txt").write_text("\n".join(rows[name.partition("_")[0]]))
    settings = {
        "data": "datasets.domainnet.DomainNet",
        "data_args": {"root": str(tmp_path)},
        "tasks": ["clipart->sketch"],
        **{"methods": ["SourceOnly"], "norms": ["bn"], "seeds": [0], "lr": "published"},
        **{"batch_size": 4, "epochs": 1, "steps_per_epoch": 1, "published_lr": 0.01},
    }
    with pytest.raises(UserError, match=r"'sketch' .* the list 'sketch_test\.txt'"):
        ready(settings, settings["tasks"])
    (tmp_path / "sketch_test.txt").write_text("\n".join(rows["sketch"]))
    ready(settings, settings["tasks"])


def test_all_tasks_of_a_folder(tmp_path):
    for domain in "abc":
        (tmp_path / domain / "cat").mkdir(parents=True)
    settings = {
        **yaml.safe_load(find_config("configs/ablations/digits_small.yaml").read_text()),
        "data": "datasets.folder.Folder",
        "data_args": {"root": str(tmp_path)},
        "tasks": "all",
    }
    assert len(check(settings)["tasks"]) == 6


def test_dry_run_gives_no_time_for_what_was_never_timed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = ["reproduce", "office31", "--method", "DANN", "--root", ".", "--dry-run"]
    assert run.main([*line, "--quick"]) == 0
    *cells, cost = capsys.readouterr().out.splitlines()
    assert len(cells) == 6
    assert all("lr 0.01     batch 32 steps 5 x 1000 seeds 0,1,2" in cell for cell in cells)
    assert cost.startswith("18 of 18 cells to run: time unknown for resnet50 on cuda until")
    assert not list(tmp_path.iterdir())


def test_dry_run_refuses_a_root_that_holds_other_files_than_the_set(tmp_path, refused_words):
    (tmp_path / "art" / "Alarm_Clock").mkdir(parents=True)
    for root, words in ((".", "domain 'amazon' of Office-31 is not in '.'"), ("none", "'none'")):
        assert words in refused_words("reproduce", "office31", "--root", root, "--dry-run")
