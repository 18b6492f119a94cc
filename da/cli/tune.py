"""Find the learning rate of every method and normaliser, with one budget for all.

Five rates around the published one, on a development task and seeds of their own, judged by
source validation accuracy, or by a label-free score on the target. Where the source's validation
images are those that it is trained on (Office-31 as published), its accuracy is refused: hold some
out with data_args: {validation: 0.2}, or name a score. Entries that are not tried anew are kept.

examples:
  python run.py tune                                          what ablate needs by default
  python run.py tune --methods DANN --norms gn,wa+gn          add to the table
  python run.py tune grid.yaml --criterion InformationMaximisation
                                                              no labels but the source's training's
"""

from __future__ import annotations

from pathlib import Path

from da.cli._options import command_line, grid_parser, load_grid, parse, session
from da.errors import UserError


def main(argv: list[str], train: str | None = None, check: str | None = None) -> int:
    """Runs the command and returns its exit code, see :func:`da.grids.rate_search.run`.

    Args:
        argv: the command line after ``tune``.
        train: ``"module:name"`` of the function that trains a cell, by default the real one.
        check: ``"module:name"`` of the function that checks a grid, by default the real one.
    """
    parser = grid_parser("tune", __doc__)
    parser.add_argument("--table", type=str, help="write there, not to the grid's 'tuned:'")
    parser.add_argument("--criterion", type=str, help="a label-free score to judge rates by")
    options = parse(parser, argv)
    if options.tasks:
        raise UserError("--tasks: tune uses one development task; set it as tune.task in the YAML")
    from da.grids import rate_search
    from da.grids.grid_file import own_table

    config, grid = load_grid(options, check is None)
    if "lr" in grid.sweep:
        raise UserError("sweep: lr is swept in this grid, so there is no rate to tune")
    if options.criterion is not None:
        tune = grid.tune.model_copy(update={"criterion": options.criterion})
        grid = grid.model_copy(update={"tune": tune})
    named = options.table or grid.tuned
    if named is None:
        raise UserError(f"{config} names no table under 'tuned:'; name one with --table")
    table = Path(named) if options.table else own_table(Path(named))
    start = table if options.table or table.is_file() else Path(named)
    where = session(options, f"tune-{config.stem}", grid, train, check)
    if options.dry_run:
        return rate_search.dry_run(where, grid)
    return rate_search.run(where, grid, table, command_line("tune", argv), start)
