"""Simulate grids, and count how often a report's intervals exclude the truth: 5 % is promised.

examples:
  python run.py bench statistics                                     a minute or two
  python run.py bench statistics --grids 100000 --out docs/results/statistics
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from da.cli._options import output_folder, parse, plain_parser
from da.errors import UserError

if TYPE_CHECKING:
    from da.benchmarks.error_rates import Rates, StoppingRates

HEADERS = (
    [*("differences", "assumptions", "tasks", "seeds", "average, on these tasks"),
     *("any task, on these tasks", "average, on tasks like these", "not pooled")],
    [*("differences", "tasks", "first look", "at most", "wanted ±", "average, on these tasks"),
     *("any task, on these tasks", "seeds used", "reached")],
)  # fmt: skip


def main(argv: list[str]) -> int:
    """Simulates, prints the tables and writes them."""
    parser = plain_parser("bench statistics", __doc__)
    parser.add_argument("--grids", type=int, default=20_000, help="simulated grids of each line")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation")
    parser.add_argument("--out", type=str, help="folder for report.md and table.csv")
    options = parse(parser, argv)
    for name, least in (("grids", 1000), ("seed", 0)):
        if options[name] < least:
            raise UserError(f"--{name}: expected at least {least}, got {options[name]}")
    out = None if options.out is None else output_folder(options.out)
    from da.benchmarks.error_rates import SCENARIOS, SEEDS, TASKS, rates, stopping_rates
    from da.reports import terminal
    from da.reports.stopping import first_look

    console = terminal.console()
    places = [(s, tasks, seeds) for s in SCENARIOS for tasks in TASKS for seeds in SEEDS]
    fixed = []
    for number, (scenario, tasks, seeds) in enumerate(places, 1):
        fixed.append(rates(scenario, tasks, seeds, options.grids, options.seed))
        if seeds == SEEDS[-1] and tasks == TASKS[-1]:
            console.print(f"{number} of {len(places)}: {scenario.name}", markup=False)
    stopped = []
    for scenario in (s for s in SCENARIOS if s.kind != "violated"):
        console.print(f"stopping early: {scenario.name}", markup=False)
        for tasks in TASKS:
            first = first_look(tasks)
            for expected in (first, round(1.5 * first)):
                stopped.append(
                    stopping_rates(scenario, tasks, expected, options.grids, options.seed)
                )
    tables = [[_fixed(line) for line in fixed], [_stopped(line) for line in stopped]]
    titles = _titles(options.grids)
    for title, header, rows in zip(titles, HEADERS, tables, strict=True):
        terminal.show_rows(console, title, header, rows)
    if out is not None:
        _write(out, argv, titles, tables, [*fixed, *stopped])
        console.print(f"written: {options.out}/report.md, table.csv", markup=False)
    return 0


def _titles(grids: int) -> tuple[str, str]:
    return (
        f"Share of {grids:,} simulated grids, in percent, in which a 95 % interval excludes the "
        "truth: at most 5 is promised; what violated assumptions do is shown.",
        "The same where seeds are added until the average is known to ± the wanted points.",
    )


def _percent(rate: float | None) -> str:
    return "not testable" if rate is None else f"{100 * rate:.1f}"


def _fixed(line: Rates) -> list[str]:
    words = {"holds": "hold", "unequal": "unequal variances", "violated": "violated"}
    rest = map(_percent, (line.average, line.any_task, line.like, line.check_fails))
    return [line.scenario, words[line.kind], str(line.tasks), str(line.seeds), *rest]


def _stopped(line: StoppingRates) -> list[str]:
    numbers = (line.tasks, line.first, line.most)
    rejected = map(_percent, (line.average, line.any_task))
    return [
        line.scenario, *map(str, numbers), f"{line.wanted:.1f}", *rejected,
        f"{line.seeds:.1f}", _percent(line.reached),
    ]  # fmt: skip


def _write(
    out: Path, argv: list[str], titles: tuple[str, str], tables: list[Any], lines: list[Any]
) -> None:
    import dataclasses

    from da.benchmarks.error_rates import SEED_DEVIATION, TASK_DEVIATION
    from da.cli._options import command_line
    from da.ops.csv_text import csv_text
    from da.ops.files import write_atomically
    from da.reports.texts import grid_table

    text = ["# How often the intervals of a report are wrong", ""]
    text += [
        f"- command: `{command_line('bench', ['statistics', *argv])}`",
        f"- differences deviate by {SEED_DEVIATION:g} points over seeds and, in truth, by "
        f"{TASK_DEVIATION:g} over tasks",
        "- on these tasks: the truth is the tasks' own; on tasks like these: the mean over all "
        "tasks, of which the grid's are a sample",
        "",
    ]
    for title, header, rows in zip(titles, HEADERS, tables, strict=True):
        text += [title, "", *grid_table(header, rows), ""]
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "report.md", "\n".join(text))
    write_atomically(out / "table.csv", csv_text([dataclasses.asdict(line) for line in lines]))
