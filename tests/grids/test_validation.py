"""Names in a grid are those of the command line: short ones, or dotted paths from anywhere."""

import pytest
import torch
from refusing import refused
from torch import nn

from da.errors import UserError
from da.grids import plan as plans
from da.grids.grid import Grid
from da.grids.tuning_validation import criterion_images
from da.grids.validation import check, name_problems
from da.methods.dann import DANN
from da.norms import normaliser, short_name
from da.norms.group_norm import GroupNorm
from da.selection.negative_entropy import NegativeEntropy
from datasets.digits import Digits


class MyData(Digits):
    """In a user's own package."""


class MyMethod(DANN):
    """In a user's own package."""


class MyNorm(GroupNorm):
    """In a user's own package."""

    name = "mine"


class MyScore(NegativeEntropy):
    """In a user's own package."""


HERE = __name__

SETTINGS = {
    "data": "Digits",
    "tasks": ["rendered->optical"],
    "methods": ["SourceOnly", "DANN"],
    "norms": ["bn", "wa"],
    "model": {"backbone": "digits_resnet"},
    "epochs": 1,
    "steps_per_epoch": 2,
    "lr": "published",
    "published_lr": 0.01,
}


def checked(**changes):
    """The grid by short names, and what is known of it."""
    grid = Grid.model_validate({**SETTINGS, **changes})
    known = check(grid.model_dump(mode="json"))
    return grid.renamed(known["names"]), known


@pytest.mark.parametrize("data", ["OfficeCaltech10", "datasets.office_caltech.OfficeCaltech10"])
def test_data_have_a_short_name_and_a_path_and_cells_hold_the_short_one(data):
    grid, known = checked(data=data, tasks=["amazon->webcam"])
    assert grid.data == "OfficeCaltech10"
    assert known["data_path"] == "datasets.office_caltech.OfficeCaltech10"
    assert grid.cell("amazon->webcam", "DANN", "bn", {}, 0, 0.1).data == "OfficeCaltech10"


@pytest.mark.parametrize(
    ("data", "task", "images"),
    [
        ("Digits", "rendered->optical", "held out"),
        ("DigitsFive", "mnist->svhn", "trained on"),
        ("OfficeCaltech10", "amazon->webcam", "tested"),
    ],
)
def test_what_label_free_scores_are_of_is_known_of_the_data(data, task, images):
    _, known = checked(data=data, tasks=[task])
    assert known["scored_images"] == images


def test_paths_of_our_own_classes_are_their_short_names_and_the_same_cells():
    spelt, _ = checked(
        data="datasets.digits.Digits",
        methods={"da.methods.dann.DANN": {"critic_width": 8}, "SourceOnly": {}},
        norms={"da.norms.batch_norm.BatchNorm": {}, "wa": {}},
        baselines=["da.norms.batch_norm.BatchNorm@target-stats"],
        scores=["da.selection.negative_entropy.NegativeEntropy"],
        score="da.selection.negative_entropy.NegativeEntropy",
        overrides=[{"methods": "da.methods.dann.DANN", "lr": 0.5}],
    )
    short, _ = checked(
        methods={"DANN": {"critic_width": 8}, "SourceOnly": {}},
        scores=["NegativeEntropy"],
        score="NegativeEntropy",
        baselines=["bn@target-stats"],
        overrides=[{"methods": "DANN", "lr": 0.5}],
    )
    assert spelt == short
    one, two = (plans.plan(g, ["rendered->optical"], "c", "t").cells for g in (spelt, short))
    assert [cell.id for cell in one] == [cell.id for cell in two]
    assert {cell.lr for cell in one if cell.method == "DANN"} == {0.5}


