"""What is otherwise on a GPU: scaled gradients, loaders that normalise there, conversion.

Run by hand where there is one: ``python -m pytest tests/test_gpu.py``.
"""

import math

import numpy as np
import pytest
import torch
from PIL import Image

import run
from da.adapters.tent import TENT
from da.engine.components import available_methods, find_method
from da.engine.evaluation import predict_adapted, predict_stream
from da.engine.spec import RunSpec, TrainerSettings
from da.engine.training import Training, train
from da.networks.backbones.base import build_backbone

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="PyTorch finds no CUDA device on this machine"
)


def spec_of(method="DANN", norm="wa", **settings):
    base = {
        "data": "Digits",
        "source": "rendered",
        "target": "optical",
        "method": method,
        "method_args": dict(find_method(method).small),
        "norm": norm,
        "model_args": {"bottleneck": 16},
        "lr": 0.01,
        "batch_size": 16,
        "epochs": 2,
        "steps_per_epoch": 5,
        "seed": 0,
        "threads": None,
        "device": "cuda",
    }
    return RunSpec(**{**base, **settings})


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("norm", ["bn", "wa"])
@pytest.mark.parametrize("method", available_methods())
def test_every_method_trains_in_every_precision(method, norm, precision, tmp_path):
    training = Training(spec_of(method, norm, precision=precision))
    before = {k: v.clone() for k, v in training.module.network.state_dict().items()}
    result = training.run(tmp_path)
    after = training.module.network.state_dict()
    assert all(v.isfinite().all() for v in after.values())
    moved = [
        k for k, v in before.items() if k.endswith("weight") and not torch.equal(v, after[k].cpu())
    ]
    assert moved
    assert math.isfinite(result.initial_loss)
    assert len(result.evaluations) == 2


@pytest.mark.parametrize("method", ["DANN", "SDAT", "MCD"])
def test_clipping_sees_gradients_that_are_not_scaled(method, tmp_path):
    """A scale of 65,536 in the norm would clip every update."""
    settings = TrainerSettings(gradient_clip_val=1000.0)
    result = train(spec_of(method, precision="16-mixed", trainer=settings), tmp_path)
    assert result.clipped_fraction == 0


def test_gradients_are_averaged_over_batches(tmp_path):
    settings = TrainerSettings(accumulate_grad_batches=2)
    for precision in ("32-true", "16-mixed"):
        result = train(spec_of(precision=precision, trainer=settings), tmp_path / precision)
        assert result.evaluations[-1].step == 6


def test_a_run_goes_on_from_its_checkpoint(tmp_path):
    train(spec_of(epochs=1, steps_per_epoch=5), tmp_path)
    result = train(spec_of(epochs=2), tmp_path)
    assert [e.epoch for e in result.evaluations] == [1, 2]


def test_the_gpu_predicts_what_the_cpu_does(tmp_path):
    training = Training(spec_of(norm="wa"))
    training.run(tmp_path)
    module, data = training.module, training.data
    stream = data.evaluation("target", "test")
    cpu = predict_stream(module.cpu(), stream)
    gpu = predict_stream(module.cuda(), stream)
    torch.testing.assert_close(cpu.logits, gpu.logits, rtol=1e-2, atol=1e-2)
    adapted = predict_adapted(module, TENT(), stream)
    assert adapted.logits.isfinite().all()


@pytest.fixture
def images(tmp_path):
    random = np.random.default_rng(0)
    for domain in ("a", "b"):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / domain / name
            folder.mkdir(parents=True)
            for i in range(12):
                pixels = random.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "images"


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_normalised_on_the_gpu_to_what_the_cpu_makes_of_them(images, tmp_path, workers):
    seen = {}
    for device in ("cpu", "cuda"):
        spec = spec_of(
            "SourceOnly", data="Folder", source="a", target="b", batch_size=4, epochs=1,
            data_args={"root": str(images), "image_size": 32, "num_workers": workers},
            device=device,
        )  # fmt: skip
        training = Training(spec)
        steps = training.module.steps
        seen[device] = []

        def noted(batch, device=device, steps=steps):
            seen[device].append(batch.source.images.cpu())
            assert batch.source.images.device.type == device
            yield from steps(batch)

        training.module.steps = noted
        training.run(tmp_path / device)
    for cpu, gpu in zip(seen["cpu"], seen["cuda"], strict=True):
        torch.testing.assert_close(cpu, gpu, rtol=1e-5, atol=1e-5)


def test_pretrained_weights_are_converted_on_the_gpu(tmp_path):
    torch.save(build_backbone("digits_resnet").state_dict(), tmp_path / "start.pth")
    args = {"bottleneck": 16, "weights": str(tmp_path / "start.pth"), "conversion_images": 64}
    found = {}
    for device in ("cpu", "cuda"):
        spec = spec_of("SourceOnly", model_args=args, device=device)
        found[device] = train(spec, tmp_path / device).conversion
    assert found["cuda"].error == pytest.approx(found["cpu"].error, rel=0.01)
    assert found["cuda"].worst_layer == found["cpu"].worst_layer


def test_the_command_line_trains_and_tests_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = "fit --model DANN --model.norm wa --data.steps_per_epoch 3 --trainer.max_epochs 1"
    gpu = "--trainer.accelerator gpu --trainer.precision 16-mixed --out run"
    assert run.main(f"{line} {gpu}".split()) == 0
    assert (
        run.main(["test", "run/last.ckpt", "--adapter", "TENT", "--trainer.accelerator", "gpu"])
        == 0
    )
    assert "wa@TENT" in capsys.readouterr().out
