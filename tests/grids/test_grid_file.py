import hashlib

import pytest
import torch
from refusing import refused

from da.cli import ablate, tune
from da.engine.spec import TrainerSettings
from da.errors import UserError
from da.grids.grid import Grid, Tune, root
from da.grids.grid_file import WrongSettings, find_config, numbers, own_table, read_grid
from da.grids.overrides import Override
from da.grids.setting_keys import documented_keys
from da.grids.statistics_study import is_study
from da.grids.training_keys import Optimizer
from da.grids.weights_hash import hash_weights
from da.ops.clipping import GRADIENT_CLIP_VAL

BASE = """
data: x.Y
methods: [M, {methods}]
norms: [bn, wa]
seeds: [0, 1]
epochs: 3
steps_per_epoch: 10
lr: published
published_lr: 1e-2
"""


def written(tmp_path, change=lambda text: text):
    path = tmp_path / "g.yaml"
    path.write_text(change(BASE.replace("{methods}", "N")))
    return path


def test_a_grid_is_read(tmp_path):
    grid = read_grid(written(tmp_path), {})
    assert grid.published_lr == 0.01
    assert grid.norms == {"bn": {}, "wa": {}}
    assert grid.lr == ("published",)


def test_the_command_line_replaces_and_keeps_options(tmp_path):
    path = written(tmp_path, lambda t: t.replace("[bn, wa]", "{bn: {single_image: true}, wa: }"))
    grid = read_grid(path, {"norms": ["bn", "gn"], "seeds": [0], "tasks": None})
    assert grid.norms == {"bn": {"single_image": True}, "gn": {}}
    assert grid.seeds == (0,)


def test_a_normaliser_that_the_command_line_leaves_out_is_not_compared(tmp_path):
    more = "challenger: wa\nbaselines: [bn, bn@target-stats, gn]\n"
    path = written(tmp_path, lambda t: t.replace("[bn, wa]", "[bn, wa, gn]") + more)
    assert read_grid(path, {"norms": ["wa", "gn"]}).baselines == ("gn",)
    assert read_grid(path, {"norms": ["wa"]}).baselines is None
    assert read_grid(path, {"norms": ["bn"]}).challenger is None
    path = written(tmp_path, lambda t: t + "baselines: [nb]\n")
    with pytest.raises(WrongSettings, match="unknown normaliser of the grid under baselines 'nb'"):
        read_grid(path, {"norms": ["bn"]})


