import copy
import csv
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import run
from da.analysis.training_scales import ScaleRecorder, Scales, dependence
from da.engine.training import Training
from da.methods.critics import domain_loss
from da.methods.dann import DANN
from da.methods.source_only import SourceOnly
from da.methods.updates import UpdatingModule
from da.ops.clipping import GRADIENT_CLIP_VAL
from da.types import Segment

FEW = [
    *("--data.steps_per_epoch", "3", "--trainer.max_epochs", "1", "--data.batch_size", "4"),
    *("--model.bottleneck", "8", "--trainer.accelerator", "cpu"),
]
AT_CRITIC = "critic_input_gradient"
ADVERSARIAL = ["--model", "DANN", "--model.critic_width", "8", *FEW]


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """Runs ``inspect training``; gives the rows of the table by training, and what it said."""
    monkeypatch.chdir(tmp_path)

    def run_it(*words):
        capfd.readouterr()
        assert run.main(["inspect", "training", *words]) == 0
        said = capfd.readouterr().out
        rows = {}
        with (tmp_path / "runs/training/training.csv").open() as file:
            for row in csv.DictReader(file):
                rows.setdefault(row["training"], []).append(row)
        for kind in ("png", "svg"):
            assert (tmp_path / f"runs/training/training.{kind}").stat().st_size > 1000
        return rows, said

    return run_it


def test_every_step_of_every_training_is_measured(call):
    rows, said = call(*ADVERSARIAL, "--norms", "bn,wa", "--clip", "off,1e-3")
    names = [
        f"{norm}, {how}" for norm in ("bn", "wa") for how in ("not clipped", "clipped at 0.001")
    ]
    assert list(rows) == names
    for name, steps in rows.items():
        assert [row["step"] for row in steps] == ["1", "2", "3"]
        assert all(float(row["features"]) > 0 for row in steps)
        assert all(float(row["gradient"]) > 0 for row in steps)
        # Measured before the reversal, whose strength is 0 at the first step.
        assert float(steps[0]["critic_input_gradient"]) > 0
        assert float(steps[0]["gain"]) == pytest.approx(1, abs=1e-3)
        assert f"{name}: done; at the end: step 3" in said
    # The gradient is measured before it is clipped, and clipping changes what follows.
    for norm in ("bn", "wa"):
        free, clipped = rows[f"{norm}, not clipped"], rows[f"{norm}, clipped at 0.001"]
        assert free[0] == {**clipped[0], "training": free[0]["training"]}
        assert free[2]["features"] != clipped[2]["features"]


@pytest.mark.long
def test_both_domains_count_whether_they_are_forwarded_together_or_one_by_one(call):
    first = {}
    for mode in ("joint", "separate"):
        (rows,) = call(*ADVERSARIAL, "--model.norm", "wa", "--model.forward_mode", mode)[0].values()
        first[mode] = [float(rows[0][key]) for key in ("features", "critic", AT_CRITIC)]
    assert first["separate"] == pytest.approx(first["joint"], rel=1e-4)


@pytest.mark.long
def test_the_sources_logits_depend_on_the_target_beside_it_with_batch_norm_alone(call):
    rows, _ = call(*ADVERSARIAL, "--norms", "bn,wa")
    bn, wa = ([float(row["batch_dependence"]) for row in steps] for steps in rows.values())
    assert min(bn) > 1e-4
    assert max(wa) < 1e-9
    (alone,) = call(*ADVERSARIAL, "--model.forward_mode", "separate")[0].values()
    assert {row["batch_dependence"] for row in alone} == {""}


def test_asking_what_the_source_alone_gives_changes_nothing(batch):
    module = DANN(num_classes=4, bottleneck=8, critic_width=8)
    network = module.network
    network.bottleneck.append(nn.Dropout(0.5))
    images = torch.cat([batch.target.images, batch.source.images])
    domains = (Segment("target", 8), Segment("source", 8))
    logits = network(images, domains).logits
    before = copy.deepcopy(network.state_dict())
    torch.manual_seed(0)
    found = dependence(network, images, domains, logits)
    drawn = torch.rand(3)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(3))
    torch.manual_seed(0)
    assert torch.equal(found, logits[8:] - network(batch.source.images, "source").logits)
    assert not found.requires_grad


