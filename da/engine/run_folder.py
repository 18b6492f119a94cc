"""The folder of one training: its specification, its result, or why there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from da.engine.result import Evaluation, Failure, Result
from da.engine.spec import RunSpec
from da.errors import UserError
from da.ops.sealed_json import read_sealed, write_sealed

RESULT = "result.json"
FAILURE = "failure.json"
SPEC = "spec.json"


def write_spec(folder: Path, spec: RunSpec) -> None:
    """Records what is trained in a folder, before it begins."""
    write_sealed(folder / SPEC, spec.model_dump(mode="json"))


def write_result(folder: Path, result: Result) -> None:
    """Writes a result with a checksum; from then on the training counts as done."""
    write_sealed(folder / RESULT, result.model_dump(mode="json"))


def read_result(folder: Path) -> Result:
    """The result of a folder.

    Raises:
        UserError: where there is none, it is damaged, or another version wrote it.
    """
    path = folder / RESULT
    advice = "remove that file to train again, or put back the one that was written"
    content = read_sealed(path, "result", advice).content
    if "schema_version" not in content or content["schema_version"] == 1:
        raise UserError(
            f"result: '{path}' was written by an earlier version (schema 1), which this one does "
            "not read; train again in another folder, or use the version that wrote it"
        )
    try:
        return Result.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ")
        said = f"{place}: {reason}" if place else reason
        raise UserError(f"result: '{path}' is not valid ({said}); {advice}") from None


def write_failure(
    folder: Path,
    spec: RunSpec,
    state: Literal["failed", "diverged"],
    reason: str,
    evaluations: list[Evaluation] | None = None,
) -> None:
    """Records why a training has no result."""
    failure = Failure(state=state, run=spec.id, reason=reason, evaluations=evaluations or [])
    write_sealed(folder / FAILURE, failure.model_dump(mode="json"))


def read_failure(folder: Path) -> Failure | None:
    """Why the last attempt left no result, where that is known."""
    path = folder / FAILURE
    if not path.is_file():
        return None
    try:
        return Failure.model_validate(read_sealed(path, "failure", "remove it").content)
    except (UserError, ValidationError):  # then it is not known
        return None