def test_names_like_no_stay_names(tmp_path):
    path = written(tmp_path, lambda t: t.replace("[bn, wa]", "[no, off]"))
    assert list(read_grid(path, {}).norms) == ["no", "off"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("norms:", "nroms:", "unknown setting 'nroms'; did you mean 'norms'? One of: "),
        ("[bn, wa]", "[bn, true]", "norms: a name is expected, got True: put it in quotes"),
        ("[bn, wa]", "[bn, wa: {gain: auto}]", "norms: names with options can't stand in a list"),
        ("[bn, wa]", "[bn, bn]", "norms: names given twice: bn"),
        ("[bn, wa]", "{bn: {single_image: no}}", "single_image: no is a name in YAML 1.2"),
        ("epochs: 3", "epochs: many", "epochs: expected a whole number above 0, got 'many'"),
        ("epochs: 3\n", "", "epochs: missing: expected a whole number above 0"),
        ("steps_per_epoch: 10\n", "", "give one of steps_per_epoch and samples"),
        ("steps_per_epoch: 10", "samples: 100", "100 is not a multiple of batch size 32 x 3"),
        ("seeds: [0, 1]", "sweep: {model.channels_last: [off]}", "channels_last: off is a name"),
        (
            "seeds: [0, 1]",
            "precision: bf16-true",
            "precision: expected one of 32-true, bf16-mixed, 16-mixed, got 'bf16",
        ),
        ("seeds: [0, 1]", "precision: 16-mixed", "16-mixed needs a GPU; on a cpu give bf16-mixed"),
        ("lr: published", "lr: best", "got 'best'"),
        ("seeds: [0, 1]", "seeds: [100]", "tune.seeds must be outside the table's seeds"),
        ("seeds: [0, 1]", "sweep: {size: [1]}", "'size' is not lr, batch_size, model.<arg"),
        ("lr: published", "sweep: {lr: [0]}", "sweep: lr: expected a number above 0, got 0"),
        ("seeds: [0, 1]", "sweep: {lr: [1]}", "sweep: lr is swept, and the grid has a key lr"),
        ("seeds: [0, 1]", "sweep: {batch_size: [1.5]}", "expected a whole number above 0, got 1.5"),
        (
            "seeds: [0, 1]",
            "sweep: {trainer.gradient_clip_val: [-1]}",
            "sweep: trainer.gradient_clip_val: expected a number above 0, got -1",
        ),
        (
            "seeds: [0, 1]",
            "sweep: {trainer.gradient_clip: [1]}",
            "unknown option of trainer 'gradient_clip'; did you mean 'gradient_clip_val'",
        ),
        ("seeds: [0, 1]", "tasks: [a-b]", "a task is written source->target, got 'a-b'"),
        (
            "seeds: [0, 1]",
            "tune: {sedes: [5]}",
            "unknown setting of tune 'sedes'; did you mean 'seeds'",
        ),
        ("seeds: [0, 1]", "seeds: [0\n", "broken YAML"),
        ("seeds: [0, 1]", "epochs: 4", "'epochs' is given twice"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, old, new, message):
    path = written(tmp_path, lambda text: text.replace(old, new))
    with pytest.raises(UserError) as error:
        read_grid(path, {})
    text = str(error.value)
    assert message in text
    assert "\n" not in text
    assert text.startswith(str(path))


def test_configurations_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config("configs/ablations/digits.yaml").is_file()
    with pytest.raises(UserError, match=r"no such configuration: x\.yaml; .*digits\.yaml"):
        find_config("x.yaml")


PRESETS = sorted((root() / "configs/ablations").glob("*.yaml"))


@pytest.mark.parametrize("path", [path for path in PRESETS if not is_study(path)], ids=str)
def test_every_preset_is_a_grid(path):
    grid = read_grid(path, {})
    for point in grid.points():
        batch_size = point.get("batch_size", grid.batch_size)
        if grid.samples:
            assert grid.steps(batch_size) * batch_size * grid.epochs == grid.samples


def test_the_batch_size_rule():
    grid = read_grid(root() / "configs/ablations/batch_size.yaml", {})
    assert grid.scaled_rate(64, grid.published_lr) == pytest.approx(2 * grid.published_lr)
    assert grid.scaled_rate(1, grid.published_lr) == pytest.approx(grid.published_lr / 32)


@pytest.mark.parametrize("where", ["model: {conversion: off}", "sweep: {model.conversion: [off]}"])
def test_off_is_the_name_of_a_conversion(tmp_path, where):
    grid = read_grid(written(tmp_path, lambda text: text + where), {})
    (point,) = grid.points()
    assert grid.cell("a->b", "M", "wa", point, 0, 0.01).model_args == {"conversion": "off"}


def test_weights_are_known_by_their_content(tmp_path):
    file = tmp_path / "w.pth"
    file.write_bytes(b"one")
    grid = read_grid(written(tmp_path, lambda t: t + f"model: {{weights: {file}}}\n"), {})
    first = grid.cell("a->b", "M", "wa", {}, 0, 0.1)
    assert first.weights_content == hashlib.sha256(b"one").hexdigest()
    assert first.model_args == {"weights": str(file)}
    file.write_bytes(b"other")
    assert grid.cell("a->b", "M", "wa", {}, 0, 0.1).id != first.id
    file.unlink()
    assert grid.cell("a->b", "M", "wa", {}, 0, 0.1).weights_content is None


def test_a_checkpoint_of_ours_is_known_by_what_is_taken_of_it_too(tmp_path):
    content = {"state_dict": {"network.backbone.weight": torch.zeros(1)}, "classes": ["a", "b"]}
    torch.save(content, tmp_path / "elsewhere.ckpt")
    torch.save({**content, "spec": {"norm": "bn", "norm_options": {}}}, tmp_path / "ours.ckpt")
    plain = {
        name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        for name in ("elsewhere.ckpt", "ours.ckpt")
    }
    assert hash_weights(str(tmp_path / "elsewhere.ckpt")) == plain["elsewhere.ckpt"]
    assert hash_weights(str(tmp_path / "ours.ckpt")) not in (None, plain["ours.ckpt"])


def several(tmp_path, text):
    """The lines that a file is refused with, without its name."""
    (tmp_path / "g.yaml").write_text(text)
    with pytest.raises(WrongSettings) as caught:
        read_grid(tmp_path / "g.yaml", {})
    assert str(caught.value).splitlines() == [
        f"{tmp_path / 'g.yaml'}: {line}" for line in caught.value.problems
    ]
    return caught.value.problems


def test_all_that_is_wrong_with_a_file_is_said_at_once(tmp_path):
    text = BASE.replace("{methods}", "N").replace("epochs: 3", "epochs: many")
    text = text.replace("seeds:", "seed:").replace("[bn, wa]", "[bn, bn]")
    text += "challenger: gn\nbatch_size: 0\ntune: {factors: [0], seeds: [0]}\n"
    text += "overrides: [{methods: M, lr: -1}]\nprecision: 16-mixed\n"
    lines = several(tmp_path, text)
    for start in (
        "norms: names given twice: bn",
        "batch_size: expected a whole number above 0, got 0",
        "epochs: expected a whole number above 0, got 'many'",
        "tune.factors.0: expected a number above 0, got 0",
        "overrides.0.lr: expected a number above 0, got -1",
        "unknown setting 'seed'; did you mean 'seeds'? One of: ",
        "precision: 16-mixed needs a GPU",
    ):
        assert len([line for line in lines if line.startswith(start)]) == 1, (start, lines)
    assert len(lines) == 7, lines  # not what depends on the normalisers, which are wrong themselves


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (
            "challenger: gn",
            "unknown normaliser of the grid under challenger 'gn'; did you mean 'bn'? One",
        ),
        ("baselines: [bn, ln]", "unknown normaliser of the grid under baselines 'ln'"),
        ("baselines: bn@target-stat", "unknown form of bn 'target-stat'; did you mean 'target-"),
        ("forms: false\nbaselines: bn@target-stats", "is not evaluated with forms: false"),
        ("challenger: bn\nbaselines: bn", "'bn' is one of the baselines"),
        ("model: {momentum: 0}\noptimizer: {momentum: 0}", "optimizer.momentum and model.momentum"),
        (
            "gradient_clip_val: 1\ntrainer: {gradient_clip_val: 1}",
            "trainer.gradient_clip_val: give",
        ),
        ("optimizer: adagrad", "optimizer.name: expected one of sgd, adam, adamw, got 'adagrad'"),
        ("trainer: {max_epochs: 3}", "trainer.max_epochs: the grid has a key of its own for it, e"),
        ("optimizer: {lr: 3}", "optimizer.lr: the grid has a key of its own for it, lr"),
        ("trainer: {max_epoch: 3}", "unknown setting of trainer 'max_epoch'"),
        ("logger: tensorbord", "expected one of csv, tensorboard, wandb, mlflow, got 'tensorbord'"),
        ("batch_size: true", "batch_size: got true; put it in quotes if it is a name"),
        ("model: {1: 2}", "model: a key is a name, got 1; put it in quotes"),
        ("data_args: {size: .inf}", "data_args.size: expected a finite number, got inf"),
        ("samples: 99999999999999999999", "samples: expected a number of at most 18 digits"),
    ],
)
def test_new_keys_are_checked(tmp_path, more, problem):
    lines = several(tmp_path, BASE.replace("{methods}", "N") + more + "\n")
    assert any(problem in line for line in lines), lines


