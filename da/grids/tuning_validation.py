"""Checks what a grid tunes: its options, and the images that it goes by. Runs in a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from da.engine.components import find_data, find_method
from da.errors import UserError
from da.grids.contradictions import tuned_option_problems
from da.grids.grid import Grid, swept

if TYPE_CHECKING:
    from da.types import Role


class Problems(list[str]):
    """Collects what is wrong, so that one look shows everything."""

    def of(self, key: str, check: Callable[[], Any]) -> Any:
        """The value of a check, None where it refuses; what it says is kept with the key."""
        try:
            return check()
        except UserError as error:
            self.append(f"{key}: {error}")
            return None


def tuning_problems(grid: Grid, task: str) -> list[str]:
    """Tuned options that are unfair to a method of the grid, or that its constructor refuses.

    Args:
        grid: by short names, under which a method is itself in every place.
        task: one of its tasks.
    """
    problems = Problems(tuned_option_problems(grid))
    tuned = [method for method in grid.methods if method in grid.tune.options]
    for method in grid.methods if tuned else ():
        if method not in tuned and find_method(method).needs.target:
            number = len(grid.tune.combinations(tuned[0]))
            problems.append(
                f"tune.options: {method} has none, and is compared with {tuned[0]}, of which the "
                f"best of {number} is taken; give it {number}, too, or leave it out"
            )
    problems += _own_losses(grid)
    if not problems:
        for method in tuned:
            for own in grid.tune.combinations(method):
                key = f"tune.options.{method}"
                problems.of(key, lambda: _construct(grid, task, method, own))  # noqa: B023
    return problems


def _own_losses(grid: Grid) -> list[str]:
    """Methods that would be tuned by a score that is their own loss."""
    return [
        f"tune.criterion: {score} is what {method} minimises or maximises itself; name another "
        f"score for it (tune: {{criteria: {{{method}: SCORE}}}}), or another for all"
        for method in grid.methods
        if (score := grid.tune.criterion_of(method)) in find_method(method).own_scores
    ]


def _construct(grid: Grid, task: str, method: str, own: dict[str, Any]) -> None:
    """Makes a method as a trial would, without pretrained weights, so that it looks at its values.

    Raises:
        UserError: it refuses them.
    """
    point = grid.points()[0]
    arguments = {**grid.resolved(task, method, point).model, **grid.methods[method]}
    arguments |= {**swept(point, "method."), **own, "weights": None, "compile": False}
    try:
        find_method(method)(num_classes=2, task=task, norm="bn", lr=0.1, **arguments)
    except TypeError as error:
        raise UserError(f"{own}: {error}") from error


def criterion_images(settings: dict[str, Any], options: list[dict[str, Any]]) -> str:
    """Which images rates are judged on in a tuning, in words.

    Args:
        settings: of a :class:`~da.grids.grid.Grid`.
        options: those of the data in each trial.

    Raises:
        UserError: where the source's accuracy would be one on the images that are trained on.
    """
    from da.engine.result import DEFAULT_SCORE
    from da.selection.base import find_score, scores_of_targets

    grid = Grid.model_validate(settings)
    data = find_data(grid.data)
    criterion = grid.tune.criterion
    of_source = criterion is None or not find_score(criterion).sees_target
    role: Role = "source" if of_source else "target"
    if role == "source" and (tuned := [m for m in grid.methods if m in grid.tune.options]):
        raise UserError(
            f"tune.options: the source can't tell how much of the target {tuned[0]} should heed, "
            "and source-only training would look best; name a label-free score on the target that "
            "is not the method's own loss (tune: {criterion: ...}, or --criterion; one of "
            f"{', '.join(scores_of_targets())})"
        )
    held_out = all(data.holds_out(role, each) for each in options)
    if role == "target":
        seen = "not trained on" if held_out else "the very ones that are trained on (transductive)"
        return f"the target's validation images, without their labels: {seen}"
    if not held_out:
        free = [name for name, score in scores_of_targets().items() if not score.needs]
        raise UserError(
            f"tune: the source's validation accuracy can't judge a rate on {grid.data}, whose "
            "validation images of the source are the very ones that are trained on: hold some of "
            "them out (data_args: {validation: 0.2}), or name a label-free score on the target "
            f"(tune: {{criterion: {DEFAULT_SCORE}}}, or --criterion; one of {', '.join(free)})"
        )
    return "the source's validation images: not trained on"
