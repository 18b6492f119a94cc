"""What `fit --help` prints: names from disk and the options that people set, in no time."""

from __future__ import annotations

import ast
from pathlib import Path

from da.cli._fit_options import OF_THE_SPEC, OF_THE_TRAINER
from da.installation import as_called, data_sets_folder, program

ROOT = Path(__file__).parents[2]

#: The options that people set, with their defaults as they are written.
COMMON: dict[str, tuple[str, str]] = {
    "--data.source": ("rendered", "labelled domain, or several with commas"),
    "--data.target": ("optical", "domain that is adapted to, or the path of a folder"),
    "--data.root": ("", "folder of the images, of sets that are not embedded"),
    "--data.batch_size": ("32", "images of each domain in a batch"),
    "--data.steps_per_epoch": ("longest", "batches of an epoch, or source, target, longest"),
    "--data.num_workers": ("0", "processes that load images"),
    "--model.norm": ("bn", "normaliser"),
    "--model.backbone": ("digits_resnet", "network"),
    "--model.weights": ("", "imagenet, or a file with weights to start from"),
    "--model.lr": ("0.1; 0.01", "learning rate: from scratch; of pretrained weights"),
    "--model.optimizer": ("sgd", "sgd, adam, adamw"),
    "--model.weight_decay": ("0.001", "times a weight, added to its gradient"),
    "--trainer.max_epochs": ("10", "length of the training"),
    "--trainer.accelerator": ("auto", "cpu, gpu, mps"),
    "--seed_everything": ("0", "of weights, order and augmentation"),
    "--scores": (
        "",
        "pick epochs without target labels: DEV, … with commas",
    ),
    "--logger": ("csv", "csv, tensorboard, wandb, mlflow, none; several with commas"),
    "--out": ("", "folder of the run; a new one under runs/fit unless given"),
    "--ckpt_path": ("", "go on from this checkpoint"),
    "--config": ("", "YAML file of options; of several the later ones win"),
}


def print_help(description: str) -> int:
    """Prints the help of fit; nothing heavy is imported."""
    width = max(map(len, COMMON))
    common = [
        f"  {name:<{width}}  {default:<14} {text}" for name, (default, text) in COMMON.items()
    ]
    trainer = {**OF_THE_SPEC, **OF_THE_TRAINER}
    long = max(map(len, trainer))
    names = {
        "methods": class_names("da/methods", "Method"),
        "normalisers": normaliser_names(),
        "backbones": backbone_names(),
        "data sets": class_names(data_sets_folder().name, "LightningDataModule"),
    }
    summary, _, more = description.partition("\n")
    lines = [
        f"usage: {program()} fit [--model METHOD] [--data SET] [options]",
        "",
        summary,
        "",
        *(_wrapped(f"{kind + ':':<13}", found) for kind, found in names.items()),
        "",
        "options that people set, with their defaults:",
        *common,
        "",
        "options of a method or a data set: --model.help METHOD, --data.help SET",
        "",
        "options of the trainer, --trainer.NAME:",
        *(f"  {name:<{long}}  {text}" for name, text in trainer.items()),
        as_called(more).rstrip(),
    ]
    print("\n".join(lines), flush=True)
    return 0


def _wrapped(title: str, names: list[str]) -> str:
    lines, line = [], title
    for i, name in enumerate(names):
        word = name + ("," if i + 1 < len(names) else "")
        if len(line) + len(word) > 98:
            lines.append(line.rstrip())
            line = " " * len(title)
        line += word + " "
    return "\n".join([*lines, line.rstrip()])


def class_names(package: str, root: str) -> list[str]:
    """The public classes of a package's own files that extend a class, by inheritance as written.

    Args:
        package: a folder, ``"da/methods"``.
        root: the name of the class; those that also extend ``ABC``, or have an abstract method of
            their own, are parts of others.
    """
    shown, bases = [], _bases(package)
    for path in sorted((ROOT / package).glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
                continue
            if "ABC" not in bases[node.name] and not _is_abstract(node):
                shown.append(node.name)
    return sorted(name for name in shown if _extends(name, root, bases))


def _is_abstract(node: ast.ClassDef) -> bool:
    """Whether a method of the class's own body is abstract."""
    functions = [one for one in node.body if isinstance(one, ast.FunctionDef)]
    marks = (ast.unparse(mark) for one in functions for mark in one.decorator_list)
    return any(mark.rpartition(".")[2] == "abstractmethod" for mark in marks)


def _bases(folder: str) -> dict[str, list[str]]:
    """What each class in a folder extends, as written; a name nearer to the top goes first."""
    bases: dict[str, list[str]] = {}
    for path in sorted((ROOT / folder).rglob("*.py"), key=lambda path: len(path.parts)):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                names = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
                bases.setdefault(node.name, names)
    return bases


def _extends(name: str, root: str, bases: dict[str, list[str]]) -> bool:
    return any(base == root or _extends(base, root, bases) for base in bases.get(name, []))


def _constants(folder: str, variable: str) -> list[tuple[str, dict[str, ast.expr]]]:
    """The classes in a folder that set a variable, and all that they set."""
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.ClassDef):
                continue
            values: dict[str, ast.expr] = {}
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    if line.value is not None:
                        values[line.target.id] = line.value
                elif isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
                    values[line.targets[0].id] = line.value
            if variable in values:
                found.append((node.name, values))
    return found


def normaliser_names() -> list[str]:
    """The normalisers' short names, those composed with WeightAlign as ``wa+gn``."""
    plain, composed, bases = [], [], _bases("da/norms")
    for kind, values in _constants("da/norms", "name"):
        name, composes = values["name"], values.get("composes")
        if not isinstance(name, ast.Constant) or not name.value:
            continue
        plain.append(str(name.value))
        refuses = isinstance(composes, ast.Constant) and not composes.value
        if _extends(kind, "ActivationNormaliser", bases) and not refuses:
            composed.append(f"wa+{name.value!s}")
    return sorted([*plain, *composed])


def backbone_names() -> list[str]:
    """The backbones' names; of timm's models there are too many to list."""
    names: list[str] = []
    for _, values in _constants("da/networks/backbones", "names"):
        try:
            names += ast.literal_eval(values["names"])
        except ValueError:  # computed where it is imported
            continue
    return [*sorted(names), "any of timm's as timm/NAME"]
