"""Draw what trained networks make of both domains, BN and WA side by side, for paper and lecture.

It takes checkpoints, the folder of a run, or the folder of a grid that kept its checkpoints, and
writes each picture as PNG, SVG and CSV into one folder. All networks see the same images.

  tsne         t-SNE of the features, by domain and by class
  a_distance   proxy A-distance: how well a linear classifier tells the domains apart
  mmd          maximum mean discrepancy of the domains at every layer
  confusion    which classes of the target are taken for which
  classes      accuracy by class of the target
  calibration  reliability diagram and expected calibration error on the target
  wrong        the images of the target that are wrong, surest mistakes first

The first three take --images of each domain; the others, which need labels of the target, take all
of its images. Where the target has none, they are left out, and t-SNE shows predicted classes.

examples:
  python run.py analyse runs/bn/last.ckpt runs/wa/last.ckpt --out pictures
  python run.py analyse runs/digits --task rendered-optical --method DANN --seed 0 --norms bn,wa
  python run.py analyse runs/bn --only tsne,mmd --images 500
  python run.py analyse last.ckpt --data.target photo --only confusion --features
"""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from da.cli._options import output_folder
from da.errors import UserError, unknown

if TYPE_CHECKING:
    from rich.progress import Progress

    from da.analysis.pictures.drawing import Picture
    from da.analysis.trained_networks import Subject, TrainedNetwork
    from da.cli._lightning import CLI
    from da.types import Role

PROG = "run.py analyse"

PICTURES = {
    **{"tsne": "tsne", "a_distance": "a_distance", "mmd": "mmd", "confusion": "confusion"},
    **{"classes": "class_accuracy", "calibration": "calibration", "wrong": "wrong"},
}
"""Every picture, and the file in :mod:`da.analysis.pictures` that draws it."""

OF_LABELS = ("confusion", "classes", "calibration", "wrong")
"""Those that need labels of the target."""

CHOOSING = ("task", "method", "seed", "norms")
"""Options that choose among the checkpoints of a folder."""

OPTIONS: dict[str, dict[str, Any]] = {
    "--out": {
        "type": str | None,
        "default": None,
        "help": "folder of the files; by default 'analysis' beside the first checkpoint, or of a "
        "folder with several runs analysis/TASK-METHOD-seedN in it",
    },
    "--only": {
        "type": str | None,
        "default": None,
        "help": f"some of {','.join(PICTURES)}; by default all",
    },
    "--images": {
        "type": int,
        "default": 1000,
        "help": "how many of each domain tsne, a_distance and mmd take: as many as both have, at "
        "most this number",
    },
    "--split": {
        "type": Literal["train", "validation", "test"],
        "default": "test",
        "help": "where the images come from; they are not augmented",
    },
    "--features": {
        "type": bool,
        "default": False,
        "nargs": "?",
        "const": True,
        "help": "also write features, logits, labels and names of all images to features-NAME.npz",
    },
    "--sampling_seed": {
        "type": int,
        "default": 0,
        "help": "of the choice of images, of t-SNE, and of the divisions of a_distance and mmd",
    },
    "--task": {
        "type": str | None,
        "default": None,
        "help": "of a folder with several: the task, rendered-optical",
    },
    "--method": {"type": str | None, "default": None, "help": "likewise the method, DANN"},
    "--seed": {"type": int | None, "default": None, "help": "likewise the seed of the training"},
    "--norms": {
        "type": str | None,
        "default": None,
        "help": "of a folder: the normalisers, in this order, bn,wa",
    },
}


