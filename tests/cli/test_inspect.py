import csv
import subprocess
import sys

import pytest
import torch
from long_cases import rest_long

import run
from da.cli._checkpoints import from_checkpoint
from da.networks.backbones.base import build_backbone


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """Runs ``inspect activations``; gives the rows of the table, what it said, and the folder."""
    monkeypatch.chdir(tmp_path)

    def run_it(*words):
        capfd.readouterr()
        code = run.main(["inspect", "activations", *map(str, words)])
        said, err = capfd.readouterr()
        assert (code, err) == (0, ""), err
        with (tmp_path / "runs/activations/activations.csv").open() as file:
            return list(csv.DictReader(file)), said

    return run_it


@pytest.fixture
def refused(refused_words):
    """As ``refused_words``, of ``inspect``."""
    return lambda *words: refused_words("inspect", *words)


def stem(rows, network, of, point="into"):
    wanted = {"network": str(network), "of": of, "point": point, "depth": "1"}
    (found,) = [row for row in rows if wanted.items() <= row.items()]
    return found


def test_checkpoints_are_measured_on_the_images_of_both_domains(call, trained):
    checkpoints = [trained / norm / "last.ckpt" for norm in ("bn", "wa")]
    rows, said = call(*checkpoints)
    assert "written: runs/activations/activations.png, runs/activations/activations.svg" in said
    for norm in ("bn", "wa"):
        assert f"{norm}, DANN: where the domains are furthest apart" in said
    largest = max((r for r in rows if r["norm"] == "wa"), key=lambda row: float(row["gap"]))
    line = next(text for text in said.rpartition("wa, DANN")[2].splitlines() if "0." in text)
    assert largest["layer"] in line
    assert f"{float(largest['gap']):.3f}" in line
    assert list(dict.fromkeys(row["network"] for row in rows)) == list(map(str, checkpoints))
    assert {row["method"] for row in rows} == {"DANN"}
    for path in checkpoints:
        cli, _ = from_checkpoint([str(path)], "test", "", {})
        module, data = cli.model.eval(), cli.datamodule
        norm = module.network.backbone.stem[1]
        for role in ("source", "target"):
            images = torch.cat(list(data.images(role, "test")))
            with torch.no_grad():
                values = module.network.backbone.stem[0](images).transpose(0, 1).flatten(1).double()
                after = module.network.backbone.stem[:2](images).transpose(0, 1).flatten(1).double()
            found, out = (stem(rows, path, role, point) for point in ("into", "out"))
            assert float(found["mean"]) == pytest.approx(values.mean(1).mean().item(), abs=1e-4)
            deviation = values.numpy().std(1).mean()
            assert float(found["std"]) == pytest.approx(deviation, rel=1e-3)
            assert float(out["std"]) == pytest.approx(after.numpy().std(1).mean(), rel=1e-3)
        running = [row for row in rows if row["network"] == str(path) and row["of"] == "running"]
        assert bool(running) == (path.parent.name == "bn")
        if running:
            assert len(running) == 8
            mean = float(stem(rows, path, "running")["mean"])
            assert mean == pytest.approx(norm.running_mean.mean().item(), abs=1e-5)


@pytest.mark.parametrize("method", rest_long(["DANN", "SourceOnly"], ["DANN"]))
def test_untrained_batch_norm_has_the_statistics_that_training_would_see(call, pair, method):
    rows, said = call("--norms", "bn,gn", "--model", method, *pair)
    assert f"bn, before {method}: where" in said
    assert {row["norm"] for row in rows} == {"bn", "gn"}
    source, target, running = (
        float(next(r for r in rows if (r["norm"], r["of"]) == ("bn", name))["mean"])
        for name in ("source", "target", "running")
    )
    assert abs(source - target) > 1e-3
    expected = source if method == "SourceOnly" else (source + target) / 2
    assert running == pytest.approx(expected, abs=1e-4)


def test_pretrained_weights_keep_their_statistics_and_are_converted(
    call, pair, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    network = build_backbone("digits_resnet")
    network.stem[1].running_mean.fill_(0.25)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    options = ["--model.weights", "weights.pth", "--model.conversion_images", 12, *pair]
    rows, _ = call("--norms", "bn,wa", *options)
    assert float(stem(rows, "before training", "running")["mean"]) == pytest.approx(0.25)
    last = [r for r in rows if r["layer"] == "bottleneck.0" and r["point"] == "into"]
    # The stem of the converted network puts out what batch norm made of the same images.
    bn, wa = (
        float(
            next(r for r in rows if (r["norm"], r["depth"], r["point"]) == (n, "1", "out"))["std"]
        )
        for n in ("bn", "wa")
    )
    assert wa == pytest.approx(bn, rel=0.1)
    assert {row["norm"] for row in last} == {"bn", "wa"}


@pytest.mark.long
def test_the_same_call_gives_the_same_files_and_fewer_images_others(call, pair, tmp_path):
    rows, _ = call("--model.norm", "wa", *pair)
    files = sorted((tmp_path / "runs/activations").iterdir())
    first = [file.read_bytes() for file in files]
    assert call("--model.norm", "wa", *pair)[0] == rows
    assert [file.read_bytes() for file in files] == first
    assert call("--model.norm", "wa", "--images", 6, *pair)[0] != rows
    assert {row["norm"] for row in rows} == {"wa"}


def test_what_is_wrong_is_said_in_one_line(refused, trained, pair, tmp_path):
    bn = trained / "bn" / "last.ckpt"
    assert refused() == (
        "expected what to inspect (activations or training): python run.py inspect activations "
        "[CHECKPOINT ...] [options], or --help"
    )
    said = refused("activation", bn)
    assert said == (
        "unknown inspection 'activation'; did you mean 'activations'? One of: activations, training"
    )
    assert "'no.ckpt'" in refused("activations", "no.ckpt")
    (tmp_path / "text.ckpt").write_text("no tensors")
    assert "'text.ckpt'" in refused("activations", bn, "text.ckpt")
    said = refused("activations", "--norms", "bn,wb", *pair)
    assert said.startswith(
        "unknown normaliser 'wb'; did you mean 'wa+bn'? One of: adabn, autodial, bn, "
    )
    assert "unknown normaliser 'wb'" in refused("activations", "--model.norm", "wb", *pair)
    said = refused("activations", bn, "--norms", "wa")
    assert said == "norms: a checkpoint has its own normaliser; leave --norms out"
    said = refused("activations", "--norms", "wa", "--model.norm", "bn")
    assert said == "norms: --model.norm names one, too; leave --norms out"
    assert "expected a whole number from 2, got 1" in refused("activations", bn, "--images", 1)
    assert "split: expected one of train, validation, test" in refused(
        "activations", bn, "--split", "tests"
    )
    said = refused("activations", bn, "--out", "text.ckpt")
    assert said == "out: 'text.ckpt' is a file; name a folder"
    assert "unknown option 'image'" in refused("activations", bn, "--image", 4)


def test_help_and_the_list_of_commands(capsys):
    with pytest.raises(SystemExit) as stop:
        run.main(["inspect", "activations", "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    for option in ("--norms", "--images", "--split", "--out", "inspect activations"):
        assert option in said
    assert run.main(["--help"]) == 0
    assert "inspect    Look into networks and trainings" in capsys.readouterr().out


def test_the_command_does_not_hide_the_standard_librarys_inspect():
    code = "import da.cli.inspect, inspect, run; inspect.signature(run.main); print('ok')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=run.__file__[:-7],
    )
    assert done.stdout == "ok\n"
