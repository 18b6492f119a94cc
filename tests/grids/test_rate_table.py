import pytest
from fake_cells import a_cell, made

from da.errors import UserError
from da.grids import plan as plans
from da.grids import rate_table
from da.grids.grid import Grid

GRID = Grid(
    data="x.Y",
    tasks=("a->b",),
    methods={"M": {}},
    norms={"bn": {}, "wa": {}},
    epochs=3,
    steps_per_epoch=10,
    published_lr=0.01,
    tuned="unused",
)


def outcomes(rows):
    """{rate: (accuracy and cross-entropy per seed, or a state)} as results."""
    found = []
    for lr, values in rows.items():
        for seed, value in zip((100, 101), values, strict=True):
            cell = a_cell(lr=lr, seed=seed)
            if isinstance(value, str):
                found.append((cell, value))
                continue
            result = made(cell)
            scores = result.evaluations[-1].forms[""]["source/validation"]
            scores.accuracy, scores.cross_entropy = value
            # Target labels must not matter: here they favour the worst rate.
            result.evaluations[-1].forms[""]["target/test"].accuracy = 1 - value[0]
            found.append((cell, result))
    return found


def test_highest_mean_source_validation_accuracy_wins():
    rows = {0.1: [(0.8, 1), (0.9, 1)], 0.2: [(0.9, 1), (0.9, 1)], 0.3: [(0.99, 1), (0.7, 1)]}
    entry = rate_table.choose(outcomes(rows))
    assert entry.lr == 0.2
    assert not entry.edge


def test_ties_go_to_the_lower_cross_entropy():
    rows = {0.1: [(0.9, 2), (0.8, 2)], 0.2: [(0.8, 1), (0.9, 1)], 0.3: [(0.9, 3), (0.8, 3)]}
    assert rate_table.choose(outcomes(rows)).lr == 0.2


def test_a_rate_that_diverges_with_one_seed_is_worst_and_an_edge_is_marked():
    rows = {0.1: [(0.2, 1), (0.2, 1)], 0.2: [(0.9, 1), "diverged"]}
    entry = rate_table.choose(outcomes(rows))
    assert entry.lr == 0.1
    assert entry.edge


def test_every_normaliser_has_the_same_budget_on_other_seeds():
    cells = rate_table.trials(GRID, "a->b")
    rates = {norm: [c.lr for c in cells if c.norm == norm] for norm in ("bn", "wa")}
    assert rates["bn"] == rates["wa"]
    assert sorted(set(rates["bn"])) == pytest.approx([0.001, 0.003, 0.01, 0.03, 0.1])
    assert not {c.seed for c in cells} & set(GRID.seeds)


def test_the_table_is_read_back_and_used(tmp_path):
    path = tmp_path / "t.yaml"
    results = [(c, made(c)) for c in rate_table.trials(GRID, "a->b")]
    rate_table.write(path, rate_table.build(GRID, "a->b", "python run.py tune x", results))
    assert "WARNING: on the edge" in path.read_text()  # all equal: the lowest rate
    assert rate_table.read(path, "tune").find(("M", "bn", "default", 32)).lr == 0.001
    grid = GRID.model_copy(update={"tuned": str(path), "lr": ("tuned", "published")})
    plan = plans.plan(grid, ["a->b"], "ablate", "tune")
    assert {(e.row, e.cell.lr) for e in plan.entries} == {("tuned", 0.001), ("published", 0.01)}
    other = grid.model_copy(update={"norms": {"gn": {}}})
    with pytest.raises(UserError, match=r"no learning rate for M with gn.*python run.py tune x"):
        plans.plan(other, ["a->b"], "ablate", "python run.py tune x")


