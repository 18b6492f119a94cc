import csv
import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from short_runs import SHORT_FIT

import run
from da.cli._checkpoints import from_checkpoint
from da.cli.analyse import OF_LABELS, PICTURES
from datasets.files.class_matching import NO_LABEL
from datasets.folder import Folder


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """Runs ``analyse``; gives what it said."""
    monkeypatch.chdir(tmp_path)

    def run_it(*words):
        capfd.readouterr()
        code = run.main(["analyse", *map(str, words)])
        said, err = capfd.readouterr()
        assert (code, err) == (0, ""), err
        return said

    return run_it


@pytest.fixture
def refused(refused_words):
    """As ``refused_words``, of ``analyse``."""
    return lambda *words: refused_words("analyse", *words)


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_pair_of_checkpoints_has_every_picture_and_its_numbers(
    call, trained, tmp_path, two_domains
):
    said = call(*(trained / norm / "last.ckpt" for norm in ("bn", "wa")), "--out", "out")
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == sorted(f"{name}.{kind}" for name in PICTURES for kind in ("csv", "png", "svg"))
    written = said.partition("written to out: ")[2]
    assert sorted(written.strip().split(", ")) == files
    assert "20 of 20 of the source and 20 of 20 of the target, the same for all" in said
    for name in PICTURES:
        assert {row["network"] for row in table(tmp_path / f"out/{name}.csv")} <= {"bn", "wa"}
        assert Image.open(tmp_path / f"out/{name}.png").size[0] > 500
    svg = (tmp_path / "out/confusion.svg").read_text()
    assert "bright → dark, DANN, seed 0" in svg
    # The same numbers as by test.
    assert run.main(["test", str(trained / "bn/last.ckpt"), "--forms", "trained"]) == 0
    scores = json.loads((trained / "bn/test.json").read_text())["scores"][""]["target/test"]
    cells = [row for row in table(tmp_path / "out/confusion.csv") if row["network"] == "bn"]
    right = sum(int(row["count"]) for row in cells if row["true"] == row["predicted"])
    assert right / 20 == pytest.approx(scores["accuracy"])
    assert f"{100 * scores['class_mean']:.1f}" in said
    wrong = [row for row in table(tmp_path / "out/wrong.csv") if row["network"] == "bn"]
    assert len(wrong) == 20 - right
    for row in wrong:
        assert (two_domains / "dark" / row["image"]).is_file() or (
            two_domains / row["image"]
        ).is_file()
        assert row["true"] in row["image"]


def test_all_networks_see_the_same_images_and_the_same_call_gives_the_same_files(
    call, trained, tmp_path
):
    words = [trained, "--images", 9, "--only", "mmd,tsne", "--out"]
    call(*words, "one")
    rows = table(tmp_path / "one/tsne.csv")
    images = [[r["image"] for r in rows if r["network"] == norm] for norm in ("bn", "wa")]
    assert images[0] == images[1]
    assert len(images[0]) == 18
    assert [row["network"] for row in rows[:1] + rows[-1:]] == ["bn", "wa"]  # in this order
    call(*words, "two")
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_features_are_those_of_the_network_with_names_and_labels(call, trained, tmp_path):
    said = call(trained / "wa", "--only", "confusion", "--features", "--out", "out")
    assert "features-wa.npz" in said
    found = np.load(tmp_path / "out/features-wa.npz")
    cli, _ = from_checkpoint([str(trained / "wa/last.ckpt")], "test", "", {})
    module = cli.model.eval()
    for role in ("source", "target"):
        images = torch.cat(list(cli.datamodule.images(role, "test")))
        with torch.no_grad():
            expected = module.network(images, role)
        np.testing.assert_allclose(found[f"{role}_features"], expected.features, atol=1e-4)
        np.testing.assert_allclose(found[f"{role}_logits"], expected.logits, atol=1e-4)
        labels = found[f"{role}_labels"]
        classes = found["classes"][labels]
        assert all(c in name for c, name in zip(classes, found[f"{role}_names"], strict=True))
    assert found["domains"].tolist() == ["bright", "dark"]


def test_files_go_beside_the_checkpoint_and_of_several_runs_into_a_folder_of_the_task(
    call, trained, tmp_path
):
    shutil.copytree(trained, tmp_path / "runs")
    words = ["--only", "confusion"]
    call("runs/bn/last.ckpt", *words)
    assert (tmp_path / "runs/bn/analysis/confusion.csv").is_file()
    call("runs/wa", *words)
    assert (tmp_path / "runs/wa/analysis/confusion.csv").is_file()
    call("runs", *words, "--task", "bright-dark", "--method", "DANN", "--seed", 0, "--norms", "wa")
    out = tmp_path / "runs/analysis/bright-dark-DANN-seed0"
    assert {row["network"] for row in table(out / "confusion.csv")} == {"wa"}