def test_classes_of_a_users_own_package_are_found_by_their_paths():
    grid, known = checked(
        data=f"{HERE}.MyData",
        methods={f"{HERE}.MyMethod": {"critic_width": 8}},
        norms={"bn": {}, f"{HERE}.MyNorm": {"groups": 8}},
        challenger=f"{HERE}.MyNorm",
        score=f"{HERE}.MyScore",
    )
    assert known["tasks"] == ["rendered->optical"]
    cell = grid.cell("rendered->optical", f"{HERE}.MyMethod", f"{HERE}.MyNorm", {}, 0, 0.1)
    assert (cell.data, cell.norm_options) == (f"{HERE}.MyData", {"groups": 8})
    assert cell.scores[-1] == f"{HERE}.MyScore"


def test_a_normaliser_of_ones_own_replaces_batch_norm():
    model = normaliser(f"{HERE}.MyNorm", groups=4).apply(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    )
    assert isinstance(model[1], nn.GroupNorm)
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 8, 6, 6)
    assert short_name(f"{HERE}.MyNorm") == f"{HERE}.MyNorm"
    refused(lambda: normaliser(f"{HERE}.MyNrm"), "unknown normaliser", "MyNrm")
    refused(lambda: normaliser(f"{HERE}.MyData"), "expected a subclass of Normaliser")
    refused(lambda: normaliser(f"{HERE}.MyNorm", group=3), "unknown option", "groups")


def test_all_wrong_names_are_said_at_once_with_the_right_ones():
    wrong = {
        **SETTINGS,
        "data": "OficeCaltech10",
        "methods": {"DANNN": {}, "DANN": {"critic_widht": 8}},
        "norms": {"bm": {}, "gn": {"group": 2}},
        "model": {"backbon": "x"},
        "score": "InfMax",
        "overrides": [{"methods": ["SorceOnly"], "model": {"momentun": 0}}],
    }
    with pytest.raises(UserError) as caught:
        check(wrong)
    lines = str(caught.value).splitlines()
    for text in (
        "data: unknown data set 'OficeCaltech10'; did you mean 'OfficeCaltech10'? One of: Digits, ",
        "methods: unknown method 'DANNN'; did you mean 'DANN'",
        "unknown option of methods.DANN 'critic_widht'; did you mean 'critic_width'",
        "norms: unknown normaliser 'bm'; did you mean 'bn'",
        "norms: unknown option of gn 'group'; did you mean 'groups'",
        "unknown option of model 'backbon'; did you mean 'backbone'",
        "score: unknown score 'InfMax'",
        "overrides.0.methods: unknown method 'SorceOnly'; did you mean 'SourceOnly'",
        "unknown option of overrides.0.model 'momentun'; did you mean 'momentum'",
    ):
        assert len([line for line in lines if line.startswith(text)]) == 1, (text, lines)
    assert len(lines) == 9


def test_a_wrong_domain_is_said_along_with_a_wrong_method():
    wrong = {**SETTINGS, "tasks": ["rendered->optcal"], "methods": {"DAMM": {}}}
    assert [line.partition(";")[0] for line in name_problems(wrong)] == [
        "methods: unknown method 'DAMM'",
        "unknown domain 'optcal'",
    ]


@pytest.mark.parametrize("value", [None, 3, [], {}, "x", [3], {"a": 3}, [[1]]])
@pytest.mark.parametrize("key", SETTINGS | {"overrides": 0, "sweep": 0, "scores": 0, "score": 0})
def test_names_are_looked_for_in_whatever_a_file_holds(key, value):
    assert isinstance(name_problems({**SETTINGS, key: value}), list)


