"""Precision, layout and compilation: the same samples, nearly the same results, plain weights."""

import hashlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import pytorch_lightning as L
import torch
import torch.nn.functional as F
from in_process_pool import in_process
from long_cases import rest_long
from torch import nn

import run
from da.engine.components import available_methods
from da.engine.evaluation import Recorder
from da.engine.spec import RunSpec
from da.engine.trainer import MethodTrainer
from da.engine.training import train
from da.errors import UserError
from da.grids.session import Session
from da.methods.critics import domain_loss
from da.methods.dann import DANN
from da.methods.entropy_minimisation import EntropyMinimisation
from da.norms import normaliser_names
from da.ops import acceleration
from da.ops.entropy import conditional_entropy
from da.ops.seeding import seeded
from datasets.digits import Digits

ROOT = Path(__file__).parents[2]
FLAGS = {
    "plain": ("32-true", {}),
    "bf16": ("bf16-mixed", {}),
    "channels_last": ("32-true", {"channels_last": True}),
    "both": ("bf16-mixed", {"channels_last": True}),
}


class Seen(L.Callback):
    """A hash of the images and labels of every batch, training and evaluation; the losses."""

    def __init__(self):
        self.hashes, self.losses = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.note(batch.source.images, batch.source.labels, batch.target.images)
        self.losses.append(outputs["loss"].item())
        assert outputs["loss"].dtype == torch.float32

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, *args):
        self.note(batch.images, batch.labels)

    def note(self, *tensors):
        content = b"".join(x.contiguous().numpy().tobytes() for x in tensors)
        self.hashes.append(hashlib.sha256(content).hexdigest())


def fitted(method=DANN, precision="32-true", norm="bn", mode="joint", callbacks=(), **options):
    own = {"critic_width": 8} if method is DANN else {}
    module = method(
        num_classes=10, bottleneck=16, norm=norm, lr=0.01, forward_mode=mode, **own, **options
    )
    trainer = MethodTrainer(
        max_epochs=1,
        accelerator="cpu",
        precision=precision,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        limit_val_batches=1,
        callbacks=list(callbacks),
    )
    data = Digits(batch_size=8, steps_per_epoch=4, eval_batch_size=64)
    trainer.fit(module, datamodule=data)
    return module, trainer


@pytest.fixture(scope="module")
def runs():
    """Norm and flags -> what was seen, and the module at the end."""
    found = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore")
        for norm in ("bn", "wa"):
            for name, (precision, options) in FLAGS.items():
                seen = Seen()
                module, _ = fitted(precision=precision, norm=norm, callbacks=[seen], **options)
                found[norm, name] = seen, module
    return found


@pytest.mark.parametrize("norm", ["bn", "wa"])
@pytest.mark.parametrize("flags", ["bf16", "channels_last", "both"])
def test_the_flags_change_no_sample_and_hardly_the_results(runs, norm, flags):
    (plain, reference), (seen, module) = runs[norm, "plain"], runs[norm, flags]
    assert len(seen.hashes) == 4 + 4
    assert len(set(seen.hashes)) == 8
    assert seen.hashes == plain.hashes
    half = flags != "channels_last"
    assert seen.losses == pytest.approx(plain.losses, rel=0.02 if half else 1e-3)
    assert (seen.losses != plain.losses) or not half  # bfloat16 was really on
    for (name, p), q in zip(reference.named_parameters(), module.parameters(), strict=True):
        assert q.dtype == torch.float32
        assert (p - q).norm() <= (0.05 if half else 1e-3) * p.norm() + 5e-3, name


@pytest.mark.parametrize("norm", ["bn", "wa", "wa+gn", "in", "none"])
def test_channels_last_reaches_every_weight_map_and_gradient(norm):
    module = DANN(num_classes=4, bottleneck=16, critic_width=8, norm=norm, channels_last=True)
    seen = []

    def note(layer, inputs, output):
        seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(note)
    module(torch.randn(2, 3, 32, 32)).sum().backward()
    assert len(seen) >= 7
    # F.instance_norm puts its maps back in their usual order; all others keep it.
    assert all(seen) or norm == "in"
    for name, p in module.named_parameters():
        if p.ndim == 4:
            assert p.is_contiguous(memory_format=torch.channels_last), name
            assert p.grad.is_contiguous(memory_format=torch.channels_last), name


