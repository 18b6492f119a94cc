"""The report of a study of target statistics: tables, a picture per question, CSV files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from da.grids.statistics_run import StudyPlan
from da.grids.statistics_study import REESTIMATED, Question
from da.ops.csv_text import csv_text
from da.ops.files import write_atomically
from da.reports.statistics import Summary
from da.reports.target_statistics_answers import Answers, load
from da.reports.texts import count, grid_table, percent

TITLES: dict[Question, str] = {
    "images": "Few images",
    "mixture": "Mixed domains",
    "label_shift": "Shifted labels",
}

AXES: dict[Question, str] = {
    "images": "target images that the statistics are of (of a stream: in each batch)",
    "mixture": "share of images of {other}",
    "label_shift": "order of the target's images: iid, Dirichlet (concentration), sorted by class",
}

WAYS = {
    REESTIMATED: "statistics re-estimated on training images",
    "BatchStatistics": "statistics of each test batch",
}
"""What ways are called in words; an adapter is called by its name."""

COLUMNS = (
    *("cell", "task", "method", "norm", "seed", "lr"),
    *("question", "other", "value", "way", "draw", "n", "accuracy", "missing"),
)
"""Of runs.csv; the last one says why a network has no answers."""

OTHERS = {"source": "the source", "others": "other domains"}

LEGEND = (
    "Target test accuracy in percent: mean ± standard deviation over the seeds of the mean over "
    "{tasks}, draws averaged first. *{reestimated}*: the statistics are re-estimated on "
    "training images that the question chooses, then kept for the whole test split. Each other "
    "way predicts the test split as a stream, batch after batch: *BatchStatistics* takes the "
    "statistics of the batch at hand and learns nothing; *TENT* also takes a step on the scales "
    "and shifts (g and b of WA) after each batch. A network without batch norm has no statistics: "
    "its lines are flat by construction, but for what TENT learns. With one image, layers that "
    "get one value per channel keep the statistics of the training. The target's labels order the "
    "shifted streams and score predictions; no network sees them."
)

NOT_DEFINED = (
    "–: batch norm that keeps statistics of each domain (dsbn) is not re-estimated on images of "
    "another."
)


def field_text(field: Summary | None) -> str:
    """``93.1 ± 0.4``, or a dash."""
    if field is None:
        return "–"
    return percent(field.mean) + (f" ± {percent(field.std)}" if field.std is not None else "")


def markdown(answers: Answers) -> str:
    """The whole report."""
    study = answers.study
    said = [
        f"- {name}: `{text}`" if name == "command" else f"- {name}: {text}"
        for name, text in facts(answers)
    ]
    lines = ["# When do target statistics fail?", "", *said, ""]
    tasks = f"{len(answers.tasks)} of {count(len(study.plan.tasks), 'task')}"
    lines += [LEGEND.format(tasks=tasks, reestimated=REESTIMATED), ""]
    if not all(answers.is_defined(c, w) for c in answers.columns for w in study.questions.ways):
        lines += [NOT_DEFINED, ""]
    if answers.columns:
        trained = [[c, field_text(answers.as_trained(c))] for c in answers.columns]
        lines += ["## As trained", "", *grid_table(["network", "accuracy"], trained), ""]
    question = None
    for asked, other, values in study.questions.series() if answers.columns else ():
        if asked != question:
            lines += [f"## {TITLES[asked]}", "", f"![{TITLES[asked].lower()}]({asked}.png)", ""]
        question = asked
        lines += [f"Along the lines: {axis(asked, other)}.", ""]
        lines += [*grid_table(*table(answers, asked, other, values)), ""]
        lines += [f"- {text}" for text in flips(answers, asked, other, values)] + [""]
    if answers.left_out:
        lines += [f"Complete in no task, so left out: {', '.join(answers.left_out)}.", ""]
    if absent := [answer for answer in answers.all if answer.missing]:
        lines += [f"## Missing: {len(absent)} of {len(answers.all)} networks", ""]
        lines += [f"- {answer.entry.cell}: {answer.missing}" for answer in absent] + [""]
    return "\n".join(lines)


def axis(question: Question, other: str) -> str:
    """What the values of a question are, in words."""
    return AXES[question].format(other=OTHERS.get(other, other))


def facts(answers: Answers) -> list[tuple[str, str]]:
    """What has to be known of a study, each under its name."""
    study, plan = answers.study, answers.study.plan
    asked = study.questions
    found = [answer.measurements for answer in answers.all if answer.measurements]
    said = [
        ("command", plan.command),
        (
            "networks",
            f"{plan.grid.data}, {', '.join(plan.tasks)}; "
            f"{', '.join(plan.grid.methods)}; seeds {', '.join(map(str, plan.grid.seeds))}; "
            f"model {plan.grid.model or 'default'}; {len(found)} of {len(answers.all)} measured",
        ),
        (
            "streams",
            f"batches of {asked.batch_size}, statistics of {asked.statistics_images} "
            f"training images (fewer where a domain has fewer) where their number is not what is "
            f"asked, {asked.draws} draws",
        ),
    ]
    options = [f"{name} {options or ''}".strip() for name, options in asked.adapters.items()]
    said += [("adapters", ", ".join(options))] if options else []
    images = {m.spec.target: m.images for m in found}
    counts = [f"{d} {n['train']} in training, {n['test']} tested" for d, n in images.items()]
    said.append(("images of the target", ", ".join(counts)))
    code = {m.versions.get("code", "") for m in found}
    for name, values in {
        "machine": {m.machine for m in found},
        "code": code,
        "versions": {
            ", ".join(f"{k} {v}" for k, v in m.versions.items() if k != "code") for m in found
        },
    }.items():
        note = " (they differ: WARNING)" if len(values) > 1 and name != "machine" else ""
        said.append((name, f"{'; '.join(sorted(values))}{note}"))
    return said


def table(
    answers: Answers, question: Question, other: str, values: tuple[str, ...]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of one question: a row for each way and network."""
    rows = []
    for way in answers.study.questions.ways:
        for column in answers.columns:
            fields = [answers.average(column, question, other, value, way) for value in values]
            rows.append([f"{column}, {way}", *map(field_text, fields)])
    return ["network, way", *values], rows


