"""``run.py ablate``: trains every cell of a grid and prints the comparison."""

from __future__ import annotations

from da.commands._options import command_line, grid_parser, load, parse, session


def main(argv: list[str], train: str | None = None, check: str | None = None) -> int:
    """Runs the command and returns its exit code, see :func:`da.experiments.ablation.run`.

    Args:
        argv: the command line after ``ablate``.
        train: ``"module:name"`` of the function that trains a cell, by default the real one.
        check: ``"module:name"`` of the function that checks a grid, by default the real one.
    """
    parser = grid_parser("ablate", "Train a grid of tasks x methods x normalisers x seeds.")
    parser.add_argument("--seeds", type=str, help="0,1,2")
    parser.add_argument("--lr", type=str, help="tuned, published, or both: tuned,published")
    options = parse(parser, argv)
    from da.experiments import ablation

    config, grid = load(options)
    run = ablation.dry_run if options.dry_run else ablation.run
    return run(
        session(options, config.stem, grid.threads, train, check),
        grid,
        command_line("ablate", argv),
        command_line("tune", [options.config]),
    )