def test_weights_go_over_from_one_layout_to_the_other(tmp_path, batch):
    options = {"num_classes": 4, "bottleneck": 16, "critic_width": 8, "norm": "wa"}
    last, plain = DANN(**options, seed=1, channels_last=True), DANN(**options, seed=2)
    for one, other in ((last, plain), (plain, last)):
        torch.save(one.state_dict(), tmp_path / "state.pt")
        other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        one.eval(), other.eval()
        torch.testing.assert_close(one(batch.source.images), other(batch.source.images))
        layouts = [p.is_contiguous() for p in plain.parameters()]
        assert all(layouts)  # each keeps its own
        with torch.no_grad():
            plain.network.classifier.weight.mul_(2)


# Losses under autocast.


@pytest.mark.parametrize("scale", rest_long([1.0, 30.0], [30.0]))
@pytest.mark.parametrize("norm", rest_long(["bn", "wa"], ["wa"]))
@pytest.mark.parametrize("name", available_methods())
def test_every_loss_under_autocast_is_finite_float32_and_close(
    name, norm, scale, batch, fake_trainer
):
    kind = available_methods()[name]
    module = kind(num_classes=4, norm=norm, **{"bottleneck": 16} | dict(kind.small))
    module.prepare()
    fake_trainer(module).step = 50
    with torch.no_grad():  # large logits, as of a network that is sure
        *_, last = (m for m in module.network.classifier.modules() if isinstance(m, nn.Linear))
        last.weight.mul_(scale)
        last.bias += torch.arange(4)  # no near ties, where the predicted class would change
    source, target = (
        half._replace(views=half.views * len(views))
        for half, views in (
            (batch.source, module.needs.source_views),
            (batch.target, module.needs.target_views),
        )
    )
    batch = batch._replace(source=source, target=target)
    for step in module.steps(batch):
        with seeded("draws"):  # the same in both
            plain = step.compute()
        with seeded("draws"), torch.autocast("cpu", torch.bfloat16):
            lower = step.compute()
        assert plain.keys() == lower.keys()
        for term, loss in lower.items():
            assert loss.dtype == torch.float32
            assert torch.isfinite(loss)
            # Of fourth powers of logits (covariances, squared) the error is four times as large.
            expected = pytest.approx(plain[term].item(), rel=0.1, abs=0.02 * scale)
            assert loss.item() == expected, term
        torch.stack(list(lower.values())).sum().backward()
    for parameter in module.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


def test_the_losses_are_those_of_the_outputs_in_float32(batch, fake_trainer):
    """To the last bit: nothing after the network's outputs is computed in bfloat16."""
    module = DANN(num_classes=4, bottleneck=16, critic_width=8)
    module.prepare()
    fake_trainer(module).step = 50
    other = EntropyMinimisation(num_classes=4, bottleneck=16, diversity=0.0, trade_off=1.0)
    fake_trainer(other).step = 50
    for m in (module, other):
        m.eval()  # batch norm's running statistics stay
    with torch.autocast("cpu", torch.bfloat16):
        groups = ((batch.source.images, "source"), (batch.target.images, "target"))
        source, target = module.activations_of(*groups)
        found = module.losses(batch)
        logits = other.activations_of(*groups)[1].logits
        entropy = other.losses(batch)["entropy"]
    assert source.logits.dtype == source.features.dtype == torch.float32
    assert torch.equal(source.logits, source.logits.bfloat16().float())  # autocast was on
    assert torch.equal(found["task"], F.cross_entropy(source.logits, batch.source.labels))
    d = module.critic(torch.cat([source.features, target.features])).split([8, 8])
    assert torch.equal(found["domain"], domain_loss(*d))
    assert torch.equal(entropy, conditional_entropy(logits))


def test_evaluation_runs_in_the_trainers_precision():
    """Scores come from float32 copies; every form of batch norm is evaluated as the first is."""
    dtypes = set()

    class Watch(L.Callback):
        def setup(self, trainer, pl_module, stage):
            pl_module.network.backbone.register_forward_hook(
                lambda m, x, y: dtypes.add((m.training, y.dtype))
            )

    recorder = Recorder()
    module, _ = fitted(precision="bf16-mixed", callbacks=[Watch(), recorder])
    assert dtypes == {(True, torch.bfloat16), (False, torch.bfloat16)}
    assert {p.logits.dtype for p in module.predictions} == {torch.float32}
    assert set(recorder.history[0]["forms"]) == {"", "source-stats", "target-stats"}