def flips(answers: Answers, question: Question, other: str, values: tuple[str, ...]) -> list[str]:
    """Where statistics of the target are worse than none, and than those of the training.

    Means are compared, and no claim is made that a difference is more than noise.
    """
    challenger = answers.study.plan.grid.comparison[0]
    references = [c for c in answers.columns if c.rpartition(" ")[2] == challenger]
    lines = []
    for way in answers.study.questions.ways:
        for column in answers.with_statistics:
            found = {v: answers.average(column, question, other, v, way) for v in values}
            means = {value: field.mean for value, field in found.items() if field}
            if not means:
                continue  # not defined for this network
            parts = []
            for reference in dict.fromkeys([column, *references]):
                level = answers.as_trained(reference).mean
                below = [value for value, mean in means.items() if mean < level]
                where = ", ".join(below) if below else "nowhere"
                where = "everywhere" if len(below) == len(values) else where
                parts.append(f"below {reference} as trained ({percent(level)}): {where}")
            lines.append(f"{column}, {way}: {'; '.join(parts)}")
    return lines


def tidy(answers: Answers) -> list[dict[str, Any]]:
    """One row per accuracy: every network, question, value, way and draw."""
    rows = []
    for answer in answers.all:
        cell, found = answer.entry.cell, answer.measurements
        base: dict[str, Any] = {
            "cell": cell.id,
            "task": cell.task,
            "method": cell.method,
            "norm": cell.norm,
        }
        base |= {"seed": str(cell.seed), "lr": f"{cell.lr:g}"}
        if found is None:
            rows.append({**base, "missing": answer.missing})
            continue
        trained = {"n": found.images["test"], "accuracy": found.trained}
        rows.append({**base, "question": "as trained", **trained})
        rows += [{**base, **one.model_dump()} for one in found.measured]
    return [{**dict.fromkeys(COLUMNS), **row} for row in rows]


def table_rows(answers: Answers) -> list[dict[str, Any]]:
    """The tables as rows of a CSV: per task and over tasks, in percent, unrounded."""
    rows = []
    for question, other, values in answers.study.questions.series() if answers.columns else ():
        for way in answers.study.questions.ways:
            for value in values:
                for task in [*answers.tasks, "average"]:
                    one = answers if task == "average" else _only(answers, task)
                    row: dict[str, Any] = {"question": question, "other": other, "way": way}
                    row |= {"value": value, "task": task}
                    for column in answers.columns:
                        field = one.average(column, question, other, value, way)
                        mean, std = (field.mean, field.std) if field else (None, None)
                        for name, number in (("mean", mean), ("std", std)):
                            scaled = None if number is None else round(100 * number, 4)
                            row[f"{column} {name}"] = scaled
                    rows.append(row)
    return rows


def _only(answers: Answers, task: str) -> Answers:
    return Answers(answers.study, answers.all, answers.columns, [task], answers.left_out)


def write_report(out: Path, study: StudyPlan) -> tuple[Answers, str]:
    """Rebuilds all files of the report from the results on disk.

    Returns:
        What they show, and the files in words.
    """
    from da.reports.target_statistics_figures import save_figures
    from da.reports.target_statistics_page import html

    answers = load(out, study)
    write_atomically(out / "report.html", html(answers))
    write_atomically(out / "report.md", markdown(answers))
    write_atomically(out / "table.csv", csv_text(table_rows(answers)))
    write_atomically(out / "runs.csv", csv_text(tidy(answers)))
    pictures = save_figures(out, answers)
    names = [path.name for path in pictures if path.suffix == ".png"]
    texts = ["report.html", "report.md", "table.csv", "runs.csv"]
    return answers, f"{out}/{', '.join([*texts, *names])}"
