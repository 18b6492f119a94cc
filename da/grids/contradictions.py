"""What settings of a grid, each right by itself, can't be together; a line for each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from da.engine.spec import TrainerSettings, canonical_json
from da.errors import unknown
from da.grids.overrides import Override
from da.grids.setting_keys import kind_of

if TYPE_CHECKING:
    from da.grids.grid import Grid

FORMS = ("source-stats", "target-stats")
"""How batch norm is evaluated besides as it was trained."""


NUMBERS: dict[str, tuple[tuple[type, ...], str]] = {
    "lr": ((int, float), "a number"),
    "batch_size": ((int,), "a whole number"),
}
"""What is swept under a name of its own, and what it takes."""


def contradictions(grid: Grid) -> list[str]:
    """What single settings that are right by themselves can't be together, a line each."""
    problems = [*grid.doubles(), *_cross_problems(grid), *_comparison_problems(grid)]
    problems += tuned_option_problems(grid)
    for number, override in enumerate(grid.overrides):
        problems += _override_problems(grid, f"overrides.{number}", override)
    return problems


def _cross_problems(grid: Grid) -> list[str]:
    problems = []
    if (grid.steps_per_epoch is None) == (grid.samples is None):
        problems.append("give one of steps_per_epoch and samples")
    if grid.precision == "16-mixed" and grid.device == "cpu":
        problems.append("precision: 16-mixed needs a GPU; on a cpu give bf16-mixed or 32-true")
    if common := sorted(set(grid.tune.seeds) & set(grid.seeds)):
        problems.append(f"tune.seeds must be outside the table's seeds, both hold {common}")
    if len([rate for rate in grid.lr if not isinstance(rate, str)]) > 1:
        problems.append("lr: give one number at most; several rates are tried by tune.factors")
    if len(set(grid.lr)) < len(grid.lr):
        problems.append("lr: given twice")
    if grid.published_lr is None and set(grid.rows) != {"given"}:
        problems.append(f"published_lr: missing, for lr: {', '.join(map(str, grid.lr))}")
    return [*problems, *_sweep_problems(grid)]


def _sweep_problems(grid: Grid) -> list[str]:
    """What can't be swept, and values that it can't take."""
    problems = []
    for key, values in grid.sweep.items():
        group = key.partition(".")[0]
        if key not in ("lr", "batch_size") and group not in ("model", "method", "norm", "trainer"):
            problems.append(
                f"sweep: '{key}' is not lr, batch_size, model.<argument>, method.<argument>, "
                "norm.<option> or trainer.<option>"
            )
        if not values:
            problems.append(f"sweep: '{key}' has no values")
        if key in NUMBERS:
            kinds, word = NUMBERS[key]
            problems += [
                f"sweep: {key}: expected {word} above 0, got {value}"
                for value in values
                if type(value) not in kinds or value <= 0
            ]
        if group == "trainer":
            problems += _trainer_problems(key, values)
    if "lr" in grid.sweep and grid.lr != type(grid).model_fields["lr"].default:
        problems.append("sweep: lr is swept, and the grid has a key lr; give one of the two")
    return problems


def _trainer_problems(key: str, values: Iterable[Any]) -> list[str]:
    """Options of the trainer that don't exist, and values that they don't take."""
    name, fields = key.partition(".")[2], TrainerSettings.model_fields
    if name not in fields:
        return [f"sweep: {unknown('option of trainer', name, fields)}"]
    problems = []
    for value in values:
        try:
            TrainerSettings(**{name: value})
        except ValidationError:
            problems.append(f"sweep: {key}: expected {kind_of(fields[name])}, got {value}")
    return problems


def tuned_option_problems(grid: Grid) -> list[str]:
    """Tuned options of methods that are set elsewhere, or that give a method a larger budget."""
    problems = []
    if twice := _repeated(grid.tune.factors):
        problems.append(f"tune.factors: given twice: {twice[0]}")
    for method, options in grid.tune.options.items():
        for where, others in _set_elsewhere(grid, method):
            if common := sorted({*others} & {*options}):
                problems.append(
                    f"tune.options.{method}: {', '.join(common)} is set by {where}, too"
                )
        problems += [
            f"tune.options.{method}: {name} is given twice with one value: {twice[0]}"
            for name, values in options.items()
            if (twice := _repeated(values))
        ]
    sizes = {method: len(grid.tune.combinations(method)) for method in grid.tune.options}
    if len({*sizes.values()}) > 1:
        each = ", ".join(f"{size} of {method}" for method, size in sizes.items())
        problems.append(
            f"tune.options: every method has one budget, so give as many values to each; got {each}"
        )
    return problems


def _set_elsewhere(grid: Grid, method: str) -> list[tuple[str, Iterable[str]]]:
    """The options that a method is given by the grid, by where."""
    swept = {key.partition(".") for key in grid.sweep}
    return [
        (f"methods.{method}", grid.methods.get(method, {})),
        ("model", grid.model),
        ("optimizer", grid.optimizer.arguments()),
        *(
            (f"overrides.{number}", {**override.model, **override.optimizer.arguments()})
            for number, override in enumerate(grid.overrides)
            if override.methods is None or method in override.methods
        ),
        ("sweep", [name for group, _, name in swept if group in ("model", "method")]),
    ]


def _repeated(values: Iterable[Any]) -> list[Any]:
    """Those that were there before; 1 and 1.0 are one value."""
    found: list[Any] = []
    texts: set[str] = set()
    for value in values:
        text = canonical_json(value)
        found += [value] if text in texts else []
        texts.add(text)
    return found


def _comparison_problems(grid: Grid) -> list[str]:
    """A challenger and baselines that the grid has no normaliser or no evaluation for."""
    named = [("challenger", name) for name in (grid.challenger,) if name]
    named += [("baselines", name) for name in grid.baselines or ()]
    problems = []
    for key, name in named:
        norm, at, form = name.partition("@")
        if norm not in grid.norms:
            problems.append(str(unknown(f"normaliser of the grid under {key}", norm, grid.norms)))
        elif at and form not in FORMS:
            problems.append(f"{key}: {unknown(f'form of {norm}', form, FORMS)}")
        elif at and not grid.forms:
            problems.append(f"{key}: '{name}' is not evaluated with forms: false")
    if grid.challenger in (grid.baselines or ()):
        problems.append(f"challenger: '{grid.challenger}' is one of the baselines")
    return problems


def length_problems(grid: Grid) -> list[str]:
    """Numbers of samples that no whole number of steps gives."""
    problems = []
    for point in grid.points():
        for tasks, methods in (
            (None, None),
            *((override.tasks, override.methods) for override in grid.overrides),
        ):
            settings = grid.resolved((tasks or ("",))[0], (methods or ("",))[0], point)
            try:
                grid.length(settings)
            except ValueError as error:
                problems.append(str(error))
    return problems


def _override_problems(grid: Grid, where: str, override: Override) -> list[str]:
    """An override of what is swept or follows from something else."""
    problems = []
    arguments = {**override.model, **override.optimizer.arguments()}
    overridden = {
        *(key for key in NUMBERS if getattr(override, key)),
        *(f"model.{name}" for name in arguments),
        *(f"trainer.{name}" for name in override.trainer_settings()),
    }
    swept = overridden & grid.sweep.keys()
    if swept:
        problems.append(f"{where}: {', '.join(sorted(swept))} is swept")
    if grid.samples is not None and override.steps_per_epoch is not None:
        problems.append(f"{where}: steps_per_epoch follows from samples")
    return problems