def cell_of(tmp_path, more, method="M"):
    (tmp_path / "g.yaml").write_text(BASE.replace("{methods}", "N") + more)
    grid = read_grid(tmp_path / "g.yaml", {})
    # As it is stored and read again.
    grid = type(grid).model_validate_json(grid.model_dump_json())
    return grid.cell("a->b", method, "bn", {}, 0, grid.rate("a->b", method, {}, grid.rows[0]))


def test_optimiser_and_trainer_of_a_grid_and_of_some_of_its_methods(tmp_path):
    more = """
optimizer: {name: adam, weight_decay: 0.1, anneal_alpha: 0}
gradient_clip_val: 2
trainer: {accumulate_grad_batches: 3, check_val_every_n_epoch: 2}
overrides:
  - {methods: N, optimizer: {weight_decay: 0}, gradient_clip_val: null, trainer: {max_steps: 5}}
"""
    cell = cell_of(tmp_path, more)
    assert cell.model_args == {"optimizer": "adam", "weight_decay": 0.1, "anneal_alpha": 0}
    changed = {"accumulate_grad_batches": 3, "check_val_every_n_epoch": 2}
    assert cell.trainer.changed() == {"gradient_clip_val": 2.0, **changed}
    other = cell_of(tmp_path, more, "N")
    assert other.model_args == {"optimizer": "adam", "weight_decay": 0, "anneal_alpha": 0}
    assert other.trainer.changed() == {"max_steps": 5, "gradient_clip_val": None, **changed}


