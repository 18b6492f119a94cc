"""Show what label-free scores choose in finished trainings, and what that costs.

From the results alone: for each normaliser, how far the epoch and the setting that a score picks
are below the oracle's pick, beside the last epoch and an even draw. A grid computes the scores that
its key `scores` names, fit those of --scores. Nothing is trained and nothing is changed.

examples:
  python run.py selection runs/digits
  python run.py selection runs/digits runs/tune-digits --out runs/selection
"""

from __future__ import annotations

from pathlib import Path

from da.cli._options import command_line, output_folder, parse, plain_parser


def main(argv: list[str]) -> int:
    """Runs the command on the command line after ``selection``; returns 0."""
    parser = plain_parser("selection", __doc__)
    parser.add_argument("folders", nargs="+", help="output folders of ablate, tune or fit")
    parser.add_argument(
        "--out", type=str, help="folder of the report, by default selection in the first of them"
    )
    options = parse(parser, argv)
    folders = [Path(folder).expanduser() for folder in options.folders]
    out = output_folder(options.out if options.out is not None else str(folders[0] / "selection"))
    from da.reports import score_choices, score_report, terminal

    results = score_choices.load_results(folders)
    made = score_choices.choices(results)
    found = score_choices.summaries(made)
    console = terminal.console()
    for kind, title in score_report.TITLES.items():
        if shown := score_report.rows(found, kind):
            terminal.show_rows(console, f"{title}, in points", score_report.HEADER, shown)
    command = command_line("selection", argv)
    files = score_report.write_report(out, command, results, made, found)
    console.print(f"written: {files}", markup=False, soft_wrap=True)
    return 0