def test_a_key_that_no_rate_works_for_is_known_and_refused_alone(tmp_path):
    path = tmp_path / "t.yaml"
    cells = rate_table.trials(GRID, "a->b")
    found = [
        (c, made(c) if c.norm == "bn" else "diverged" if c.lr > 0.01 else made(c)) for c in cells
    ]
    found = [(c, "diverged" if c.norm == "wa" and c.seed == 101 else r) for c, r in found]
    rate_table.write(path, table := rate_table.build(GRID, "a->b", "tune", found))
    assert "# WARNING: no rate from 0.001 to 0.1 works; set tune.factors" in path.read_text()
    assert rate_table.read(path, "tune") == table
    assert [(e.norm, e.lr, e.edge) for e in table.entries] == [
        ("bn", 0.001, True),
        ("wa", None, False),
    ]
    assert table.entries[1].trials[-1].states == ["diverged", "diverged"]
    grid = GRID.model_copy(update={"tuned": str(path), "lr": ("tuned", "published")})
    plan = plans.plan(grid, ["a->b"], "ablate", "tune")
    cells = {(e.row, e.cell.norm) for e in plan.entries}
    assert cells == {("tuned", "bn"), ("published", "bn"), ("published", "wa")}
    assert plan.refused == [
        "M with wa, backbone default, batch size 32: "
        f"no learning rate from 0.001 to 0.1 works ({path})"
    ]
    alone = grid.model_copy(update={"norms": {"wa": {}}, "lr": ("tuned",)})
    with pytest.raises(UserError, match=r"nothing to train: M with wa, .*tune again: python run"):
        plans.plan(alone, ["a->b"], "ablate", "python run.py tune")


def test_a_part_tuned_anew_leaves_the_rest_of_the_table(tmp_path):
    path = tmp_path / "t.yaml"
    all_of_it = [(c, made(c)) for c in rate_table.trials(GRID, "a->b")]
    rate_table.write(path, rate_table.build(GRID, "a->b", "tune", all_of_it))
    part = GRID.model_copy(update={"norms": {"gn": {}, "wa": {}}})
    anew = [(c, made(c, 0.1 + c.lr)) for c in rate_table.trials(part, "a->b")]
    before = rate_table.previous(path, part, "a->b")
    table = rate_table.build(part, "a->b", "tune --norms gn,wa", anew, before)
    rate_table.write(path, table)
    assert [(e.norm, e.lr) for e in table.entries] == [("bn", 0.001), ("wa", 0.1), ("gn", 0.1)]
    assert table.command == "tune && tune --norms gn,wa"
    other = part.model_copy(update={"epochs": 4})
    with pytest.raises(UserError, match=r"tuned with other epochs, and 1 .*M with bn.*--table"):
        rate_table.previous(path, other, "a->b")
    whole = other.model_copy(update={"norms": {"bn": {}, "wa": {}, "gn": {}}})
    assert rate_table.previous(path, whole, "a->b") is None  # nothing of the old table would stay


def test_rates_of_another_data_set_are_refused(tmp_path):
    path = tmp_path / "t.yaml"
    results = [(c, made(c)) for c in rate_table.trials(GRID, "a->b")]
    rate_table.write(path, rate_table.build(GRID, "a->b", "tune", results))
    grid = GRID.model_copy(update={"tuned": str(path), "data": "x.Z"})
    with pytest.raises(UserError, match=r"was tuned on x\.Y, the grid is of x\.Z"):
        plans.plan(grid, ["a->b"], "ablate", "tune")


def test_a_missing_or_broken_table_names_the_command(tmp_path):
    with pytest.raises(UserError, match=r"no tuned learning rates .* make them: python run"):
        rate_table.read(tmp_path / "none.yaml", "python run.py tune")
    (tmp_path / "bad.yaml").write_text("entries: 3")
    with pytest.raises(UserError, match=r"make it anew: python run\.py tune"):
        rate_table.read(tmp_path / "bad.yaml", "python run.py tune")


def test_rows_with_equal_rates_share_their_cells(tmp_path):
    path = tmp_path / "t.yaml"
    one = GRID.model_copy(update={"tune": GRID.tune.model_copy(update={"factors": (1.0,)})})
    found = [(c, made(c)) for c in rate_table.trials(one, "a->b")]
    rate_table.write(
        path,
        rate_table.build(one, "a->b", "c", found),
    )
    grid = GRID.model_copy(update={"tuned": str(path), "lr": ("tuned", "published")})
    plan = plans.plan(grid, ["a->b"], "ablate", "tune")
    assert len(plan.entries) == 2 * len(plan.cells)


def test_a_trial_that_failed_leaves_no_rate_whichever_is_the_best():
    rows = {0.1: [(0.8, 1), "failed"], 0.2: [(0.9, 1), (0.9, 1)], 0.3: [(0.5, 1), "diverged"]}
    entry = rate_table.choose(outcomes(rows))
    assert (entry.lr, entry.edge) == (None, False)
    assert rate_table.warning(entry) == (
        "WARNING: no rate until the trials that failed end (of 0.1); tune again"
    )
    ended = rate_table.choose(outcomes({**rows, 0.1: [(0.8, 1), "diverged"]}))
    assert (ended.lr, rate_table.warning(ended)) == (0.2, "")


