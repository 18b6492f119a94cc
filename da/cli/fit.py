"""Train one model on one pair of domains.

Everything can be named on the command line or in layered YAML files (--config A --config B).
Each run has a folder of its own with settings, checkpoints, metrics and result.json.
It has 10 epochs unless --trainer.max_epochs, max_steps or max_time says otherwise.

examples:
  python run.py fit --data.source rendered --data.target optical --model.norm wa
  python run.py fit --model DANN --model.norm wa+gn --data.batch_size 16 --trainer.max_epochs 20
  python run.py fit --model.backbone resnet50 --model.weights imagenet --config my.yaml
  python run.py fit --model.help DANN          the options of one method
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from da.cli._lightning import CLI
    from da.engine.result import Result
    from da.engine.spec import RunSpec
    from da.engine.training import Training

DEFAULTS = {
    "log_every_n_steps": 10,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "enable_checkpointing": True,
}

EXTRA: dict[str, dict[str, Any]] = {
    "--out": {
        "type": str | None,
        "default": None,
        "help": "folder of the run; a new one under runs/fit unless given",
    },
    "--ckpt_path": {
        "type": str | None,
        "default": None,
        "help": "go on from this checkpoint, with the settings that it was written with",
    },
}


def main(argv: list[str]) -> int:
    """Trains, evaluates after every epoch, and writes result.json."""
    from da.cli._fit_options import checked_options
    from da.cli._lightning import FitCLI
    from da.engine.run_folder import RESULT
    from da.engine.training import Training
    from da.ops.folder_claims import give_up_folder

    cli = FitCLI(argv, "run.py fit", __doc__ or "", extra=EXTRA, trainer_defaults=DEFAULTS)
    spec, options = cli.spec, checked_options(cli)
    resumed = cli.config["ckpt_path"]
    training = Training(spec, resumed)
    if resumed and training.is_finished() and (Path(resumed).parent / RESULT).exists():
        length = "max_epochs" if spec.trainer.max_steps == -1 else "max_steps"
        print(
            f"already done: {Path(resumed).parent / RESULT}; to train on, raise --trainer.{length}"
        )
        return 0
    out = claimed_folder(cli.config["out"], spec, resumed)
    try:
        result = trained(cli, training, out, options)
    except BaseException:
        give_up_folder(out)
        raise
    show(result)
    written = [str(out / RESULT)]
    written += [str(out / "last.ckpt")] if (out / "last.ckpt").exists() else []
    print(f"written: {', '.join(written)}")
    return 0


def trained(cli: CLI, training: Training, out: Path, options: dict[str, Any]) -> Result:
    """Runs a training in its folder; what stops it leaves a line that says how to go on."""
    from da.cli._lightning import Bar, EpochLines, stoppable
    from da.engine.result import Evaluation
    from da.engine.run_folder import write_failure, write_result, write_spec
    from da.errors import Diverged
    from da.ops.folder_claims import hold_folder

    with hold_folder(out, "name another folder with --out"):
        write_spec(out, training.spec)
        bar = Bar() if sys.stdout.isatty() else EpochLines()
        callbacks = [*options.pop("callbacks"), bar]
        logger = options.pop("logger")(out)
        try:
            with stoppable():
                result = training.run(out, callbacks=callbacks, logger=logger, **options)
        except Diverged as error:
            history = [Evaluation.model_validate(x) for x in training.recorder.history]
            write_failure(out, training.spec, "diverged", str(error), history)
            raise
        except (KeyboardInterrupt, SystemExit):
            if (out / "last.ckpt").exists():
                print(f"stopped; go on with --ckpt_path {out / 'last.ckpt'}", file=sys.stderr)
            raise
        write_result(out, result)
    return result


def claimed_folder(given: str | None, spec: RunSpec, resumed: str | None) -> Path:
    """The folder of a run, this process's alone: as given, the checkpoint's, or a new one.

    Raises:
        UserError: where another run has it.
    """
    from da.errors import UserError
    from da.ops.folder_claims import claim_folder, claim_new_folder, claimed_by

    if given is None and resumed:
        return Path(resumed).parent
    if given is None:
        method = spec.method.rpartition(".")[2]
        name = f"{spec.task.replace('->', '-')}-{method}-{spec.norm}-seed{spec.seed}"
        return claim_new_folder(Path("runs/fit"), name.replace("/", "-"))
    out = Path(given).expanduser()
    if resumed and out.exists() and Path(resumed).parent.samefile(out):
        return out
    try:
        return claim_folder(out)
    except FileExistsError:
        if out.is_file():
            raise
        held = "a finished run" if (out / "result.json").exists() else "another run"
        if not claimed_by(out) and held != "a finished run":
            held = "other files"
        last = out / "last.ckpt"
        more = f"; go on with it: --ckpt_path {last}" if last.exists() else ""
        raise UserError(f"out: '{given}' holds {held}{more}; or name another folder") from None


def show(result: Result) -> None:
    """Prints accuracy on both domains and the three selections."""
    from rich.console import Console
    from rich.table import Table

    from da.engine.result import DEFAULT_SCORE, SELECTIONS, select

    number = len(result.evaluations)
    title = f"{', '.join(result.sources)}->{result.target}, accuracy in percent"
    table = Table(title=title)
    for column in ("selection", "epoch", "source test", "target test"):
        table.add_column(column, justify="left" if column == "selection" else "right")
    names = {
        "last": "last",
        "label-free": f"label-free ({DEFAULT_SCORE})",
        "oracle": f"oracle (best of {number} on target labels)",
    }
    for selection in SELECTIONS:
        chosen = select(result, "", selection)
        if chosen is None:
            continue
        streams = [chosen.forms[""].get(name) for name in ("source/test", "target/test")]
        values = [None if s is None else s.accuracy for s in streams]
        cells = ["no labels" if value is None else f"{100 * value:.1f}" for value in values]
        table.add_row(names[selection], str(chosen.epoch), *cells)
    Console().print(table)
