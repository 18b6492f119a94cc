"""The checkpoints in the folder of a run or of a grid, and which of them are meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from da.engine.run_folder import RESULT, SPEC
from da.engine.spec import RunSpec
from da.errors import UserError, unknown
from da.grids.store import Store
from da.ops.sealed_json import read_sealed

LAST = "last.ckpt"


class Kept(NamedTuple):
    """The checkpoint of a finished training.

    Attributes:
        path: of the file.
        spec: what was trained.
    """

    path: Path
    spec: RunSpec


class Wanted(NamedTuple):
    """Which trainings of a folder are meant; None for whichever there is.

    Attributes:
        task: ``"rendered->optical"``, or ``"rendered-optical"``, which shells leave alone.
        method: short name.
        seed: of the training, ``"0"``.
        norms: short names of normalisers, in the order of the pictures.
    """

    task: str | None = None
    method: str | None = None
    seed: str | None = None
    norms: Sequence[str] | None = None


def find_checkpoints(folder: Path) -> list[Kept]:
    """Every finished training in a run's folder, a grid's, or a folder of runs.

    Raises:
        UserError: where there is none that kept its checkpoint.
    """
    places = [folder, *sorted(folder.glob("*")), *sorted((folder / Store.folder).glob("*"))]
    there = [place for place in places if (place / LAST).is_file()]
    found = [
        Kept(place / LAST, _read_spec(place / SPEC))
        for place in there
        if all((place / name).is_file() for name in (SPEC, RESULT))
    ]
    if found:
        return found
    if there:
        raise UserError(
            f"checkpoint: '{there[0]}' holds no finished training; give the file, "
            f"{there[0] / LAST}, to analyse it as it is"
        )
    raise UserError(
        f"checkpoint: '{folder}' holds no {LAST}; a grid keeps checkpoints where it is run with "
        "--keep"
    )


def _read_spec(path: Path) -> RunSpec:
    content = read_sealed(path, "specification", f"give the {LAST} beside it").content
    try:
        return RunSpec.model_validate(content)
    except ValidationError:
        raise UserError(
            f"specification: '{path}' is of another version; give the {LAST} beside it"
        ) from None


def choose(found: Sequence[Kept], wanted: Wanted, folder: Path) -> list[Kept]:
    """The trainings of one task, method and seed, in the order of ``norms``; else BN, WA, others.

    Raises:
        UserError: for what there is none of, with what there is; and where several tasks, methods
            or seeds are left, with their names.
    """
    chosen = list(found)
    kinds: dict[str, tuple[Callable[[RunSpec], str], str | None]] = {
        "task": (lambda spec: spec.task, wanted.task),
        "method": (lambda spec: spec.method, wanted.method),
        "seed": (lambda spec: str(spec.seed), wanted.seed),
    }
    several = []
    for kind, (value_of, name) in kinds.items():
        values = _in_order(value_of(one.spec) for one in chosen)
        if name is not None:
            same = [value for value in values if _plain(value) == _plain(name)]
            if not same:
                raise unknown(kind, name, values)
            chosen = [one for one in chosen if value_of(one.spec) == same[0]]
        elif len(values) > 1:
            several.append(f"--{kind} (one of {', '.join(values)})")
    if several:
        raise UserError(
            f"checkpoint: '{folder}' holds several trainings, and those of one task, method and "
            f"seed are compared; choose with {' and '.join(several)}"
        )
    norms = _in_order((one.spec.norm for one in chosen), first=("bn", "wa"))
    for name in wanted.norms or ():
        if name not in norms:
            raise unknown("normaliser", name, norms)
    order = norms if wanted.norms is None else list(wanted.norms)
    return sorted(
        (one for one in chosen if one.spec.norm in order),
        key=lambda one: (order.index(one.spec.norm), one.spec.lr, one.spec.batch_size),
    )


def _in_order(values: Iterable[str], first: Sequence[str] = ()) -> list[str]:
    """Each once, sorted, numbers by their size; but some first."""
    names = sorted(set(values), key=lambda name: (len(name) if name.isdigit() else 0, name))
    return [*(n for n in first if n in names), *(n for n in names if n not in first)]


def _plain(task: str) -> str:
    return task.replace("->", "-").replace("→", "-")