def test_gradients_are_clipped_unless_a_grid_says_otherwise(tmp_path):
    assert cell_of(tmp_path, "").trainer.gradient_clip_val == GRADIENT_CLIP_VAL
    assert cell_of(tmp_path, "gradient_clip_val: null\n").trainer.gradient_clip_val is None
    within = cell_of(tmp_path, "trainer: {gradient_clip_val: null}\n")
    assert within.trainer.changed() == {"gradient_clip_val": None}
    assert within.id != cell_of(tmp_path, "").id


def test_rates_limits_and_arguments_of_methods_are_swept(tmp_path):
    more = """
sweep:
  lr: [0.1, 1]
  trainer.gradient_clip_val: [null, 2]
  method.trade_off: [0.5]
overrides:
  - {methods: N, trainer: {max_steps: 5}}
"""
    text = BASE.replace("{methods}", "N").replace("lr: published\npublished_lr: 1e-2", "")
    (tmp_path / "g.yaml").write_text(text + more)
    grid = read_grid(tmp_path / "g.yaml", {})
    grid = type(grid).model_validate_json(grid.model_dump_json())
    assert grid.rows == ("given",)
    cells = [
        grid.cell("a->b", "N", "bn", point, 0, grid.rate("a->b", "N", point, "given"))
        for point in grid.points()
    ]
    found = [(cell.lr, cell.trainer.gradient_clip_val, cell.method_args) for cell in cells]
    assert found == [(lr, clip, {"trade_off": 0.5}) for lr in (0.1, 1.0) for clip in (None, 2.0)]
    assert {cell.trainer.max_steps for cell in cells} == {5}
    assert len({cell.id for cell in cells}) == 4


@pytest.mark.parametrize(
    ("key", "override"),
    [
        ("lr: [1]", "lr: 2"),
        ("trainer.max_steps: [1]", "trainer: {max_steps: 2}"),
        ("model.momentum: [0]", "optimizer: {momentum: 0.5}"),
    ],
)
def test_what_is_swept_is_not_overridden(tmp_path, key, override):
    text = BASE.replace("{methods}", "N").replace("lr: published\npublished_lr: 1e-2", "lr: tuned")
    more = f"published_lr: 1\nsweep: {{{key}}}\noverrides: [{{methods: N, {override}}}]\n"
    (tmp_path / "g.yaml").write_text(text + more)
    with pytest.raises(UserError, match=f"overrides.0: {key.partition(':')[0]} is swept"):
        read_grid(tmp_path / "g.yaml", {})