def with_criterion(score):
    return GRID.model_copy(update={"tune": GRID.tune.model_copy(update={"criterion": score})})


def test_a_label_free_criterion_goes_by_the_last_score_on_the_target_alone(tmp_path):
    rows = {0.1: [(0.9, 1), (0.9, 1)], 0.2: [(0.2, 9), (0.2, 9)], 0.3: [(0.99, 1), "diverged"]}
    scores = {0.1: -2.0, 0.2: -1.5, 0.3: 5.0}
    found = outcomes(rows)
    for cell, result in found:
        if not isinstance(result, str):
            for evaluation in result.evaluations:
                streams = evaluation.forms[""]
                streams["target/validation"] = streams["target/test"].model_copy(deep=True)
                streams["target/validation"].label_free = {"S": 9.0 - cell.lr}  # the first ones
            streams["target/validation"].label_free = {"S": scores[cell.lr]}
    entry = rate_table.choose(found, "S")
    assert (entry.lr, entry.edge) == (0.2, False)
    assert [trial.score for trial in entry.trials] == [[-2.0, -2.0], [-1.5, -1.5], [5.0, None]]
    assert [trial.accuracy for trial in entry.trials] == [[], [], []]
    table = rate_table.build(with_criterion("S"), "a->b", "tune", found, images="the target's")
    rate_table.write(tmp_path / "t.yaml", table)
    text = (tmp_path / "t.yaml").read_text()
    assert "highest S of the target, a label-free score" in text
    assert "images: the target's" in text
    assert "accuracy" not in text
    assert rate_table.read(tmp_path / "t.yaml", "tune") == table


def test_a_score_that_is_no_number_leaves_its_rate_last():
    found = [(c, made(c)) for c in rate_table.trials(with_criterion("S"), "a->b")][:10]
    for _, result in found:
        streams = result.evaluations[-1].forms[""]
        streams.get("target/validation", streams["target/test"]).label_free = {"S": None}
    entry = rate_table.choose(found, "S")
    assert entry.lr is None


def test_trials_measure_the_criterion_and_cells_of_the_table_do_not_change():
    grid = with_criterion("Mine").model_copy(update={"lr": ("published",)})
    cells = rate_table.trials(grid, "a->b")
    assert all(cell.scores[-1] == "Mine" for cell in cells)
    assert "Mine" not in plans.plan(grid, ["a->b"], "ablate", "tune").cells[0].scores


def test_a_method_with_a_criterion_of_its_own_is_chosen_and_written_by_that(tmp_path):
    tune = GRID.tune.model_copy(update={"criterion": "S", "criteria": {"M": "Mine"}})
    grid = GRID.model_copy(update={"tune": tune, "methods": {"M": {}, "N": {}}})
    cells = rate_table.trials(grid, "a->b")
    assert {(c.method, c.scores[-1]) for c in cells} == {("M", "Mine"), ("N", "S")}
    found = [(c, made(c)) for c in cells]
    for cell, result in found:
        streams = result.evaluations[-1].forms[""]
        stream = streams.get("target/validation", streams["target/test"])
        stream.label_free = {"S": cell.lr, "Mine": -cell.lr}
    table = rate_table.build(grid, "a->b", "tune", found)
    rates = {method: {e.lr for e in table.entries if e.method == method} for method in "MN"}
    tried = {c.lr for c in cells}
    assert rates == {"M": {min(tried)}, "N": {max(tried)}}
    rate_table.write(tmp_path / "t.yaml", table)
    assert rate_table.read(tmp_path / "t.yaml", "tune").criteria == {"M": "Mine"}


def test_what_is_swept_beside_backbone_and_batch_is_tuned_at_its_first_value(tmp_path):
    sweep = {"trainer.max_steps": (10, 30), "batch_size": (4, 8)}
    grid = GRID.model_copy(update={"sweep": sweep})
    cells = rate_table.trials(grid, "a->b")
    assert {(c.batch_size, c.trainer.max_steps) for c in cells} == {(4, 10), (8, 10)}
    assert len(cells) == 2 * len(rate_table.trials(GRID, "a->b"))
    # A rate is judged by its seeds alone, and is that of every value.
    path = tmp_path / "t.yaml"
    table = rate_table.build(grid, "a->b", "tune", [(c, made(c)) for c in cells])
    assert {len(trial.accuracy) for entry in table.entries for trial in entry.trials} == {2}
    rate_table.write(path, table)
    tuned = grid.model_copy(update={"tuned": str(path), "lr": ("tuned",)})
    plan = plans.plan(tuned, ["a->b"], "ablate", "tune")
    assert len({(e.cell.norm, *e.point.values()) for e in plan.entries}) == 8
    assert {e.cell.trainer.max_steps for e in plan.entries} == {10, 30}
    assert len({e.cell.lr for e in plan.entries}) == 1