def test_options_of_normalisers_are_swept_beside_their_own():
    norms = {"wa": {"gain": "auto"}}
    grid, _ = checked(norms=norms, sweep={"norm.min_channels": [1, 2]})
    cells = [grid.cell("rendered->optical", "DANN", "wa", p, 0, 0.1) for p in grid.points()]
    assert [c.norm_options for c in cells] == [{"gain": "auto", "min_channels": n} for n in (1, 2)]
    for norms, values in ((["wa", "bn"], [1]), (["wa"], [1, 0])):
        swept = {"norms": norms, "sweep": {"norm.min_channels": values}}
        (problem,) = name_problems({**SETTINGS, **swept})
        assert problem.startswith("norms: ")
        assert "min_channels" in problem


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"norms": ["dsbn"], "methods": ["SourceOnly"]}, "which SourceOnly never forwards"),
        ({"norms": ["bn-sync"]}, "norm 'bn-sync' needs a GPU, and this grid trains on the CPU"),
        ({"norms": ["ibn"], "model": {"scope": []}}, "batch norm stays in every part"),
        (
            {"norms": ["dsbn"], "methods": ["DANN"], "model": {"scope": ["critic"]}},
            "with scope critic: batch norm stays in every part",
        ),
        ({"norms": ["in"], "model": {"scope": ["head"]}}, "unknown part under scope 'head'"),
        ({"norms": ["wa"], "model": {"scope": "critic"}}, "expected a list of parts such as"),
        ({"norms": ["wa"], "model": {"scope": 3}}, "expected a list of parts such as"),
        ({"norms": ["wa"], "sweep": {"model.scope": [["critic"], []]}}, "with scope none"),
    ],
)
def test_a_normaliser_that_no_cell_could_train_with_is_refused_at_once(settings, text):
    (problem,) = name_problems({**SETTINGS, **settings})
    assert problem.startswith("norms: ")
    assert text in problem


def test_normalisers_that_some_part_and_the_device_allow_are_taken():
    for settings in (
        {"norms": ["bn", "dsbn", "in"], "methods": ["DANN", "SHOT"]},
        {"norms": ["rn"], "methods": ["DANN"], "model": {"scope": ["critic", "backbone"]}},
        {"norms": ["bn-sync"], "device": "cuda"},
        {"norms": ["bn"], "model": {"scope": []}},
    ):
        assert name_problems({**SETTINGS, **settings}) == []


def test_a_method_in_two_spellings_is_refused():
    wrong = {**SETTINGS, "methods": ["DANN", "da.methods.dann.DANN"]}
    assert name_problems(wrong) == ["methods: given twice: DANN and da.methods.dann.DANN"]


def test_a_table_of_rates_may_name_its_data_either_way(tmp_path):
    from da.grids import rate_table

    table = rate_table.Table(
        command="tune", data="datasets.digits.Digits", task="a->b", seeds=[9], epochs=1,
        published_lr=0.01, factors=[1.0],
        entries=[
            rate_table.Entry(
                method="DANN", norm="bn", backbone="digits_resnet", batch_size=32, lr=0.3,
                edge=False, trials=[],
            )
        ],
    )  # fmt: skip
    for data in ("datasets.digits.Digits", "Digits"):
        path = tmp_path / "t.yaml"
        rate_table.write(path, table.model_copy(update={"data": data}))
        changes = {"methods": ["DANN"], "norms": ["bn"], "lr": "tuned", "tuned": str(path)}
        grid, known = checked(**changes)
        plan = plans.plan(grid, known["tasks"], "c", "t", data_path=known["data_path"])
        assert {entry.cell.lr for entry in plan.entries} == {0.3}
        assert rate_table.previous(path, grid, "a->b", known["data_path"]) is None or data


# Which images a tuning goes by.


def tuned_on(data, criterion=None, options=({},)):
    tune = {"criterion": criterion} if criterion else {}
    settings = {**SETTINGS, "data": data, "tasks": ["amazon->webcam"], "tune": tune}
    grid = Grid.model_validate({**settings, "published_lr": 0.1})
    return criterion_images(grid.model_dump(mode="json"), list(options))


def test_source_accuracy_on_images_that_are_trained_on_is_refused_as_a_criterion():
    for data in ("OfficeCaltech10", "Office31"):
        with pytest.raises(UserError) as caught:
            tuned_on(data)
        said = str(caught.value)
        assert (
            f"can't judge a rate on {data}, whose validation images of the source are the" in said
        )
        assert "data_args: {validation: 0.2}" in said
        assert (
            "tune: {criterion: InformationMaximisation}, or --criterion; one of ClassAMI, " in said
        )
        assert "InformationMaximisation, MaNo, " in said
        assert "DEV" not in said  # it looks at source images that are not trained on
        assert "\n" not in said
    with pytest.raises(UserError, match="trained on"):  # one trial of many holds nothing out
        tuned_on("Office31", options=({"validation": 0.2}, {}))