def main(argv: list[str]) -> int:
    """Runs every network over both domains, draws, and prints the numbers to remember."""
    from da.analysis.feature_files import write_features
    from da.analysis.pictures.drawing import write_picture
    from da.reports.terminal import console, show_rows

    if not argv:
        raise UserError(
            f"expected checkpoints or a folder of them: python {PROG} CHECKPOINT|FOLDER ... "
            "[options], or --help"
        )
    words = list(takewhile(lambda word: not word.startswith("-"), argv))
    options = argv[len(words) :]
    paths, beside = checkpoints(words, options)
    asked, networks, subject = observe_all(paths, options, beside)
    files: list[Path] = []
    columns = [["network", *(network.name for network in networks)]]
    with progress() as bar:
        task = bar.add_task("", total=len(asked.pictures))
        for name in asked.pictures:
            bar.update(task, description=f"drawing {name}")
            try:
                picture = draw(name, networks, subject)
            except UserError as error:  # what these networks don't have
                if asked.pictures == [name]:
                    raise
                print(f"{error}: it is left out")
                continue
            files += write_picture(picture, asked.out / name)
            columns += [list(picture.headline)] if picture.headline else []
            bar.advance(task)
    if asked.features:
        files += write_features(asked.out, networks, subject)
    header, *rows = (list(line) for line in zip(*columns, strict=True))
    show_rows(console(), f"{subject.data.task}, {subject.shared}".rstrip(", "), header, rows)
    print(images_in_words(asked, networks, subject))
    print(f"written to {asked.out}: {', '.join(file.name for file in files)}")
    return 0


class Asked(NamedTuple):
    """What is to be made.

    Attributes:
        pictures: names, in the order of :data:`PICTURES`.
        features: whether to write them.
        out: folder of the files.
    """

    pictures: list[str]
    features: bool
    out: Path


def checkpoints(words: list[str], options: list[str]) -> tuple[list[str], Path]:
    """The checkpoints that a command line means, and the folder for the files beside them."""
    from da.analysis.kept_checkpoints import Wanted, choose, find_checkpoints
    from da.cli._lightning import value_of

    given = {name: value_of(f"--{name}", options) for name in CHOOSING}
    folders = [word for word in words if Path(word).is_dir()]
    for name, value in given.items():
        if value is not None and words and all(Path(word).is_file() for word in words):
            raise UserError(f"{name}: it chooses among the checkpoints of a folder; leave it out")
    wanted = Wanted(
        given["task"],
        given["method"],
        given["seed"],
        None if given["norms"] is None else [name.strip() for name in given["norms"].split(",")],
    )
    paths: list[str] = []
    beside: Path | None = None
    for word in words:
        if word not in folders:
            paths.append(word)
            beside = beside or Path(word).parent / "analysis"
            continue
        folder = Path(word)
        found = find_checkpoints(folder)
        chosen = choose(found, wanted, folder)
        paths += [str(one.path) for one in chosen]
        spec = chosen[0].spec
        name = f"{spec.task.replace('->', '-')}-{spec.method}-seed{spec.seed}"
        several = [name.replace("/", "-")] if len(found) > 1 else []
        beside = beside or Path(folder, "analysis", *several)
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise UserError(f"checkpoint: '{twice[0]}' is given twice")
    return paths, beside or Path("analysis")


def observe_all(
    paths: list[str], options: list[str], beside: Path
) -> tuple[Asked, list[TrainedNetwork], Subject]:
    """Runs the networks, one at a time; what is wrong with an option is said before the first.

    Args:
        paths: of the checkpoints.
        options: the rest of the command line.
        beside: folder of the files unless ``--out`` names one.
    """
    from dataclasses import replace

    from da.analysis.trained_networks import (
        FEWEST,
        Subject,
        name_networks,
        refuse_other_images,
    )
    from da.cli._checkpoints import from_checkpoint

    networks: list[TrainedNetwork] = []
    asked: Asked | None = None
    first: Subject | None = None
    for arguments in [[path, *options] for path in paths] or [options]:
        cli, path = from_checkpoint(arguments, PROG, __doc__ or "", OPTIONS)
        refuse_choices_in_files(cli, options)
        config, data = cli.config, cli.data
        names = pictures(config["only"])
        out = output_folder(str(beside) if config["out"] is None else config["out"])
        if config["images"] < FEWEST:
            raise UserError(
                f"images: expected a whole number from {FEWEST}, got {config['images']}"
            )
        data.prepare_data()
        data.setup("test")
        subject = Subject(data, config["split"], config["images"], config["sampling_seed"])
        if asked is None or first is None:
            first = subject
            asked = Asked(without_labels(names, subject), config["features"], out)
        else:
            refuse_other_images(first, subject, (networks[0].facts["checkpoint"], path))
        networks.append(observe_one(cli, path, subject, asked))
    assert asked is not None
    assert first is not None
    named, shared = name_networks(networks)
    return asked, named, replace(first, shared=shared)