# Logging.


class Told(L.Callback):
    """How often Lightning itself is told to log."""

    def __init__(self, monkeypatch):
        self.steps = []
        original = L.LightningModule.log

        def log(module, name, *args, **kwargs):
            if name == "loss/task":
                self.steps.append(module.global_step)
            return original(module, name, *args, **kwargs)

        monkeypatch.setattr(L.LightningModule, "log", log)


def test_without_a_logger_only_the_end_of_the_epoch_is_logged(monkeypatch):
    told = Told(monkeypatch)
    _, trainer = fitted(callbacks=[told])
    assert told.steps == [3]
    logged = {"loss/task", "loss/domain", "critic/accuracy", "critic/reversal"}
    assert logged <= set(trainer.callback_metrics)


def test_a_logger_gets_what_it_got_when_every_step_was_logged(monkeypatch, tmp_path):
    def metrics(folder):
        logger = L.loggers.CSVLogger(folder, name="", version="m")
        module = DANN(num_classes=10, bottleneck=16, critic_width=8, lr=0.01)
        trainer = MethodTrainer(
            max_epochs=2,
            accelerator="cpu",
            logger=logger,
            log_every_n_steps=2,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
        )
        trainer.fit(module, datamodule=Digits(batch_size=8, steps_per_epoch=5))
        return (folder / "m/metrics.csv").read_text(), dict(trainer.callback_metrics)

    told = Told(monkeypatch)
    sparing = metrics(tmp_path / "a")
    assert told.steps == [1, 3, 4, 5, 7, 9]  # every second step, and the last of each epoch
    monkeypatch.setattr(DANN, "is_read", lambda self: True)
    whole = metrics(tmp_path / "b")
    assert len(told.steps) == 6 + 10
    assert sparing == whole
    assert sparing[0].count("\n") > 4


# Compilation.


def refused_without_programs(run, tmp_path):
    """``run`` gives exit code and standard error of ``fit`` where no program is found."""
    code, error = run(["fit", "--model.compile", "true", "--out", "run"])
    assert code == 2, error
    assert error.startswith("error: compile: torch.compile needs a C++ compiler")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_without_a_compiler_one_line_before_anything_is_written(tmp_path, monkeypatch, capfd):
    from torch._inductor import cpp_builder

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = cpp_builder.cpp_compiler_search
    monkeypatch.setattr(cpp_builder, "cpp_compiler_search", found.__wrapped__)  # not its cache
    refused_without_programs(lambda argv: (run.main(argv), capfd.readouterr().err), tmp_path)