def test_a_criterion_says_which_images_it_is_on():
    held_out = "the source's validation images: not trained on"
    assert tuned_on("Digits") == held_out
    assert tuned_on("Office31", options=[{"validation": 0.2}]) == held_out
    said = tuned_on("Office31", "NegativeEntropy")
    assert said == (
        "the target's validation images, without their labels: the very ones that are trained on "
        "(transductive)"
    )
    assert tuned_on("Digits", "NegativeEntropy").endswith("labels: not trained on")


def test_a_criterion_is_named_like_a_score_and_a_wrong_name_lists_them():
    wrong = {**SETTINGS, "tune": {"criterion": "NegativEntropy"}}
    [problem] = name_problems(wrong)
    assert problem.startswith("tune.criterion: unknown score 'NegativEntropy'")
    grid, _ = checked(tune={"criterion": "da.selection.negative_entropy.NegativeEntropy"})
    assert grid.tune.criterion == "NegativeEntropy"


def test_options_to_tune_are_those_of_a_method_and_take_a_criterion_on_the_target():
    wrong = {**SETTINGS, "tune": {"options": {"DANN": {"tradeoff": [1]}, "DAN9": {"x": [1]}}}}
    said = name_problems(wrong)
    assert said[0].startswith("unknown option of tune.options.DANN 'tradeoff'")
    assert said[1].startswith("tune.options: unknown method 'DAN9'")
    tune = {"options": {"da.methods.dann.DANN": {"trade_off": [0.5, 1]}}}
    grid, _ = checked(methods=["DANN"], tune=tune)
    assert grid.tune.options == {"DANN": {"trade_off": (0.5, 1)}}
    settings = grid.model_dump(mode="json")
    said = refused(lambda: criterion_images(settings, [{}]))
    assert said.startswith("tune.options: the source can't tell how much of the target DANN")
    settings["tune"]["criterion"] = "NegativeEntropy"
    assert "labels: not trained on" in criterion_images(settings, [{}])


def tuning(methods, **options):
    return {"methods": methods, "tune": {"criterion": "MixVal", "options": options}}


def test_every_method_that_sees_the_target_has_as_many_tuned_options_as_the_rest():
    options = {"DANN": {"trade_off": [0.5, 1, 2]}}
    said = refused(lambda: checked(**tuning(["SourceOnly", "DANN", "MCC"], **options)))
    assert said == (
        "tune.options: MCC has none, and is compared with DANN, of which the best of 3 is taken; "
        "give it 3, too, or leave it out"
    )
    checked(**tuning(["SourceOnly", "DANN"], **options))
    checked(**tuning(["SourceOnly", "MCC"], **options))  # the command line has left DANN out


def test_tuned_options_are_compared_with_the_grid_under_any_name_of_their_method():
    settings = tuning({"DANN": {"trade_off": 1}}, **{"da.methods.dann.DANN": {"trade_off": [1, 2]}})
    assert refused(lambda: checked(**settings)) == (
        "tune.options.DANN: trade_off is set by methods.DANN, too"
    )


@pytest.mark.parametrize("value", [-1, "x", [1]])
def test_values_of_tuned_options_that_a_method_refuses_are_so_before_anything_is_trained(value):
    settings = tuning(["DANN"], DANN={"trade_off": [1, value]})
    assert refused(lambda: checked(**settings)).startswith("tune.options.DANN: ")