def observe_one(cli: CLI, path: str, subject: Subject, asked: Asked) -> TrainedNetwork:
    """Runs the network of a command over both domains."""
    from da.analysis.trained_networks import ROLES, observe
    from da.engine.checkpoints import columns_by_name

    columns = columns_by_name(cli.checkpoint["classes"], subject.data.classes, path)
    scored = any(name in OF_LABELS for name in asked.pictures)
    whole: dict[Role, bool] = {"source": asked.features, "target": asked.features or scored}
    distances = "mmd" in asked.pictures
    sizes = {role: len(subject.data.set_of(role, subject.split)) for role in ROLES}
    total = sum(sizes[role] if whole[role] else subject.count for role in ROLES)
    with progress() as bar:
        task = bar.add_task(path, total=total + 2 * distances * subject.count)
        return observe(
            cli.model,
            subject,
            facts(cli, path),
            columns,
            whole,
            distances,
            cli.trainer.precision_plugin.forward_context,
            lambda images: bar.advance(task, images),
        )


def facts(cli: CLI, path: str) -> dict[str, Any]:
    """What tells a network from others; a file from elsewhere says nothing of its training."""
    spec = cli.checkpoint.get("spec")
    hparams = cli.model.hparams
    statistics = cli.checkpoint.get("statistics")
    return {
        "norm": hparams["norm"] + (f" (statistics of {statistics})" if statistics else ""),
        "method": spec.method if spec else None,
        "backbone": hparams["backbone"],
        "seed": spec.seed if spec else None,
        "lr": spec.lr if spec else None,
        "batch_size": spec.batch_size if spec else None,
        "checkpoint": path,
    }


def pictures(only: str | None) -> list[str]:
    """The names of the pictures that are asked for, in the order of :data:`PICTURES`."""
    given = [*PICTURES] if only is None else [name.strip() for name in only.split(",")]
    for name in given:
        if name not in PICTURES:
            raise unknown("picture", name, PICTURES)
    return [name for name in PICTURES if name in given]


def without_labels(names: list[str], subject: Subject) -> list[str]:
    """Those of the pictures that can be made, and a line about the others.

    Raises:
        UserError: where none is left.
    """
    needy = [name for name in names if name in OF_LABELS]
    if subject.has_labels or not needy:
        return names
    left = [name for name in names if name not in needy]
    why = f"the images of {subject.data.target} have no labels"
    if not left:
        raise UserError(f"only: {why}, which {', '.join(needy)} would need")
    seen = "; tsne shows predicted classes" if "tsne" in left else ""
    print(f"{why}: {', '.join(needy)} are left out{seen}")
    return left


def refuse_choices_in_files(cli: CLI, options: list[str]) -> None:
    """Refuses what chooses among checkpoints in a configuration: they are chosen before it."""
    from da.cli._lightning import value_of

    for name in CHOOSING:
        if cli.config[name] is not None and value_of(f"--{name}", options) is None:
            raise UserError(f"{name}: give it on the command line, not in a file")


def draw(name: str, networks: list[TrainedNetwork], subject: Subject) -> Picture:
    """One of :data:`PICTURES`."""
    from importlib import import_module

    module = import_module(f"da.analysis.pictures.{PICTURES[name]}")
    drawn: Picture = module.draw(networks, subject)
    return drawn


def images_in_words(asked: Asked, networks: list[TrainedNetwork], subject: Subject) -> str:
    """Which images the numbers are of."""
    sizes = [
        f"{subject.count} of {len(subject.data.set_of(role, subject.split))} of the {role}"
        for role in ("source", "target")
    ]
    said = f"images of the {subject.split} split: {' and '.join(sizes)}, the same for all networks"
    if any(name in OF_LABELS for name in asked.pictures):
        said += f"; scored on {len(networks[0].target.labelled.names)} of the target"
    return said


def progress() -> Progress:
    """A bar, on terminals alone."""
    from rich.progress import Progress

    from da.reports.terminal import console

    return Progress(console=console(), transient=True, disable=not console().is_terminal)