def test_weights_of_the_command_line_are_the_backbones(tmp_path):
    text = BASE.replace("{methods}", "N") + "model: {backbone: resnet18, weights: imagenet}\n"
    (tmp_path / "g.yaml").write_text(text)
    grid = read_grid(tmp_path / "g.yaml", {"weights": "my.pth", "root": "photos"})
    assert grid.model == {"backbone": "resnet18", "weights": "my.pth"}
    assert grid.data_args == {"root": "photos"}
    (tmp_path / "g.yaml").write_text(text + "sweep: {model.weights: [imagenet, null]}\n")
    with pytest.raises(UserError, match=r"--weights: the grid sweeps model\.weights; leave"):
        read_grid(tmp_path / "g.yaml", {"weights": "my.pth"})


def test_a_name_is_enough_for_an_optimiser(tmp_path):
    assert cell_of(tmp_path, "optimizer: adamw\n").model_args == {"optimizer": "adamw"}


def test_a_rate_of_the_user_is_a_row_of_its_own_and_needs_no_published_one(tmp_path):
    text = BASE.replace("{methods}", "N").replace("lr: published\npublished_lr: 1e-2", "lr: 0.5")
    (tmp_path / "g.yaml").write_text(text + "overrides: [{methods: N, lr: 0.25}]\n")
    grid = read_grid(tmp_path / "g.yaml", {})
    assert grid.rows == ("given",)
    rates = [grid.rate("a->b", method, {}, "given") for method in ("M", "N")]
    assert rates == [0.5, 0.25]
    for_all = read_grid(tmp_path / "g.yaml", {"lr": [0.1]})  # the command line's is that of all
    assert [for_all.rate("a->b", method, {}, "given") for method in ("M", "N")] == [0.1, 0.1]
    refused(lambda: grid.rate("a->b", "M", {}, "published"), "published_lr: missing")
    assert "lr: give one number at most" in several(tmp_path, text.replace("0.5", "[0.5, 1]"))[0]


def test_scores_are_those_of_the_cells_and_the_one_that_selects_is_among_them(tmp_path):
    cell = cell_of(tmp_path, "scores: NegativeEntropy\nscore: x.Mine\n")
    assert cell.scores == ("NegativeEntropy", "x.Mine")


def test_a_slip_in_a_range_of_seeds_is_refused_and_takes_no_memory():
    assert numbers("0-9999")[-1] == 9_999
    for text in ("0-9999999999", "5,1-10000"):
        refused(lambda text=text: numbers(text), "at most 10,000 whole numbers, got", text)


@pytest.mark.parametrize("model", [Grid, Override, Optimizer, Tune, TrainerSettings])
def test_every_key_is_documented(model):
    keys = list(documented_keys(model))
    assert {key.name.partition(".")[0] for key in keys} == set(model.model_fields)
    assert not [key.name for key in keys if len(key.meaning) < 8 or key.kind == "a value"]


def test_help_lists_every_key_with_its_default(capsys):
    for command in (ablate, tune):
        with pytest.raises(SystemExit) as caught:
            command.main(["--help", "keys"])
        assert caught.value.code == 0
        said = capsys.readouterr().out
        for key in documented_keys(Grid):
            assert f"\n{key.name}: {key.kind} (" in said
        assert "batch_size: a whole number above 0 (default: 32)\n    Images of each" in said
        assert "epochs: a whole number above 0 (must be given)" in said


def test_rates_that_were_tuned_here_go_before_those_that_were_installed(tmp_path, monkeypatch):
    library, here = (tmp_path / "library").resolve(), tmp_path / "here"
    (library / "configs" / "ablations").mkdir(parents=True)
    here.mkdir()
    path = written(library / "configs" / "ablations", lambda text: text + "tuned: ../t.yaml\n")
    monkeypatch.setattr("da.grids.grid_file.INSTALLED", True)
    monkeypatch.setattr("da.grids.grid_file.root", lambda: library)
    monkeypatch.chdir(here)
    table, own = library / "configs" / "t.yaml", (here / "configs" / "t.yaml").resolve()
    assert read_grid(path, {}).tuned == str(table)
    assert own_table(table) == own  # where tune writes: never into an installed library
    own.parent.mkdir()
    own.write_text("", encoding="utf-8")
    assert read_grid(path, {}).tuned == str(own)
    assert own_table(here / "mine.yaml") == here / "mine.yaml"
