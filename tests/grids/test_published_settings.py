"""Every number of the published settings, written out a second time, for every method in them."""

import re
from typing import Any

import pytest
from long_cases import rest_long

from da.cli._published import settings
from da.engine.components import available_methods, find_data
from da.grids.grid import root
from da.grids.grid_file import read_grid
from da.reports.references import config, published, read

COMMON = {"momentum": 0.9, "decay": "all", "anneal_beta": 0.75}
SQUARE = {"resize": 256, "keep_aspect": False, "flip": True, "num_workers": 4}
ADVERSARY = {"reversal_maximum": 1, "reversal_gamma": 10, "critic_width": 1024}
DANN = ADVERSARY | {"trade_off": 1}
TARGET_ADVERSARY = ADVERSARY | {"reversal_maximum": 2}  # ADDA's
MDD = {"trade_off": 1, "margin": 4, "reversal_maximum": 0.1, "reversal_gamma": 10}
DAN, JAN = ({"trade_off": 1, "estimator": name} for name in ("linear", "full"))
CORAL = {"trade_off": 10, "layer": "features"}
SHOT = {"pseudo_labels": 0.3, "label_smoothing": 0.1}
BSPCDAN = DANN | {"penalty": 2e-4, "entropy_conditioning": True}

#: Methods whose domains pass one at a time; ADDA's critic sees both.
SEPARATE = {"DAN", "DeepCORAL", "AFN", "FixMatch"}
#: Methods whose backbone has the rate of the heads.
ONE_RATE = {"MCD", "AFN"}

Row = tuple[float, float, float, int | None, int, int, int, dict[str, Any]]

