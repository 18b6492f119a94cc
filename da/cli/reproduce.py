"""Train published settings and print our numbers beside the published ones.

Without --method, every method of the benchmark is trained: --dry-run says what that takes.
Finished cells are never run again: after an interruption, give the same command.

examples:
  python run.py reproduce office31 --root DIR --method dann     six tasks x three seeds
  python run.py reproduce office_home --root DIR --dry-run      what all of it would be
  python run.py reproduce visda --root DIR --method cdan,mcc    both means, the twelve classes
  python run.py reproduce office31 --root DIR --quick           at most 5,000 steps each
  python run.py reproduce office31 --out runs/mine --compare    a finished grid, nothing is trained
"""

from __future__ import annotations

from da.cli._options import command_line, grid_parser, load_grid, parse, session
from da.errors import UserError
from da.installation import program


def main(argv: list[str]) -> int:
    """Runs the command; its exit code, see :func:`da.grids.reproduction.run`."""
    parser = grid_parser("reproduce", __doc__, published=True)
    parser.add_argument("--seeds", type=str, help="of the trainings: 0,1,2")
    parser.add_argument("--quick", action="store_true", help="at most 5,000 steps per training")
    parser.add_argument("--compare", action="store_true", help="only compare what is in --out")
    options = parse(parser, argv)
    from da.grids import ablation, reproduction
    from da.grids.grid_file import names
    from da.ops.yaml12 import read_yaml
    from da.reports import references

    path = references.config(options.config)
    if options.compare:
        if not options.out:
            raise UserError("--compare: name the folder of a finished grid with --out")
        where = session(options, path.stem, None, None, None)
        return reproduction.compare(where, path.stem, names(options.methods))
    methods = references.methods_named(names(options.methods), read_yaml(path)["methods"])
    options.methods = ",".join(methods) if methods else None
    options.config = str(path)
    _, grid = load_grid(options)
    name = f"reproduce-{path.stem}" + ("-quick" if grid.quick else "")
    where = session(options, name, grid, None, None)
    command = command_line("reproduce", argv)
    if options.dry_run:
        return ablation.dry_run(where, grid, command, f"{program()} tune")
    return reproduction.run(where, grid, path.stem, command)