@pytest.mark.parametrize(
    ("norm", "clip"),
    [
        ("wa", "1e-3"),
        pytest.param("bn", "off", marks=pytest.mark.long),
        pytest.param("wa", "off", marks=pytest.mark.long),
        pytest.param("bn", "1e-3", marks=pytest.mark.long),
    ],
)
def test_the_gradient_is_that_of_the_update_where_batches_are_averaged(
    call, monkeypatch, norm, clip
):
    actual, update = [], UpdatingModule._clip

    def clip_and_note(self):
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        actual.append(torch.nn.utils.get_total_norm(gradients).item())
        update(self)

    monkeypatch.setattr(UpdatingModule, "_clip", clip_and_note)
    rows, _ = call(
        *(*ADVERSARIAL, "--model.norm", norm, "--clip", clip),
        *("--trainer.accumulate_grad_batches", "2"),
    )
    (steps,) = rows.values()
    assert [float(row["gradient"]) for row in steps] == pytest.approx(actual, rel=1e-5)
    assert len(actual) == 2  # of three batches


def test_the_gradient_at_the_critic_is_that_of_the_loss_itself_though_float16_scales_it():
    found = []
    for scale in (1.0, 1024.0):
        scaler = SimpleNamespace(get_scale=lambda scale=scale: scale)
        plugin = SimpleNamespace(scaler=scaler if scale > 1 else None)
        module = DANN(num_classes=4, task="a->b", bottleneck=8, critic_width=8).train()
        module.build()
        scales = Scales("one")
        recorder = ScaleRecorder(scales)
        recorder.on_train_start(SimpleNamespace(precision_plugin=plugin), module)
        x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
        loss = domain_loss(*module.critic(x).chunk(2))
        (scale * loss).backward()
        for look in module.before_clipping:
            look()
        found.append(scales.rows[0][AT_CRITIC])
        assert found[-1] == pytest.approx(x.grad.norm().item() / scale)
    assert found[0] == pytest.approx(found[1])


def test_one_training_as_fit_would_make_it_without_a_critic(call):
    rows, _ = call("--model", "SourceOnly", "--model.norm", "wa", *FEW)
    (name,) = rows
    assert name == f"wa, clipped at {GRADIENT_CLIP_VAL:g}"
    assert {row["critic"] for row in rows[name]} == {""}


def test_a_training_that_diverges_is_drawn_to_its_end(call):
    rows, said = call(
        *("--model", "SourceOnly", "--model.norm", "none", "--model.lr", "1e30"),
        *(*FEW, "--clip", "off"),
    )
    assert 0 < len(rows["none, not clipped"]) < 3
    assert "none, not clipped: diverged: the loss at step" in said


def test_a_training_whose_very_first_loss_is_not_finite_is_said(call, monkeypatch, refused_words):
    def task_loss(self, source, labels):
        return source.logits.sum() * (float("nan") if self.hparams["norm"] == "wa" else 1)

    monkeypatch.setattr(SourceOnly, "task_loss", task_loss)
    rows, said = call("--model", "SourceOnly", "--norms", "bn,wa", *FEW)
    (name,) = rows
    assert name.startswith("bn, ")
    assert "wa, clipped at 5: diverged: the loss at step 0 is not finite" in said
    assert said.count("; at the end: no step") == 1
    alone = refused_words("inspect", "training", "--model", "SourceOnly", "--norms", "wa", *FEW)
    assert alone.startswith("no step could be measured: diverged: the loss at step 0")


def test_what_only_one_normaliser_refuses_is_said_before_another_is_trained(
    refused_words, monkeypatch
):
    monkeypatch.setattr(Training, "run", lambda *_, **__: pytest.fail("a training began"))
    options = ("inspect", "training", *FEW, "--norms")
    said = refused_words(*options, "wa,bn", "--model.norm_options", "{gain: auto}")
    assert "unknown option of bn 'gain'" in said
    assert "norm 'folded' is made of the statistics" in refused_words(*options, "wa,folded")


def test_what_is_wrong_is_one_line(refused_words):
    said = refused_words("inspect", "training", "--clip", "5,-1")
    assert said == "clip: expected numbers above 0 or off, as in off,5; got '-1'"
    assert "clip: expected numbers" in refused_words("inspect", "training", "--clip", "much")
    assert "unknown normaliser 'wb'" in refused_words("inspect", "training", "--norms", "wb")
    said = refused_words("inspect", "training", "--trainer.profiler", "simple")
    assert "trainer.profiler: inspect training keeps nothing but its figure and table" in said
    assert "trainer.devices" in refused_words("inspect", "training", "--trainer.devices", "2")
