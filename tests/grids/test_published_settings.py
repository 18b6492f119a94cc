"""Every number of the published settings, written out a second time, for every method in them."""

import pytest

from da.engine.components import available_methods, find_data
from da.grids.grid_file import read_grid
from da.reports.references import config, published, read

COMMON = {"momentum": 0.9, "decay": "all", "anneal_beta": 0.75, "horizon": 10_000}
PRETRAINED = {"weights": "imagenet", "pretrained_factor": 0.1, "forward_mode": "joint"}
SQUARE = {"resize": 256, "keep_aspect": False, "flip": True}
# Rate, gamma, weight decay, bottleneck; of EntropyMinimisation they are DANN's, by our choice.
ERM, ADVERSARIAL = (1e-3, 3e-4, 5e-4, None), (1e-2, 1e-3, 1e-3, 256)
CRITIC = {"trade_off": 1, "reversal_maximum": 1, "reversal_gamma": 10, "critic_width": 1024}

# Per benchmark: network, batch, preparation of images, and the lengths of either kind of method.
BENCHMARKS = {
    "office31": ("resnet50", 32, SQUARE | {"crop": "random_resized"}, (5, 500), (20, 1000)),
    "visda": ("resnet101", 32, SQUARE | {"crop": "centre"}, (20, 1000), (30, 1000)),
}
ENTROPY = {"office31": 0.1, "visda": 0.1, "digits": 0.03}
DIGITS = {"svhn->mnist": (0.01, "dtn", 32), "mnist->usps": (0.01, "lenet", 28),
          "usps->mnist": (0.1, "lenet", 28)}  # fmt: skip
TASKS = {
    "office31": {"A→W", "D→W", "W→D", "A→D", "D→A", "W→A"},
    "visda": {"Synthetic→Real"},
    "digits": {"S→M", "M→U", "U→M"},
}


def cells(name):
    """One cell of each method on each task."""
    grid = read_grid(config(name), {})
    assert (grid.seeds, grid.norms, grid.lr) == ((0, 1, 2), {"bn": {}}, ("published",))
    return [
        grid.cell(task, method, "bn", {}, 0, grid.rate(task, method, {}))
        for task in grid.tasks
        for method in grid.methods
    ]


@pytest.mark.parametrize("name", published())
def test_the_methods_have_published_or_chosen_settings_on_the_published_tasks(name):
    grid = read_grid(config(name), {})
    assert set(grid.methods) <= set(available_methods())
    data = find_data(grid.data)
    pairs = (task.split("->") for task in grid.tasks)
    named = {"→".join(data.symbols[domain] for domain in pair) for pair in pairs}
    assert named == TASKS[name] == set(data.tasks())
    own = {cell.method: cell.method_args for cell in cells(name)}
    assert own == {
        "SourceOnly": {},
        "DANN": CRITIC,
        "EntropyMinimisation": {"trade_off": ENTROPY[name], "diversity": 0},
    }


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_numbers_of_the_benchmarks_of_photographs(name):
    network, batch, images, short, long = BENCHMARKS[name]
    for cell in cells(name):
        erm = cell.method == "SourceOnly"
        lr, gamma, decay, bottleneck = ERM if erm else ADVERSARIAL
        assert (cell.lr, cell.batch_size) == (lr, batch)
        assert (cell.epochs, cell.steps_per_epoch) == (short if erm else long)
        alpha = pytest.approx(gamma * 10_000)
        own = {"backbone": network, "bottleneck": bottleneck, "weight_decay": decay}
        assert cell.model_args == COMMON | PRETRAINED | own | {"anneal_alpha": alpha}
        workers = {"num_workers": 4}
        assert cell.data_args == images | workers


def test_the_numbers_of_the_digits():
    for cell in cells("digits"):
        lr, network, size = DIGITS[cell.task]
        assert (cell.lr, cell.batch_size) == (lr, 128)
        assert (cell.epochs, cell.steps_per_epoch) == (10, 2500)
        own = {"backbone": network, "forward_mode": "joint", "weight_decay": 1e-3}
        own["bottleneck"] = None if cell.method == "SourceOnly" else 256
        assert cell.model_args == COMMON | own | {"anneal_alpha": 10}
        assert cell.data_args == {"image_size": size}


@pytest.mark.parametrize("name", published())
def test_what_each_published_number_is_of(name):
    """Whose numbers ours are compared with, and at which epoch."""
    ours = [r for r in read(name) if r.ours]
    assert {r.method: r.ours for r in ours} == (
        {"source only": "SourceOnly", "DANN": "DANN"}
        if name == "digits"
        else {"ERM": "SourceOnly", "DANN": "DANN"}
    )
    assert {r.selection for r in ours} == {"not stated" if name == "digits" else "oracle"}
    places = [(r.ours, r.task, r.metric) for r in ours]
    assert len(places) == len(set(places))  # one number each, or the first would be taken
    if name == "visda":
        assert {r.note for r in ours} == {"epoch chosen by the sample mean"}