@pytest.mark.parametrize("norm", ["bn-frozen", "folded"])
def test_a_normaliser_of_pretrained_statistics_is_refused_in_a_grid_without_them(norm):
    said = refused(lambda: checked(norms=["bn", norm]))
    assert said.startswith(f"model: norm '{norm}' is made of the statistics that come with pretra")
    assert "in a grid, model: {weights: imagenet}" in said
    assert "\n" not in said
    model = {"backbone": "resnet18", "weights": "imagenet"}
    assert checked(norms=["bn", norm], model=model)[1]["names"][norm] == norm
    swept = {"model.weights": ["imagenet", None]}
    assert norm in refused(lambda: checked(norms=["bn", norm], model=model, sweep=swept))


def test_normalisers_that_would_take_unequal_parts_of_a_checkpoint_are_refused(tmp_path):
    parts = ("network.backbone.x", "network.bottleneck.0.weight", "network.classifier.weight")
    content = {"state_dict": {name: torch.zeros(1) for name in parts}, "classes": ["a", "b"]}
    content |= {"spec": {"norm": "bn", "norm_options": {}}, "backbone": "network.backbone"}
    path = str(tmp_path / "last.ckpt")
    torch.save(content, path)
    said = refused(lambda: checked(model={"weights": path}))
    assert said == (
        f"model: weights: bn would start from the bottleneck and the classifier in '{path}', and "
        "wa can't: the comparison would be of unequal starts; name the backbone alone, "
        f"'{path}::network.backbone'"
    )
    for right in (
        {"norms": ["bn"], "model": {"weights": path}},
        {"model": {"weights": path, "scope": ["backbone"]}},
        {"model": {"weights": f"{path}::network.backbone"}},
    ):
        assert checked(**right)


def test_a_score_of_a_set_picks_epochs_and_no_rates():
    [problem] = name_problems({**SETTINGS, "tune": {"criterion": "EnsV"}})
    assert problem.startswith("tune.criterion: EnsV compares the evaluations of one training with")
    assert "NuclearNorm" in problem
    grid, _ = checked(score="EnsV")
    assert grid.cell("rendered->optical", "DANN", "bn", {}, 0, 0.1).scores[-1] == "EnsV"
    said = refused(lambda: tuned_on("Office31"))
    assert "NuclearNorm" in said
    assert "EnsV" not in said


def test_source_accuracy_by_its_name_is_a_criterion_on_the_source_like_the_one_without_a_name():
    assert tuned_on("Digits", "SourceAccuracy") == tuned_on("Digits")
    assert refused(lambda: tuned_on("Office31", "SourceAccuracy")) == refused(
        lambda: tuned_on("Office31")
    )


def test_no_method_is_tuned_by_its_own_loss():
    options = {"BNM": {"trade_off": [0.5, 1]}, "DANN": {"trade_off": [0.5, 1]}}
    tune = {"criterion": "NuclearNorm", "options": options}
    assert refused(lambda: checked(methods=["DANN", "BNM"], tune=tune)) == (
        "tune.criterion: NuclearNorm is what BNM minimises or maximises itself; name another score "
        "for it (tune: {criteria: {BNM: SCORE}}), or another for all"
    )
    checked(methods=["DANN"], tune=tune)
    others = {"da.methods.bnm.BNM": "da.selection.mixval.MixVal"}
    grid, _ = checked(methods=["DANN", "BNM"], tune={**tune, "criteria": others})
    assert (grid.tune.criterion_of("BNM"), grid.tune.criterion_of("DANN")) == (
        "MixVal",
        "NuclearNorm",
    )


@pytest.mark.parametrize(
    ("tune", "came"),
    [
        ({"criteria": {"BNM": "MixVal"}}, "no tune.criterion"),
        ({"criterion": "MixVal", "criteria": {"BNM": "SourceAccuracy"}}, "SourceAccuracy"),
        ({"criterion": "SourceAccuracy", "criteria": {"BNM": "MixVal"}}, "SourceAccuracy"),
    ],
)
def test_criteria_of_some_methods_are_on_the_target_as_that_of_the_others_is(tune, came):
    [problem] = name_problems({**SETTINGS, "tune": tune})
    assert problem == (
        f"tune.criteria: expected scores on the target, and tune.criterion to be one, got {came}"
    )
