"""What a grid asks of its normalisers, checked before anything is trained."""

from __future__ import annotations

import functools
import itertools
from typing import Any

from da.engine.components import find_method, parameters_of
from da.errors import UserError
from da.grids.grid import swept
from da.grids.raw_settings import list_of, mapping_of, names_of
from da.grids.tuning_validation import Problems
from da.ops.files import chosen_file


def check_norms(settings: dict[str, Any], problems: Problems) -> None:
    """Normalisers with their options; and that each can start from pretrained weights, if any."""
    from da.norms import normaliser

    norms = settings.get("norms")
    right = []
    points = _points(swept(mapping_of(settings, "sweep"), "norm."))
    for name in names_of(norms):
        own = (norms.get(name) if isinstance(norms, dict) else None) or {}
        for options in [{**own, **point} for point in points] if isinstance(own, dict) else []:
            if problems.of("norms", lambda: normaliser(name, **options)):  # noqa: B023
                right.append((name, options))
    if not problems:
        for norm, options in right:
            problems.of("norms", lambda: _check_place(settings, norm, options))  # noqa: B023
            problems.of("model", lambda: _check_start(settings, norm, options))  # noqa: B023
        problems.of("model", lambda: _check_heads(settings, right))


def _points(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """The combinations of swept values; an empty one where none is swept."""
    values = (list_of(values) for values in arguments.values())
    return [dict(zip(arguments, point, strict=True)) for point in itertools.product(*values)]


def _check_place(settings: dict[str, Any], norm: str, options: dict[str, Any]) -> None:
    """That each method can train with a normaliser, and on this device, in some part of it."""
    from da.methods.normaliser_scope import covers_nothing, refuse_scope, unseen_target
    from da.norms import normaliser

    own = normaliser(norm, **options)
    for name in names_of(settings.get("methods")):
        if own.needs_target and not find_method(name).needs.target:
            raise UserError(f"{unseen_target(norm, name)}, in a grid of its own")
    if own.needs_gpu and settings.get("device", "cpu") == "cpu":
        raise UserError(
            f"norm '{norm}' needs a GPU, and this grid trains on the CPU; leave it out, or give "
            "--device cuda"
        )
    for model in _models(settings):
        refuse_scope(model["scope"])
        if norm != "bn" and covers_nothing(own, model["scope"]):
            raise UserError(
                f"norm '{norm}' with scope {', '.join(model['scope']) or 'none'}: batch norm "
                "stays in every part that the scope names; name the backbone, too, or leave the "
                "norm out"
            )


def _check_start(settings: dict[str, Any], norm: str, options: dict[str, Any]) -> None:
    from da.networks.pretrained_conversion import conversion_plan

    for model in _models(settings):
        conversion_plan({**model, "norm": norm, "norm_options": options})


def _check_heads(settings: dict[str, Any], norms: list[tuple[str, dict[str, Any]]]) -> None:
    """That all normalisers take the heads of a checkpoint that they start from, or none does."""
    from da.networks.trained_heads import refuse_unequal_starts
    from da.networks.weight_files import read_weight_file

    read = functools.cache(read_weight_file)  # of every swept point the same
    for model in _models(settings):
        weights = model["weights"]
        if chosen_file(weights) is not None:
            starts = [{**model, "norm": norm, "norm_options": options} for norm, options in norms]
            refuse_unequal_starts(read(weights), starts)


def _models(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The arguments of all methods, of every swept point."""
    from da.methods.base import Method

    defaults = {name: parameter.default for name, parameter in parameters_of(Method).items()}
    points = _points(swept(mapping_of(settings, "sweep"), "model."))
    return [{**defaults, **mapping_of(settings, "model"), **point} for point in points]
