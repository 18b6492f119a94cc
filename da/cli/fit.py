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

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from da.cli._fit_cli import FitCLI
    from da.engine.result import Result
    from da.engine.spec import RunSpec
    from da.engine.training import Training

DEFAULTS = {
    "log_every_n_steps": 10,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "enable_checkpointing": True,
}

CONFIG = "config.json"
"""All options of a run: ``--config RUN/config.json`` is the same run again."""

EXTRA: dict[str, dict[str, Any]] = {
    "--logger": {
        "type": str,
        "default": "csv",
        "help": "csv, tensorboard, wandb (offline), mlflow (SQLite), several with commas, or none",
    },
    "--scores": {
        "type": str | None,
        "default": None,
        "help": "scores without target labels, each of which picks an epoch: names or dotted paths "
        "with commas; InformationMaximisation,NegativeEntropy unless given",
    },
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
    if any(word in ("-h", "--help") for word in argv):
        from da.cli._fit_help import print_help

        return print_help(__doc__ or "")
    from da.cli._fit_cli import FitCLI
    from da.cli._fit_options import checked_options
    from da.engine.environment import say_what_is_ignored
    from da.engine.run_folder import RESULT, read_result
    from da.engine.training import Training
    from da.ops.torch_settings import torch_settings

    say_what_is_ignored()
    cli = FitCLI(argv, "run.py fit", __doc__ or "", extra=EXTRA, trainer_defaults=DEFAULTS)
    spec, options = cli.spec, checked_options(cli)
    resumed = cli.config["ckpt_path"]
    training = Training(spec, resumed)
    if batches := options.pop("batches"):
        return rehearse(training, options, batches)
    if resumed and training.is_finished() and (Path(resumed).parent / RESULT).exists():
        read_result(Path(resumed).parent)  # a damaged one is refused
        length = "max_epochs" if spec.trainer.max_steps == -1 else "max_steps"
        print(
            f"already done: {Path(resumed).parent / RESULT}; to train on, raise --trainer.{length}"
        )
        return 0
    with torch_settings():  # the trainer refuses, or sets what the training is to set
        training.trainer(Path(), callbacks=options["callbacks"], keep=options["keep"])
    result, out = run_in_folder(cli, training, options)
    show(result)
    written = [str(out / RESULT)]
    written += [str(out / "last.ckpt")] if options["keep"] else []
    print(f"written: {', '.join(written)}")
    return 0


def rehearse(training: Training, options: dict[str, Any], batches: int) -> int:
    """Takes a batch through training and every evaluation, and keeps nothing."""
    import tempfile

    training.recorder.forms = False
    settings = {**options["options"], "fast_dev_run": batches}
    with tempfile.TemporaryDirectory() as folder:
        training.run(Path(folder), callbacks=options["callbacks"], keep=False, options=settings)
    number = "one batch" if batches == 1 else f"{batches} batches"
    print(
        f"fast_dev_run: {number} of training and of every evaluation went through; nothing was "
        "written"
    )
    return 0


def run_in_folder(cli: FitCLI, training: Training, options: dict[str, Any]) -> tuple[Result, Path]:
    """Runs a training in a folder of its own; one that is refused leaves none behind."""
    import shutil

    from da.errors import Diverged, UserError
    from da.ops.folder_claims import give_up_folder

    resumed = cli.config["ckpt_path"]
    out = claimed_folder(cli.config["out"], training.spec, resumed)
    try:
        return trained(cli, training, out, options), out
    except BaseException as error:
        give_up_folder(out)
        refused = isinstance(error, UserError) and not isinstance(error, Diverged)
        going_on = resumed and Path(resumed).parent.resolve() == out.resolve()
        if refused and not going_on and not training.recorder.history:
            shutil.rmtree(out, ignore_errors=True)  # all in it is of this process
        raise


def trained(cli: FitCLI, training: Training, out: Path, options: dict[str, Any]) -> Result:
    """Runs a training in its folder; what stops it leaves a line that says how to go on."""
    from da.cli._fit_options import profiler_of
    from da.cli._lightning import Bar, EpochLines, stoppable
    from da.engine.result import Evaluation
    from da.engine.run_folder import write_failure, write_result, write_spec
    from da.errors import Diverged
    from da.ops.files import write_atomically
    from da.ops.folder_claims import hold_folder

    with hold_folder(out, "name another folder with --out"):
        write_spec(out, training.spec)
        write_atomically(out / CONFIG, json.dumps(cli.options_given(), indent=2))
        callbacks = list(options["callbacks"])
        if options["bar"]:
            callbacks.append(Bar() if sys.stdout.isatty() else EpochLines())
        settings = {**options["options"], "profiler": profiler_of(options["profiler"], out)}
        logger = options["logger"](out)
        try:
            with stoppable():
                result = training.run(
                    out, callbacks=callbacks, logger=logger, keep=options["keep"], options=settings
                )
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
    from da.ops.domain_names import name_of_domain
    from da.ops.folder_claims import claim_folder, claim_new_folder, claimed_by

    if given is None and resumed:
        return Path(resumed).parent
    if given is None:
        method = spec.method.rpartition(".")[2]
        task = f"{spec.source}-{name_of_domain(spec.target)}"
        name = f"{task}-{method}-{spec.norm}-seed{spec.seed}"
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
        going_on = "train on" if held == "a finished run" else "go on with it"
        longer = " with a larger --trainer.max_epochs" if held == "a finished run" else ""
        more = f"; to {going_on}, give --ckpt_path {last}{longer}" if last.exists() else ""
        raise UserError(f"out: '{given}' holds {held}{more}; or name another folder") from None


def show(result: Result) -> None:
    """Prints accuracy on both domains at the last epoch, at each score's pick, at the oracle's.

    In place of the accuracy of a target without labels stand its label-free scores.
    """
    from rich.console import Console
    from rich.table import Table

    from da.engine.result import select_evaluation, validation_scores

    number, target = len(result.evaluations), result.evaluations[-1].forms[""]["target/test"]
    labelled = target.accuracy is not None
    title = f"{', '.join(result.sources)}->{result.target}, accuracy in percent"
    if not labelled:
        title += f"; the {target.n:,} images of the target have no labels"
    elif target.unlabelled:
        whole = target.n + target.unlabelled
        title += f"; {target.n:,} of {whole:,} images of the target have a label"
    table = Table(title=title)
    columns = ["target test"] if labelled else [*result.spec.scores]
    for column in ("selection", "epoch", "source test", *columns):
        justify: Any = "left" if column == "selection" else "right"
        table.add_column(column, justify=justify, overflow="fold")
    picks = {
        "last": select_evaluation(result, "", "last"),
        **{
            f"label-free ({name})": select_evaluation(result, "", "label-free", name)
            for name in result.spec.scores
        },
        f"oracle (best of {number} on target labels)": select_evaluation(result, "", "oracle"),
    }
    for title, chosen in picks.items():
        if chosen is None:
            continue
        source = chosen.forms[""].get("source/test")
        accuracies = [None if source is None else source.accuracy]
        if labelled:
            accuracies.append(chosen.forms[""]["target/test"].accuracy)
        cells = ["no labels" if value is None else f"{100 * value:.1f}" for value in accuracies]
        scores = validation_scores(chosen.forms[""]).label_free
        values = [] if labelled else [scores.get(name) for name in columns]
        cells += ["–" if value is None else f"{value:.4f}" for value in values]
        table.add_row(title, str(chosen.epoch), *cells)
    Console().print(table)
