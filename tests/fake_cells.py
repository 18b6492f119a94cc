"""Cells that train nothing, for tests of the machinery: real processes, no torch.

Also a program, so that a test can kill it: ``python fake_cells.py ablate CONFIG ...``. What a cell
does depends on its seed and on the file ``behaviour.json`` in the folder ``$FAKE_CELLS``, which
maps seeds or normalisers to an action. Figures, which take half of the time of such a grid, are
drawn where it says ``"figures": true``. Every start of a cell is a line in ``$FAKE_CELLS/claims``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from da.engine.result import Result
from da.engine.spec import RunSpec
from da.errors import Diverged, UserError
from da.grids.statistics_study import Measured, Measurements, Questions

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
"""For child processes, whether or not the package is installed."""

SCORES = {"n": 400, "accuracy": 0.9, "class_mean": 0.9, "cross_entropy": 0.3}


def a_cell(**settings: Any) -> RunSpec:
    """A cell, with some settings replaced."""
    base: dict[str, Any] = {
        "data": "x.Y",
        "source": "a",
        "target": "b",
        "method": "M",
        "norm": "bn",
        "lr": 0.01,
        "batch_size": 32,
        "epochs": 3,
        "steps_per_epoch": 10,
        "seed": 0,
    }
    return RunSpec(**{**base, **settings})


def made(
    cell: RunSpec,
    accuracy: float | None = 0.9,
    forms: tuple[str, ...] = ("",),
    classes: tuple[str, ...] = ("cat", "dog"),
) -> Result:
    """A result in which only accuracies vary; a target without labels has the accuracy None."""
    evaluations = []
    for epoch in range(cell.epochs):
        target: dict[str, Any] = {"n": SCORES["n"]}
        if accuracy is not None:
            target = {**SCORES, "accuracy": accuracy}
        source = {**SCORES, "accuracy": 0.9 if accuracy is None else accuracy}
        target |= {"label_free": dict.fromkeys(cell.scores, 0.1 * epoch)}
        streams = {
            f"{domain}/{split}": target if domain == "target" else source
            for split in ("validation", "test")
            for domain in ("source", "target")
        }
        evaluations.append(
            {
                "epoch": epoch,
                "step": 10 * (epoch + 1),
                "forms": dict.fromkeys(forms, streams),
            }
        )
    return Result.model_validate(
        {
            "run": cell.id,
            "spec": cell,
            "sources": [cell.source],
            "target": cell.target,
            "classes": list(classes),
            "evaluations": evaluations,
            "seconds": {"training": 0.02, "evaluation": 0.01, "total": 0.04},
            "parameters": 10,
            "lr_over_norm2": 0.1,
            "feature_deviation": 1.0,
            "initial_loss": 2.3,
        }
    )


def run(
    cell: RunSpec,
    directory: Path,
    progress: Callable[[float], None],
    loggers: Sequence[str] = (),
) -> Result:
    """Does what the test asks for this seed, then returns a result."""
    home = Path(os.environ["FAKE_CELLS"])
    behaviour = json.loads((home / "behaviour.json").read_text())
    action = behaviour.get(cell.norm) or behaviour.get(str(cell.seed), behaviour.get("else"))
    with (home / "claims").open("a") as file:
        file.write(f"{cell.id} {cell.seed} {os.getpid()}\n")
    print("hello from", cell.seed, flush=True)
    os.write(1, b"and from C\n")
    (directory / "last.ckpt").write_bytes(b"x" * 1000)
    progress(0.5)
    for name in loggers:
        (directory / "logs" / name).mkdir(parents=True)
    if action == "raise":
        raise ValueError("boom")
    if action == "exit":
        os._exit(7)
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "kill once" and not (home / "killed").exists():
        (home / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "diverge":
        raise Diverged("loss is nan at step 3")
    if action == "refuse":
        raise UserError("batch norm needs two samples")
    if isinstance(action, (int, float)):
        time.sleep(action)
    if action == "wrong":
        return made(cell.model_copy(update={"seed": 99}))
    if behaviour.get("unlabelled"):
        return made(cell, None)
    wins = {"bn": 0.80, "wa": 0.85}.get(cell.norm, 0.7)
    forms = ("", "source-stats", "target-stats") if "bn" in cell.norm else ("",)
    return made(cell, wins + 0.001 * (cell.seed % 100) * (1 + len(cell.norm)), forms)


def check(settings: dict[str, Any]) -> dict[str, Any]:
    """Stands in for the check of names."""
    if "nonsense" in settings["methods"]:
        raise UserError("unknown method 'nonsense'; one of: M")
    tasks = settings["tasks"]
    behaviour = json.loads((Path(os.environ["FAKE_CELLS"]) / "behaviour.json").read_text())
    return {
        "tasks": ["a->b", "b->a"] if tasks == "all" else tasks,
        "development": "a->b",
        "version": behaviour.get("data version", 1),
        "images": {},
        "names": {},
        "data_path": settings["data"],
        "scored_images": behaviour.get("scored images", "held out"),
    }


def measure(
    cell: RunSpec,
    directory: Path,
    progress: Callable[[float], None],
    questions: dict[str, Any],
    checkpoints: dict[str, str],
) -> Measurements:
    """Answers of a network that is worse with few images, and flat where it has no batch norm."""
    home = Path(os.environ["FAKE_CELLS"])
    with (home / "measured").open("a") as file:
        file.write(f"{cell.id} {checkpoints[cell.id]}\n")
    progress(0.5)
    if json.loads((home / "behaviour.json").read_text()).get("measure") == "raise":
        raise ValueError("no answer")
    asked = Questions.model_validate(questions)
    statistics = "bn" in cell.norm
    measured = [
        Measured(
            question=question,
            other=other,
            value=value,
            way=way,
            draw=draw,
            n=100,
            accuracy=0.3 + 0.1 * place + 0.01 * draw + 0.02 * cell.seed,
        )
        for question, other, values in asked.series()
        for place, value in enumerate(values)
        for way in asked.ways
        for draw in range(asked.draws)
        if statistics or way not in ("reestimated", "BatchStatistics")
        if not (cell.norm == "dsbn" and way == "reestimated")
    ]
    return Measurements(
        run=cell.id,
        spec=cell,
        asked=asked.id,
        statistics=statistics,
        images={"train": 300, "test": 100},
        trained=0.5 if cell.norm == "wa" else 0.45,
        measured=measured,
        seconds={"training": 0.0, "evaluation": 0.01, "total": 0.01},
    )


if __name__ == "__main__":
    from da.cli import ablate, tune

    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's `&` ignores SIGINT
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = {"ablate": ablate, "tune": tune}[sys.argv[1]]
    functions = {"train": "fake_cells:run", "check": "fake_cells:check"}
    if command is ablate:
        from da.reports import figures

        home = Path(os.environ["FAKE_CELLS"])
        if not json.loads((home / "behaviour.json").read_text()).get("figures"):
            figures.save = lambda *_: None
        functions["measure"] = "fake_cells:measure"
    try:
        sys.exit(command.main(sys.argv[2:], **functions))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