def test_entries_by_another_criterion_do_not_stay(tmp_path):
    path = tmp_path / "t.yaml"
    results = [(c, made(c)) for c in rate_table.trials(GRID, "a->b")]
    rate_table.write(path, rate_table.build(GRID, "a->b", "tune", results))
    part = with_criterion("S").model_copy(update={"norms": {"gn": {}}})
    with pytest.raises(UserError, match="tuned with other criterion, and 2 of its entries"):
        rate_table.previous(path, part, "a->b")


def with_options(**options):
    tune = GRID.tune.model_copy(update={"criterion": "S", "options": options, "factors": (0.1, 1)})
    return GRID.model_copy(update={"tune": tune})


def test_options_are_tried_with_every_rate_and_the_best_pair_is_used(tmp_path):
    grid = with_options(M={"trade_off": (0.3, 1.0, 3.0)})
    cells = rate_table.trials(grid, "a->b")
    tried = [(c.lr, c.method_args["trade_off"], c.seed) for c in cells if c.norm == "wa"]
    assert len(tried) == len({*tried}) == 2 * 3 * 2
    found = []
    for cell in cells:
        result = made(cell)
        free = 1.0 if (cell.lr, cell.method_args["trade_off"]) == (0.001, 3.0) else 0.5
        if cell.norm == "bn":  # equal everywhere: the lowest rate, and the first that is named
            free = 0.5
        streams = result.evaluations[-1].forms[""]
        streams.get("target/validation", streams["target/test"]).label_free = {"S": free}
        found.append((cell, result))
    table = rate_table.build(grid, "a->b", "tune", found)
    chosen = {entry.norm: (entry.lr, entry.options) for entry in table.entries}
    assert chosen == {"bn": (0.001, {"trade_off": 0.3}), "wa": (0.001, {"trade_off": 3.0})}
    path = tmp_path / "t.yaml"
    rate_table.write(path, table)
    assert "# WARNING: on the edge of the tried rates and values of trade_off" in path.read_text()
    assert rate_table.read(path, "tune") == table
    tuned = GRID.model_copy(update={"tuned": str(path), "lr": ("tuned", "published")})
    plan = plans.plan(tuned, ["a->b"], "ablate", "tune")
    assert {(e.row, e.cell.norm, e.cell.method_args.get("trade_off")) for e in plan.entries} == {
        ("tuned", "bn", 0.3),
        ("tuned", "wa", 3.0),
        ("published", "bn", None),
        ("published", "wa", None),
    }
    given = tuned.model_copy(update={"methods": {"M": {"trade_off": 1.0}}})
    with pytest.raises(UserError, match=r"M: trade_off is tuned in .*; leave it to the"):
        plans.plan(given, ["a->b"], "ablate", "tune")


def test_an_override_for_another_method_sets_none_of_its_options():
    overrides = [{"methods": ["N"], "model": {"w": 1}}]
    settings = {"overrides": overrides, "tune": {"options": {"M": {"w": [1, 2]}}}}
    assert Grid.model_validate({**GRID.model_dump(exclude_unset=True), **settings}).tune.options


def test_options_of_the_table_that_the_network_is_given_are_refused(tmp_path):
    path = tmp_path / "t.yaml"
    table_of(path, with_options(M={"weight_decay": (0.1, 0.2)}))
    given = GRID.model_copy(update={"tuned": str(path), "model": {"weight_decay": 0.3}})
    with pytest.raises(
        UserError, match=r"M: weight_decay is tuned in .*, and the grid sets it, too"
    ):
        plans.plan(given, ["a->b"], "ablate", "tune")


def table_of(path, grid):
    results = [(c, made(c)) for c in rate_table.trials(grid, "a->b")]
    for _, result in results:
        streams = result.evaluations[-1].forms[""]
        streams["target/validation"].label_free = {"S": 0.5}
    before = rate_table.previous(path, grid, "a->b")
    rate_table.write(path, rate_table.build(grid, "a->b", "tune", results, before))
    return rate_table.read(path, "tune")


