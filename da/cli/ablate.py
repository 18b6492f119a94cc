"""Train a grid of tasks, methods, normalisers and seeds, and print the comparison.

Finished cells are never run again: after an interruption, give the same command. With pretrained
weights in the grid, as in model: {backbone: resnet50, weights: imagenet}, WA starts from their
conversion (conversion: source, the default; both; off).

A file that names a grid is a study of target statistics: it evaluates that grid's networks with
statistics of few target images, of mixed domains and of label-shifted streams. Checkpoints that
--keep has left are used, the other networks are trained.

examples:
  python run.py ablate                                        the whole comparison on digits
  python run.py ablate --full                                 and every table at its end
  python run.py ablate configs/ablations/digits_small.yaml    a first look
  python run.py ablate --lr tuned,published --dry-run         both rates; what it would cost
  python run.py ablate --tasks "rendered->optical" --norms bn,wa,gn --seeds 0,1
  python run.py ablate configs/ablations/target_statistics.yaml --trained runs/digits
  python run.py ablate --seeds 0-9                            more seeds for a finished grid
  python run.py ablate --seeds 0-19 --stop-at 3.5             no more seeds than are needed
  python run.py ablate --dry-run --deviation 5,8              what could it detect?
"""

from __future__ import annotations

from functools import partial

from da.cli._options import command_line, grid_parser, load_grid, parse, session, show_report
from da.errors import UserError


def main(
    argv: list[str],
    train: str | None = None,
    check: str | None = None,
    measure: str | None = None,
) -> int:
    """Runs the command and returns its exit code, see :func:`da.grids.ablation.run`.

    Args:
        argv: the command line after ``ablate``.
        train: ``"module:name"`` of the function that trains a cell, by default the real one.
        check: ``"module:name"`` of the function that checks a grid, by default the real one.
        measure: ``"module:name"`` of the function that measures a trained cell of a study, by
            default the real one.
    """
    parser = grid_parser("ablate", __doc__)
    parser.add_argument("--seeds", type=str, help="of the trainings: 0,1,2 or 0-9")
    parser.add_argument(
        "--lr", type=str, help="learning rates: tuned, published, a number, or several: tuned,0.01"
    )
    parser.add_argument(
        "--trained", type=str, help="of a study: the grid's folder, by default runs/ and its name"
    )
    parser.add_argument(
        "--stop-at",
        type=float,
        help="add seeds, of those given, until the average of every comparison on these tasks is "
        "known to ± so many points",
    )
    parser.add_argument(
        "--deviation",
        type=str,
        help="with --dry-run: what the grid could detect if paired differences deviate by so many "
        "points over seeds; between tasks, too: 5,8; or the folder of an earlier grid",
    )
    parser.add_argument("--full", action="store_true", help="print every table, not averages alone")
    options = parse(parser, argv)
    if options.deviation is not None and not options.dry_run:
        raise UserError("--deviation: only with --dry-run; a report says what its own results tell")
    from da.grids import ablation
    from da.grids.grid_file import find_config
    from da.grids.statistics_study import is_study

    if is_study(find_config(options.config)):
        from da.cli._statistics_study import run_study

        if options.stop_at is not None or options.deviation is not None or options.full:
            raise UserError("--stop-at, --deviation and --full are for grids; this is a study")
        return run_study(options, argv, train, check, measure)
    if options.trained is not None:
        raise UserError(
            f"--trained: {options.config} is a grid, which trains its own networks; it is for the "
            "file of a study, such as configs/ablations/target_statistics.yaml"
        )

    config, grid = load_grid(options, check is None)
    where = session(options, config.stem, grid, train, check)
    command, tune = command_line("ablate", argv), command_line("tune", [options.config])
    if options.dry_run:
        return ablation.dry_run(where, grid, command, tune, options.deviation)
    show = partial(show_report, full=options.full)
    return ablation.run(where, grid, command, tune, show)