# Of each method: rate, gamma, weight decay, bottleneck, epochs, steps of each, batch, own options.
# Rates of the digits are those of MNIST to USPS, the others follow below.
SETTINGS: dict[str, dict[str, Row]] = {
    "office31": {
        "SourceOnly": (1e-3, 3e-4, 5e-4, None, 5, 500, 32, {}),
        "DANN": (1e-2, 1e-3, 1e-3, 256, 20, 1000, 32, DANN),
        "CDAN": (1e-2, 1e-3, 1e-3, 256, 20, 1000, 32, DANN),
        "CDANE": (1e-2, 1e-3, 1e-3, 256, 20, 1000, 32, DANN),
        "MCC": (5e-3, 1e-3, 1e-3, 1024, 20, 500, 36, {"trade_off": 1, "temperature": 2.5}),
        "ADDA": (1e-3, 3e-4, 1e-3, 256, 23, 1000, 32, TARGET_ADVERSARY | {"source_share": 0.15}),
        "BSP": (3e-3, 1e-3, 1e-3, 256, 20, 1000, 32, DANN | {"penalty": 2e-4}),
        "BSPCDAN": (3e-3, 1e-3, 1e-3, 256, 20, 1000, 32, BSPCDAN),
        "DAN": (3e-3, 3e-4, 5e-4, 256, 20, 500, 32, DAN),
        "JAN": (3e-3, 3e-4, 5e-4, 256, 20, 500, 32, JAN),
        "DeepCORAL": (3e-3, 3e-4, 5e-4, 256, 20, 500, 32, CORAL),
        "MCD": (1e-3, 0, 5e-4, 1024, 20, 500, 32,
                {"trade_off": 10, "generator_steps": 4, "balance": 0.01}),
        "AFN": (1e-3, 0, 5e-4, 1000, 20, 500, 32, {"trade_off": 0.05, "step": 1, "entropy": 0.1}),
        "MDD": (4e-3, 2e-4, 5e-4, 1024, 20, 1000, 32, MDD | {"width": 1024}),
        "FixMatch": (1e-3, 4e-4, 1e-3, 256, 20, 1000, 32, {"trade_off": 1, "threshold": 0.9}),
        "SHOT": (1e-2, 1e-3, 1e-3, 256, 106, 44, 64, SHOT | {"source_share": 0.86}),
        "EntropyMinimisation": (1e-2, 1e-3, 1e-3, 256, 20, 1000, 32,
                                {"trade_off": 0.1, "diversity": 0}),
    },
    "office_home": {
        "SourceOnly": (1e-3, 3e-4, 5e-4, None, 5, 500, 32, {}),
        "DANN": (1e-2, 1e-3, 1e-3, 256, 30, 1000, 32, DANN),
        "CDAN": (1e-2, 1e-3, 1e-3, 256, 30, 1000, 32, DANN),
        "CDANE": (1e-2, 1e-3, 1e-3, 256, 30, 1000, 32, DANN),
        "MCC": (5e-3, 1e-3, 1e-3, 2048, 30, 1000, 36, {"trade_off": 1, "temperature": 2.5}),
        "ADDA": (1e-3, 3e-4, 1e-3, 256, 33, 1000, 32, TARGET_ADVERSARY | {"source_share": 0.1}),
        "BSP": (3e-3, 1e-3, 1e-3, 256, 30, 1000, 32, DANN | {"penalty": 2e-4}),
        "BSPCDAN": (3e-3, 1e-3, 1e-3, 256, 30, 1000, 32, BSPCDAN),
        "DAN": (3e-3, 3e-4, 5e-4, 256, 20, 500, 32, DAN),
        "JAN": (3e-3, 3e-4, 5e-4, 256, 20, 500, 32, JAN),
        "DeepCORAL": (3e-3, 3e-4, 5e-4, 256, 20, 500, 32, CORAL),
        "MCD": (1e-3, 0, 5e-4, 1024, 20, 500, 32,
                {"trade_off": 30, "generator_steps": 4, "balance": 0.01}),
        "AFN": (1e-3, 0, 5e-4, 1000, 20, 500, 32, {"trade_off": 0.05, "step": 1, "entropy": 0}),
        "MDD": (4e-3, 2e-4, 5e-4, 2048, 30, 1000, 32, MDD | {"width": 2048}),
        "FixMatch": (3e-3, 4e-4, 1e-3, 1024, 20, 1000, 32, {"trade_off": 1, "threshold": 0.9}),
        "SHOT": (1e-2, 1e-3, 1e-3, 256, 60, 69, 64, SHOT | {"source_share": 0.75}),
    },
    "visda": {
        "SourceOnly": (1e-3, 3e-4, 5e-4, None, 20, 1000, 32, {}),
        "DANN": (1e-2, 1e-3, 1e-3, 256, 30, 1000, 32, DANN),
        "CDAN": (1e-2, 1e-3, 1e-3, 256, 30, 1000, 32, DANN),
        "MCC": (2e-3, 1e-3, 1e-3, 256, 30, 1000, 36, {"trade_off": 1, "temperature": 3}),
        "ADDA": (1e-3, 3e-4, 1e-3, 256, 33, 1000, 32, TARGET_ADVERSARY | {"source_share": 0.1}),
        "BSP": (3e-3, 1e-3, 1e-3, 256, 30, 1000, 32, DANN | {"penalty": 2e-4}),
        "BSPCDAN": (3e-3, 1e-3, 1e-3, 256, 30, 1000, 32, BSPCDAN),
        "DAN": (3e-3, 3e-4, 5e-4, 256, 20, 500, 32, DAN),
        "JAN": (3e-3, 3e-4, 5e-4, 256, 20, 500, 32, JAN),
        "MCD": (1e-3, 0, 5e-4, 1024, 20, 500, 32,
                {"trade_off": 1, "generator_steps": 4, "balance": 0.01}),
        "AFN": (1e-3, 0, 5e-4, 1000, 10, 1000, 36, {"trade_off": 0.05, "step": 0.3, "entropy": 0}),
        "MDD": (4e-3, 2e-4, 5e-4, 1024, 30, 1000, 36, MDD | {"width": 1024}),
        "FixMatch": (3e-3, 4e-4, 1e-3, 2048, 20, 1000, 32, {"trade_off": 1, "threshold": 0.8}),
        "SHOT": (1e-3, 1e-3, 1e-3, 256, 40, 865, 64, SHOT | {"source_share": 0.625}),
        "EntropyMinimisation": (1e-2, 1e-3, 1e-3, 256, 30, 1000, 32,
                                {"trade_off": 0.1, "diversity": 0}),
    },
    "domainnet": {
        "SourceOnly": (1e-2, 3e-4, 5e-4, None, 20, 2500, 32, {}),
        "DANN": (1e-2, 1e-3, 1e-3, 1024, 30, 2500, 32, DANN),
        "CDAN": (1e-2, 1e-3, 1e-3, 1024, 30, 2500, 32, ADVERSARY | {"randomized_dim": 51200}),
        "MCC": (5e-3, 1e-3, 1e-3, 2048, 30, 2500, 32, {"trade_off": 10, "temperature": 2}),
        "DAN": (3e-3, 3e-4, 5e-4, 1024, 30, 2500, 32, DAN),
        "JAN": (3e-3, 3e-4, 5e-4, 1024, 30, 2500, 32, JAN),
        "MCD": (1e-3, 0, 5e-4, 1024, 30, 2500, 32,
                {"trade_off": 120, "generator_steps": 4, "balance": 0.01}),
        "MDD": (4e-3, 2e-4, 5e-4, 2048, 40, 5000, 32, MDD | {"width": 2048}),
    },
    "domainnet126": {"SourceOnly": (1e-2, 3e-4, 5e-4, None, 20, 2500, 32, {})},
    "imageclef": {
        "SourceOnly": (1e-3, 3e-4, 5e-4, None, 5, 500, 32, {}),
        "DANN": (1e-2, 1e-3, 1e-3, 256, 20, 1000, 32, DANN),
        "DAN": (3e-3, 3e-4, 5e-4, 256, 20, 500, 32, DAN),
        "JAN": (3e-3, 3e-4, 5e-4, 256, 20, 500, 32, JAN),
        "AFN": (1e-3, 0, 5e-4, 1000, 20, 500, 32, {"trade_off": 0.05, "step": 1, "entropy": 0.1}),
    },
    "digits": {
        "SourceOnly": (0.01, 3e-4, 5e-4, None, 20, 2500, 128, {}),
        "DANN": (0.01, 1e-3, 1e-3, 256, 20, 2500, 128, DANN),
        "CDAN": (0.01, 1e-3, 1e-3, 256, 20, 2500, 128, DANN),
        "MCC": (0.01, 1e-3, 1e-3, 256, 20, 2500, 128, {"trade_off": 1, "temperature": 2.5}),
        "ADDA": (0.01, 3e-4, 1e-3, 256, 23, 2500, 128, TARGET_ADVERSARY | {"source_share": 0.15}),
        "BSP": (0.01, 1e-3, 1e-3, 256, 20, 2500, 128, DANN | {"penalty": 1e-4}),
        "BSPCDAN": (0.01, 1e-3, 1e-3, 256, 20, 2500, 128, BSPCDAN | {"penalty": 1e-4}),
        "DAN": (0.01, 3e-4, 5e-4, 256, 20, 2500, 128, DAN),
        "JAN": (0.01, 3e-4, 5e-4, 256, 20, 2500, 128, JAN),
        "MCD": (0.01, 0, 5e-4, 1024, 20, 2500, 128,
                {"trade_off": 0.3, "generator_steps": 4, "balance": 0.03}),
        "AFN": (0.01, 0, 5e-4, 1000, 20, 2500, 128,
                {"trade_off": 0.05, "step": 0.1, "entropy": 0.03}),
        "MDD": (0.01, 2e-4, 5e-4, 1024, 20, 2500, 128, MDD | {"width": 1024}),
        "SHOT": (0.01, 1e-3, 1e-3, 256, 60, 114, 64,
                 SHOT | {"pseudo_labels": 0.1, "source_share": 0.5}),
        "EntropyMinimisation": (0.01, 1e-3, 1e-3, 256, 20, 2500, 128,
                                {"trade_off": 0.03, "diversity": 0}),
    },
}  # fmt: skip
# Rates of SVHN to MNIST, and of USPS to MNIST.
RATES = {
    **dict.fromkeys(("SourceOnly", "BSP", "BSPCDAN"), (0.1, 0.1)),
    **dict.fromkeys(("DANN", "ADDA", "JAN", "MCD", "EntropyMinimisation"), (0.03, 0.1)),
    **dict.fromkeys(("CDAN", "MCC", "DAN"), (0.01, 0.1)),
    **{"AFN": (0.1, 0.03), "MDD": (0.01, 0.01), "SHOT": (0.01, 0.01)},
}
NETWORKS = {
    **dict.fromkeys(("office31", "office_home", "domainnet126", "imageclef"), "resnet50"),
    **dict.fromkeys(("visda", "domainnet"), "resnet101"),
}
HOME = ("Ar", "Cl", "Pr", "Rw")
TASKS = {
    "office31": {"A→W", "D→W", "W→D", "A→D", "D→A", "W→A"},
    "office_home": {f"{a}→{b}" for a in HOME for b in HOME if a != b},
    "visda": {"Synthetic→Real"},
    "domainnet": {f"{a}→{b}" for a in "cprs" for b in "cprs" if a != b},
    "domainnet126": {f"{a}→{b}" for a in "CPRS" for b in "CPRS" if a != b},
    "imageclef": {f"{a}→{b}" for a in "CIP" for b in "CIP" if a != b},
    "digits": {"S→M", "M→U", "U→M"},
}
#: The published name of each method whose settings are ours, and the methods with a range besides.
PUBLISHED = {"ERM": "SourceOnly", "DANN": "DANN", "CDAN": "CDAN", "MCC": "MCC"}
RANGES = {
    "office31": "ADDA AFN BSP BSPCDAN CDANE DAN DeepCORAL FixMatch JAN MCD MDD SHOT",
    "office_home": "ADDA AFN BSP BSPCDAN CDANE DAN DeepCORAL FixMatch JAN MCD MDD SHOT",
    "visda": "ADDA AFN BSP BSPCDAN DAN FixMatch JAN MCD MDD SHOT",
    "domainnet": "DAN JAN MCD MDD",
    "domainnet126": "SourceOnly",
    "imageclef": "AFN DAN DANN JAN SourceOnly",
    "digits": "ADDA AFN BSP BSPCDAN DAN JAN MCD MDD SHOT",
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


def expected(method, row, own):
    """The arguments that all methods take, of a method with its row and those of its benchmark."""
    _, gamma, decay, bottleneck, *_ = row
    return (
        COMMON
        | own
        | {
            "bottleneck": bottleneck,
            "weight_decay": decay,
            "anneal_alpha": pytest.approx(gamma * 10_000),
            "horizon": None if method == "SHOT" else 10_000,
            "forward_mode": "separate" if method in SEPARATE else "joint",
        }
    )


@pytest.mark.parametrize("name", published())
def test_the_methods_have_published_or_chosen_settings_on_the_published_tasks(name):
    grid = read_grid(config(name), {})
    assert set(grid.methods) <= set(available_methods())
    data = find_data(grid.data)
    pairs = (task.split("->") for task in grid.tasks)
    named = {"→".join(data.symbols[domain] for domain in pair) for pair in pairs}
    assert named == TASKS[name]
    # Of DomainNet two domains have no published row; the other sets are published whole.
    assert named <= set(data.tasks())
    assert name == "domainnet" or named == set(data.tasks())
    own = {cell.method: cell.method_args for cell in cells(name)}
    assert own == {method: row[-1] for method, row in SETTINGS[name].items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_numbers_of_the_benchmarks_of_photographs(name):
    for cell in cells(name):
        row = SETTINGS[name][cell.method]
        lr, _, _, _, epochs, steps, batch, _ = row
        assert (cell.lr, cell.batch_size) == (lr, batch)
        assert (cell.epochs, cell.steps_per_epoch) == (epochs, steps)
        own = {"backbone": NETWORKS[name], "weights": "imagenet"}
        own |= {"pretrained_factor": 1 if cell.method in ONE_RATE else 0.1}
        assert cell.model_args == expected(cell.method, row, own)
        crop = "centre" if name == "visda" else "random_resized"
        if cell.method == "SHOT" or (cell.method == "AFN" and name != "visda"):
            crop = "random"
        assert cell.data_args == SQUARE | {"crop": crop}


def test_the_numbers_of_the_digits():
    for cell in cells("digits"):
        row = SETTINGS["digits"][cell.method]
        lr, _, _, _, epochs, steps, batch, _ = row
        svhn = cell.source == "svhn"
        if cell.target == "mnist":
            lr = RATES[cell.method][0 if svhn else 1]
            steps = 938 if cell.method == "SHOT" else steps
        assert (cell.lr, cell.batch_size) == (lr, batch)
        assert (cell.epochs, cell.steps_per_epoch) == (epochs, steps)
        own = {"backbone": "dtn" if svhn else "lenet"}
        assert cell.model_args == expected(cell.method, row, own)
        assert cell.data_args == {"image_size": 32 if svhn else 28}


@pytest.mark.parametrize("name", published())
def test_what_each_published_number_is_of(name):
    """Whose numbers ours are compared with one by one, and at which epoch; and whose as a range."""
    rows = read(name)
    ours = [r for r in rows if r.ours]
    theirs = {"ERM": "source only"} if name == "digits" else {"CDAN": "CDAN (no E)"}
    renamed = theirs if name in ("digits", "office31") else {}
    alone = {} if name in ("domainnet126", "imageclef") else PUBLISHED
    assert {r.method: r.ours for r in ours} == {renamed.get(k, k): v for k, v in alone.items()}
    assert {r.selection for r in ours} <= {"not stated" if name == "digits" else "oracle"}
    places = [(r.ours, r.task, r.metric) for r in ours]
    assert len(places) == len(set(places))  # one number each, or the first would be taken
    if name == "visda":
        assert {r.note for r in ours} == {"epoch chosen by the sample mean"}
    if name == "domainnet":
        assert {r.note for r in ours} == {"epoch chosen by labels of the target's training list"}
    assert all(r.band == r.ours for r in ours if not r.metric.startswith("class:"))
    ranges = {r.band for r in rows if r.band}
    assert sorted(ranges - set(alone.values())) == RANGES[name].split()
    # Every method has a published row, but for the one that is ours.
    assert ranges == set(SETTINGS[name]) - {"EntropyMinimisation"}


@pytest.mark.parametrize("name", published())
def test_a_number_whose_settings_are_not_ours_says_what_differs(name):
    library = "thuml/Transfer-Learning-Library"
    rows = [r for r in read(name) if r.band and not r.ours and library in r.source]
    assert all(r.note for r in rows)
    forwards = {r.band: r.forward for r in rows if r.metric != "paper"}
    joint = {"MCD", "MDD", "JAN", "BSP"}
    assert forwards == {band: "joint" if band in joint else "separate" for band in forwards}


@pytest.mark.parametrize("name", rest_long(published(), ["digits", "domainnet126", "visda"]))
def test_fit_takes_what_a_grid_would_train(name):
    for cell in cells(name):
        named = {"--model": cell.method, "--data.source": cell.source, "--data.target": cell.target}
        layer = settings(str(config(name)), named.get)
        arguments = cell.model_args | cell.method_args | {"lr": cell.lr, "norm": "bn"}
        assert layer["model"] == {"class_path": cell.method, "init_args": arguments}
        data = layer["data"]["init_args"]
        assert (data["batch_size"], data["steps_per_epoch"]) == (
            cell.batch_size,
            cell.steps_per_epoch,
        )
        assert data.items() >= cell.data_args.items()
        assert layer["trainer"]["max_epochs"] == cell.epochs


def test_the_page_names_the_methods_of_each_benchmark():
    text = (root() / "docs" / "comparing.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| (.*) \|$", text, re.MULTILINE))
    assert {*published()} <= rows.keys()
    for name in published():
        alone, ranged = (re.findall(r"[A-Z]\w+", half) for half in rows[name].split(" | "))
        assert alone == ([] if name in ("domainnet126", "imageclef") else [*PUBLISHED.values()])
        assert sorted(ranged) == RANGES[name].split()