def test_options_of_the_data_hold_for_all_networks(call, trained, tmp_path):
    words = ["--only", "confusion", "--out", "out", "--data.source", "dark"]
    call(trained, *words, "--data.target", "bright")
    assert "dark → bright" in (tmp_path / "out/confusion.svg").read_text()


def test_a_target_without_labels_has_predicted_classes_and_a_line(
    call, trained, tmp_path, monkeypatch, refused
):
    read_split = Folder.read_split

    def unlabelled(self, domain, split):
        found = read_split(self, domain, split)
        if domain == self.target:
            found.labels = np.full(len(found), NO_LABEL)
        return found

    monkeypatch.setattr(Folder, "read_split", unlabelled)
    said = call(trained / "bn", "--out", "out", "--only", "tsne,confusion,wrong")
    line = (
        "the images of dark have no labels: confusion, wrong are left out; tsne shows predicted "
        "classes\n"
    )
    assert line in said
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {"tsne"}
    assert "by predicted class" in (tmp_path / "out/tsne.svg").read_text()
    rows = [row for row in table(tmp_path / "out/tsne.csv") if row["domain"] == "target"]
    assert {row["class"] for row in rows} == {""}
    assert {row["predicted"] for row in rows} <= {"red", "green"}
    shutil.rmtree(tmp_path / "out")
    text = refused(trained / "bn", "--only", "confusion")
    assert text == "only: the images of dark have no labels, which confusion would need"


def test_what_is_wrong_is_said_in_one_line(refused, trained, tmp_path):
    bn = trained / "bn/last.ckpt"
    assert refused().startswith("expected checkpoints or a folder of them: python run.py analyse")
    assert "'no.ckpt'" in refused("no.ckpt")
    assert "no file 'no'" in refused("no", "--seed", 0)
    said = refused(bn, "--only", "tsme")
    assert said.startswith("unknown picture 'tsme'; did you mean 'tsne'? One of: ")
    assert "expected a whole number from 8, got 3" in refused(bn, "--images", 3)
    assert "split: expected one of train, validation, test" in refused(bn, "--split", "tests")
    said = refused(bn, "--task", "a-b")
    assert said == "task: it chooses among the checkpoints of a folder; leave it out"
    said = refused(trained, "--task", "bright-drak")
    assert said.startswith("unknown task 'bright-drak'; did you mean 'bright->dark'?")
    assert "unknown method 'DAN'; did you mean 'DANN'?" in refused(trained, "--method", "DAN")
    assert "unknown seed '3'" in refused(trained, "--seed", 3)
    said = refused(trained, "--norms", "bn,gn")
    assert said.startswith("unknown normaliser 'gn'")
    assert said.endswith("ne of: bn, wa")
    assert "is given twice" in refused(bn, trained / "bn")
    (tmp_path / "empty").mkdir()
    said = refused("empty")
    assert said.startswith("checkpoint: 'empty' holds no last.ckpt; a grid keeps checkpoints")
    (tmp_path / "text").write_text("a file")
    assert refused(bn, "--out", "text") == "out: 'text' is a file; name a folder"
    (tmp_path / "options.yaml").write_text("norms: bn\n")
    said = refused(trained, "--config", "options.yaml")
    assert said == "norms: give it on the command line, not in a file"
    assert "lr: analyse starts from a checkpoint" in refused(bn, "--model.lr", 1)


def test_an_unfinished_training_is_named_by_its_file_alone(call, refused, trained, tmp_path):
    shutil.copytree(trained / "bn", tmp_path / "cut")
    (tmp_path / "cut/result.json").unlink()
    said = refused("cut")
    assert said.startswith("checkpoint: 'cut' holds no finished training; give the file")
    call("cut/last.ckpt", "--only", "confusion")
    assert (tmp_path / "cut/analysis/confusion.png").is_file()


def test_networks_on_other_images_are_refused(refused, trained, pair):
    turned = {"bright": "dark", "dark": "bright"}
    folder = trained.parent / "turned"
    words = [
        "fit",
        "--out",
        str(folder),
        *(turned.get(word, word) for word in pair),
        *SHORT_FIT,
    ]
    assert run.main(words) == 0
    said = refused(trained / "bn", folder, "--only", "confusion")
    assert "have other images of the source, and networks are compared on the same" in said


def test_help_and_the_list_of_commands(capsys):
    with pytest.raises(SystemExit) as stop:
        run.main(["analyse", "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    for option in ("--only", "--images", "--task", "--norms", "--features", "reliability diagram"):
        assert option in said
    assert run.main(["--help"]) == 0
    assert re.search(r"analyse +Draw what trained networks make", capsys.readouterr().out)
    assert set(OF_LABELS) < set(PICTURES)