@pytest.mark.long
def test_a_real_process_without_a_compiler(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k not in ("CXX", "PATH")}

    def process(argv):
        done = subprocess.run(
            [sys.executable, ROOT / "run.py", *argv],
            cwd=tmp_path,
            env={**environment, "PATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stderr

    refused_without_programs(process, tmp_path)


def test_without_pythons_headers_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    if compiler() and "C++" in str(compiler()):
        pytest.skip("there is no C++ compiler either")
    with pytest.raises(UserError, match=f"'{tmp_path}' has no Python.h; install them"):
        DANN(num_classes=4, compile=True)


def compiler():
    try:
        acceleration.refuse_without_compiler()
    except Exception as error:
        return str(error)
    return None


needs_compiler = pytest.mark.skipif(compiler() is not None, reason=str(compiler()))


@pytest.mark.long
@pytest.mark.parametrize("norm", normaliser_names())
def test_each_part_is_one_graph_under_every_normaliser(norm, start, batch):
    module = DANN(num_classes=4, bottleneck=16, critic_width=8, norm=norm, **start(norm))
    module.prepare()
    expected = module.activations(batch.source.images)
    torch._dynamo.reset()
    for part in (*module.network.children(), module.critic):
        part.compile(backend="eager", fullgraph=True)  # an error where it would be several
    found = module.activations(batch.source.images)
    torch.testing.assert_close(found, expected)
    module.critic(found.features).sum().backward()


@pytest.mark.long
@pytest.mark.timeout(1500)
@needs_compiler
@pytest.mark.parametrize(("norm", "mode"), [("bn", "joint"), ("wa", "separate")])
def test_a_compiled_run_is_the_plain_run(norm, mode, tmp_path):
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    runs = []
    for options in ({}, {"compile": True, "channels_last": True}):
        seen, recorder = Seen(), Recorder()
        module, trainer = fitted(norm=norm, mode=mode, callbacks=[seen, recorder], **options)
        trainer.save_checkpoint(tmp_path / f"{len(options)}.ckpt")
        runs.append((seen, recorder, module))
    (plain, scores, reference), (seen, other, module) = runs
    assert seen.hashes == plain.hashes
    assert seen.losses == pytest.approx(plain.losses, rel=1e-3)
    # Four parts in training, and three of them in evaluation.
    assert counters["stats"]["unique_graphs"] >= 7
    assert not counters["graph_break"]
    assert not counters["unimplemented"]
    assert list(module.state_dict()) == list(reference.state_dict())
    for (name, p), q in zip(reference.named_parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-2, atol=1e-4, msg=name)
    for form, streams in scores.history[0]["forms"].items():
        for stream, found in streams.items():
            again = other.history[0]["forms"][form][stream]["cross_entropy"]
            assert again == pytest.approx(found["cross_entropy"], rel=1e-2)
    # What was trained compiled goes on without, with equal outputs.
    state = torch.load(tmp_path / "2.ckpt", weights_only=True)["state_dict"]
    reference.load_state_dict(state)
    images = torch.randn(5, 3, 32, 32)
    reference.eval(), module.eval()
    torch.testing.assert_close(reference(images), module(images), rtol=1e-4, atol=1e-5)


def test_a_cell_of_a_grid_takes_the_flags_into_its_identity(tmp_path):
    settings = {"data": "datasets.digits.Digits", "source": "rendered", "target": "optical"}
    settings |= {"method": "DANN", "norm": "wa", "lr": 0.05, "batch_size": 8, "epochs": 1}
    settings |= {"steps_per_epoch": 2, "seed": 0, "method_args": {"critic_width": 8}}
    fast = RunSpec(
        **settings, precision="bf16-mixed", model_args={"bottleneck": 16, "channels_last": True}
    )
    plain = RunSpec(**settings, model_args={"bottleneck": 16})
    assert len({fast.id, plain.id, RunSpec(**settings, precision="bf16-mixed").id}) == 3
    results = [train(cell, tmp_path / cell.id, lambda _: None) for cell in (fast, plain)]
    a, b = (r.evaluations[-1].forms[""]["source/test"].cross_entropy for r in results)
    assert a != b
    assert a == pytest.approx(b, rel=0.05)


def test_a_grid_of_a_precision_that_is_none_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "configs/ablations/digits.yaml").read_text()
    monkeypatch.setattr(Session, "pool", in_process)
    Path("g.yaml").write_text(text + "\nprecision: bf17-mixed\n")
    assert run.main(["ablate", "g.yaml"]) == 2
    error = capsys.readouterr().err
    assert "precision: expected one of 32-true, bf16-mixed, 16-mixed, got 'bf17-mixed'" in error
    assert error.count("\n") == 1


def test_the_help_names_the_flags(capsys):
    with pytest.raises(SystemExit):
        run.main(["fit", "--model.help", "DANN"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--model.channels_last {true,false}" in text
    assert "--model.compile {true,false}" in text
    assert "torch.compile; the first steps take a minute or more" in text


def test_fit_and_test_agree_under_all_flags(tmp_path, monkeypatch, capfd, alike):
    """A checkpoint is evaluated in the precision that it was trained in, unless told otherwise."""
    monkeypatch.chdir(tmp_path)
    options = "--data.steps_per_epoch 3 --data.batch_size 8 --trainer.max_epochs 1 --out run"
    flags = "--trainer.precision bf16-mixed --model.channels_last true"
    assert run.main(f"fit --model DANN {options} {flags}".split()) == 0
    scores = json.loads(Path("run/result.json").read_text())["evaluations"][-1]["forms"][""]
    assert run.main(["test", "run/last.ckpt", "--forms", "trained"]) == 0
    tested = json.loads(Path("run/test.json").read_text())["scores"][""]
    assert alike(tested["target/test"], scores["target/test"], 1e-6)
    full = ["--trainer.precision", "32-true", "--model.channels_last", "false"]
    assert run.main(["test", "run/last.ckpt", "--forms", "trained", *full]) == 0
    again = json.loads(Path("run/test.json").read_text())["scores"][""]["target/test"]
    assert again["cross_entropy"] != scores["target/test"]["cross_entropy"]
    assert again["cross_entropy"] == pytest.approx(scores["target/test"]["cross_entropy"], rel=0.02)