def test_a_table_does_not_mix_budgets_of_options(tmp_path):
    path = tmp_path / "t.yaml"
    three = with_options(M={"w": (0.3, 1.0, 3.0)}, N={"v": (1, 2, 3)})
    both = three.model_copy(update={"methods": {"M": {}, "N": {}}})
    table = table_of(path, three)
    assert table.combinations == 3
    assert {entry.combinations for entry in table.entries} == {3}
    # Another method with the same budget, and one without options, as source-only is.
    assert len(table_of(path, both).entries) == 4
    assert (
        len(table_of(path, three.model_copy(update={"methods": {"SourceOnly": {}}})).entries) == 6
    )
    part = {"norms": {"gn": {}}}
    for tune, methods in (
        (with_options(M={"w": (0.3, 1.0)}), {"M": {}}),
        (with_options(), {"M": {}}),
        (with_options(O={"w": (0.3, 1.0)}), {"O": {}}),
        (with_options(SourceOnly={"w": (0.3, 1.0, 2.0)}), {"SourceOnly": {}}),
    ):
        grid = tune.model_copy(update={**part, "methods": methods})
        with pytest.raises(UserError, match="tuned with other combinations of options, and "):
            rate_table.previous(path, grid, "a->b")
    # Where nothing else would stay, the table is as written now.
    alone = with_options(M={"w": (0.3, 1.0)})
    table_of(tmp_path / "other.yaml", with_options(M={"w": (0.3, 1.0, 3.0)}))
    assert table_of(tmp_path / "other.yaml", alone).combinations == 2


def test_an_earlier_table_says_by_its_trials_how_many_combinations_it_has(tmp_path):
    path = tmp_path / "t.yaml"
    three = with_options(M={"w": (0.3, 1.0, 3.0)})
    table_of(path, three)
    text = path.read_text()
    assert "combinations: 3\n" in text
    path.write_text(text.replace("combinations: 3\n", ""))
    more = three.model_copy(update={"norms": {"gn": {}}})
    assert rate_table.previous(path, more, "a->b") is not None
    other = with_options(M={"w": (0.3, 1.0)}).model_copy(update={"norms": {"gn": {}}})
    with pytest.raises(UserError, match="combinations of options, and 2 of its entries"):
        rate_table.previous(path, other, "a->b")


def test_methods_without_tuned_options_keep_their_rates_alone():
    grid = with_options(Other={"trade_off": (0.3, 1.0)})
    assert all(cell.method_args == {} for cell in rate_table.trials(grid, "a->b"))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"methods": {"M": {"trade_off": 1}}, "tune": {"options": {"M": {"trade_off": [1, 2]}}}},
            "tune.options.M: trade_off is set by methods.M, too",
        ),
        (
            {"sweep": {"method.w": [1]}, "tune": {"options": {"M": {"w": [1, 2]}}}},
            "tune.options.M: w is set by sweep, too",
        ),
        (
            {"tune": {"options": {"M": {"w": [1, 2]}, "N": {"w": [1]}}}},
            "tune.options: every method has one budget, so give as many values to each; got 2 of M",
        ),
        (
            {"tune": {"options": {"M": {"w": [1, 2, 1.0]}}}},
            "tune.options.M: w is given twice with one value",
        ),
        ({"tune": {"factors": [0.1, 1, 1.0]}}, "tune.factors: given twice: 1.0"),
        (
            {"model": {"w": 1}, "tune": {"options": {"M": {"w": [1, 2]}}}},
            "tune.options.M: w is set by model, too",
        ),
        (
            {
                "optimizer": {"momentum": 0.5},
                "tune": {"options": {"M": {"momentum": [0.1, 0.9]}}},
            },
            "tune.options.M: momentum is set by optimizer, too",
        ),
        (
            {"sweep": {"model.w": [1]}, "tune": {"options": {"M": {"w": [1, 2]}}}},
            "tune.options.M: w is set by sweep, too",
        ),
        (
            {
                "overrides": [{"tasks": ["a->b"], "model": {"w": 1}}],
                "tune": {"options": {"M": {"w": [1, 2]}}},
            },
            "tune.options.M: w is set by overrides.0, too",
        ),
    ],
)
def test_tuned_options_that_contradict_the_grid_are_refused(settings, line):
    with pytest.raises(ValueError, match=line):
        Grid.model_validate({**GRID.model_dump(exclude_unset=True), **settings})
