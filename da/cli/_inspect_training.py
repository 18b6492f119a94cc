"""`inspect training`: what grows in a training under one normaliser or another, drawn."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from da.errors import Diverged, UserError

if TYPE_CHECKING:
    from da.analysis.training_scales import Scales
    from da.engine.spec import RunSpec

PROG = "run.py inspect training"

OPTIONS: dict[str, dict[str, Any]] = {
    "--out": {"type": str, "default": "runs/training", "help": "folder of the files"},
    "--norms": {
        "type": str | None,
        "default": None,
        "help": "a training for each, bn,wa; the one of --model.norm unless given",
    },
    "--clip": {
        "type": str | None,
        "default": None,
        "help": "a training of each for every limit of the gradient's norm: off,5",
    },
}


def main(args: list[str], description: str) -> int:
    """Trains once for each normaliser and limit, measures every step, writes figure and table."""
    from da.analysis.training_scales import save_figure_and_table
    from da.cli._fit_cli import FitCLI
    from da.cli._fit_options import refuse_all_but_the_spec
    from da.cli._options import output_folder
    from da.engine.training import build_method_and_data

    cli = FitCLI(args, PROG, description, extra=OPTIONS)
    refuse_all_but_the_spec(cli, "inspect training keeps nothing but its figure and table")
    norms = cli.config["norms"]
    names = [cli.spec.norm] if norms is None else [name.strip() for name in norms.split(",")]
    limits = limits_of(cli.config["clip"], cli.spec.trainer.gradient_clip_val)
    out = output_folder(cli.config["out"])
    for name in names:  # what can't be built is refused before anything is trained
        build_method_and_data(cli.spec.model_copy(update={"norm": name}))
    trainings = list(measured(cli.spec, names, limits))
    if not any(one.rows for one in trainings):
        raise UserError(f"no step could be measured: {trainings[0].ended}")
    spec = cli.spec
    title = f"{spec.method}, {spec.task}, rate {spec.lr:g}, seed {spec.seed}"
    files = save_figure_and_table(out, title, trainings)
    for one in trainings:
        last = one.rows[-1] if one.rows else {}  # none where the very first loss is not finite
        values = ", ".join(f"{key} {value:.3g}" for key, value in last.items())
        print(f"{one.name}: {one.ended}; at the end: {values or 'no step'}")
    print(f"written: {', '.join(map(str, files))}")
    return 0


def limits_of(given: str | None, default: float | None) -> list[float | None]:
    """The limits of a command line.

    >>> limits_of("off, 5", 1.0), limits_of(None, 1.0)
    ([None, 5.0], [1.0])
    """
    if given is None:
        return [default]
    limits: list[float | None] = []
    for word in given.split(","):
        try:
            value = None if word.strip() == "off" else float(word)
        except ValueError:
            value = 0.0
        if value is not None and not value > 0:
            raise UserError(f"clip: expected numbers above 0 or off, as in off,5; got '{word}'")
        limits.append(value)
    return limits


def measured(spec: RunSpec, names: list[str], limits: list[float | None]) -> Iterator[Scales]:
    """The scales of a training for each normaliser and limit; nothing of it is kept."""
    from rich.progress import Progress

    from da.analysis.training_scales import ScaleRecorder, Scales
    from da.engine.training import Training
    from da.reports.terminal import console

    pairs = [(name, limit) for name in names for limit in limits]
    with Progress(console=console(), transient=True, disable=not console().is_terminal) as bar:
        task = bar.add_task("training", total=float(len(pairs)))
        for number, (name, limit) in enumerate(pairs):
            trainer = spec.trainer.model_copy(update={"gradient_clip_val": limit})
            one = spec.model_copy(update={"norm": name, "trainer": trainer, "forms": False})
            clipped = "not clipped" if limit is None else f"clipped at {limit:g}"
            scales = Scales(f"{name}, {clipped}")
            bar.update(task, description=scales.name, completed=number)
            with tempfile.TemporaryDirectory() as kept:
                try:
                    Training(one).run(
                        Path(kept),
                        lambda share, n=number: bar.update(task, completed=n + share),  # type: ignore[misc]
                        callbacks=[ScaleRecorder(scales)],
                        keep=False,
                    )
                except Diverged as error:
                    scales.ended = str(error)
            yield scales
