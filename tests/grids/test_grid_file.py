import hashlib

import pytest

from da.errors import UserError
from da.grids.grid import root
from da.grids.grid_file import find, read_grid

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


def test_names_like_no_stay_names(tmp_path):
    path = written(tmp_path, lambda t: t.replace("[bn, wa]", "[no, off]"))
    assert list(read_grid(path, {}).norms) == ["no", "off"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("norms:", "nroms:", "unknown setting 'nroms'; did you mean 'norms'? One of: "),
        ("[bn, wa]", "[bn, true]", "norms: a name is expected, got True: put it in quotes"),
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
        ("seeds: [0, 1]", "sweep: {size: [1]}", "'size' is not batch_size or model.<argument>"),
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
    assert find("configs/ablations/digits.yaml").is_file()
    with pytest.raises(UserError, match=r"no such configuration: x\.yaml; .*digits\.yaml"):
        find("x.yaml")


@pytest.mark.parametrize("path", sorted((root() / "configs/ablations").glob("*.yaml")), ids=str)
def test_every_preset_is_a_grid(path):
    grid = read_grid(path, {"lr": ["published"]})
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
