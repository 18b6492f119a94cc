"""The one reader of files that hold weights: which tensors are a network's, behind which prefix."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from da.errors import UserError
from da.ops.files import CHOICE, split_choice
from da.ops.tensor_files import read_tensors

#: Where training scripts put a network's tensors beside their optimiser's and their epoch.
WRAPPERS = ("state_dict", "model", "net", "model_state_dict")

#: Where they put an average of its weights: it is taken where a file has nothing else, or by name.
AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "teacher")

#: Parts of names that wrappers of modules put wherever they stand.
OF_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}

ADVICE = "give a .pth, .pt or .safetensors file with a state dict, a checkpoint, or 'imagenet'"


#: Of a batch norm's passes; it has no part in what a network computes.
_COUNTER = "num_batches_tracked"

log = logging.getLogger(__name__)


class WeightFile(NamedTuple):
    """What a file holds.

    Attributes:
        path: of it.
        tensors: by name, unwrapped from what a training script put around them.
        settings: the arguments of the model, ``norm`` and ``norm_options`` among them, where a
            training here wrote the file; None otherwise.
        classes: their names, in the order of the classifier; none where it is from elsewhere.
        backbone: what the tensors of the backbone that is evaluated, a teacher's, are named
            behind, where a training here wrote the file.
    """

    path: str
    tensors: dict[str, Tensor]
    settings: Mapping[str, Any] | None = None
    classes: Sequence[str] = ()
    backbone: str | None = None

    @property
    def norm(self) -> str | None:
        """The normaliser of the backbone of a training here; None where it is plain batch norm."""
        if self.settings is None or "backbone" not in self.settings.get("scope", ("backbone",)):
            return None
        norm: str = self.settings["norm"]
        return None if norm == "bn" else norm


def read_weight_file(path: str) -> WeightFile:
    """Reads a file of torch.save or safetensors without running any code in it.

    Raises:
        UserError: where it can't be read, or holds no tensors by name.
    """
    content = read_tensors("weights", split_choice(path)[0], ADVICE)
    settings = _settings_of(content)
    classes = content["classes"] if settings is not None else ()
    backbone = content.get("backbone") if isinstance(content, dict) else None
    name = backbone if isinstance(backbone, str) else None  # a file from elsewhere may hold tensors
    tensors = unwrap_tensors(content, "weights", path, ADVICE)
    return WeightFile(path, tensors, settings, classes, name)


def _settings_of(content: Any) -> dict[str, Any] | None:
    """The arguments of the model in a checkpoint of this library.

    Other programs may keep a ``spec`` or ``settings`` of their own beside the weights.
    """
    if not isinstance(content, dict) or "classes" not in content:
        return None
    spec, settings = content.get("spec"), content.get("settings")
    model = settings.get("model") if isinstance(settings, dict) else None
    if isinstance(spec, dict) and {"norm", "norm_options"} <= spec.keys():
        named = {name: spec[name] for name in ("norm", "norm_options")}
        return {**spec.get("model_args", {}), **named}
    if isinstance(model, dict):
        return {"norm": "bn", "norm_options": None, **model.get("init_args", {})}
    return None


def unwrap_tensors(content: Any, kind: str, path: str, advice: str) -> dict[str, Tensor]:
    """The tensors of a file by name, without what a training script put around them.

    Args:
        content: of the file.
        kind: what the file is to the user, ``"weights"``; begins the error.
        path: of the file, for the error.
        advice: what to give instead; ends the error.

    Raises:
        UserError: where no network's tensors are in it, or those of several.

    >>> import torch
    >>> file = {"epoch": 3, "model": {"fc.weight": torch.zeros(2, 3)}}
    >>> list(unwrap_tensors(file, "weights", "a.pth", ADVICE))
    ['fc.weight']
    """
    file, part = split_choice(path)
    if part is not None and isinstance(content, dict) and isinstance(content.get(part), dict):
        content, part = content[part], None
    for _ in range(len(WRAPPERS)):
        if not isinstance(content, dict):
            break
        if content and all(isinstance(value, Tensor) for value in content.values()):
            tensors = {plain_name(str(name)): value for name, value in content.items()}
            return tensors if part is None else _behind(tensors, part, kind, file)
        inside = [key for key in WRAPPERS if isinstance(content.get(key), dict)]
        averages = [key for key in AVERAGES if isinstance(content.get(key), dict)]
        if len(inside or averages) > 1:
            either = inside or averages
            raise UserError(
                f"{kind}: '{path}' holds {' and '.join(either)}, either could be the network; "
                f"name one: {file}{CHOICE}{either[0]}"
            )
        if inside and (others := _other_weights(content, inside[0])):
            _warn_once(
                f"{kind}: '{path}' holds {inside[0]} beside {' and '.join(others)}, and "
                f"{inside[0]} is taken; to have the other, name it: {file}{CHOICE}{others[0]}"
            )
        content = next((content[key] for key in (*inside, *averages)), None)
    raise UserError(f"{kind}: '{path}' holds no state dict of tensors; {advice}")


def plain_name(name: str) -> str:
    """The name of a tensor without what torch.compile and others that wrap modules put into it.

    >>> plain_name("backbone._orig_mod.conv1.weight")
    'backbone.conv1.weight'
    """
    return ".".join(part for part in name.split(".") if part not in OF_WRAPPERS)


def _behind(tensors: Mapping[str, Tensor], part: str, kind: str, file: str) -> dict[str, Tensor]:
    """The tensors behind a prefix that the user names."""
    chosen = {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}
    if not chosen:
        raise UserError(
            f"{kind}: '{file}{CHOICE}{part}' names nothing in that file, neither a key of tensors "
            f"nor the beginning of their names, of which the first is {next(iter(tensors))}"
        )
    return chosen


def _other_weights(content: Mapping[str, Any], taken: str) -> list[str]:
    """Under which keys a file holds tensors by name as well: averages of its weights (EMA)."""
    dicts = {k: v for k, v in content.items() if k != taken and isinstance(v, dict) and v}
    return [k for k, v in dicts.items() if all(isinstance(x, Tensor) for x in v.values())]


def count_prefixes(names: Iterable[str], wanted: Collection[str]) -> Counter[str]:
    """How many of the wanted names stand behind each prefix.

    >>> count_prefixes(["module.fc.weight", "module.fc.bias", "fc.bias"], ["fc.weight", "fc.bias"])
    Counter({'module.': 2, '': 1})
    """
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for i in range(len(parts)):
            if ".".join(parts[i:]) in wanted:
                counts["".join(f"{part}." for part in parts[:i])] += 1
    return counts


def load_weight_file(
    model: nn.Module,
    file: WeightFile,
    ignore: tuple[str, ...] = (),
    twin: Callable[[], str | None] | None = None,
) -> None:
    """Puts the tensors of a file into a network, wherever in the file they are.

    Where no name in the file is one of the network's, the order and the shapes of the tensors tell
    which is which: another implementation of the network wrote it. A warning says so, since shapes
    don't tell what that one does between the tensors.

    Args:
        model: changed in place.
        file: its tensors, behind whatever prefix: those of a backbone within a whole classifier,
            of a module wrapped for several devices.
        ignore: first parts of names that may be absent from or extra in the file, such as the
            classifier's: heads are always new.
        twin: names another network whose tensors have the same shapes, if there is one.

    Raises:
        UserError: where they don't fit; says how many, and the first names of both.
    """
    own = {k: v for k, v in model.state_dict().items() if not k.startswith(ignore)}
    # num_batches_tracked came with PyTorch 0.4.1; older files lack it.
    needed = [name for name in own if not name.endswith(_COUNTER)]
    if (in_order := match_in_order(file.tensors, {k: own[k] for k in needed})) is not None:
        theirs, mine = next((theirs, mine) for mine, theirs in in_order.items())
        other = twin() if twin is not None else None
        hint = f"; {other} has tensors of the same shapes and may be the one" if other else ""
        _warn_once(
            f"weights: '{file.path}' names its tensors otherwise than {type(model).__name__} "
            f"('{theirs}' for '{mine}') and they are taken in their order, which fits by shapes; "
            "those don't tell padding, the batch norms' epsilon, activations, and the mean and "
            f"deviation of the images: see that they are those of the file{hint}"
        )
        model.load_state_dict({k: file.tensors[v] for k, v in in_order.items()}, strict=False)
        return
    prefix = _prefix_of(file, needed, type(model).__name__)
    state = {
        name.removeprefix(prefix): value
        for name, value in file.tensors.items()
        if name.startswith(prefix) and not name.removeprefix(prefix).startswith(ignore)
    }
    missing = [name for name in needed if name not in state]
    extra = [name for name in state if name not in own]
    shapes = [name for name in own if name in state and own[name].shape != state[name].shape]
    if missing or extra or shapes:
        first = (missing + extra + shapes)[0]
        theirs = next(iter(file.tensors), "nothing")
        raise UserError(
            f"weights: '{file.path}' does not fit {type(model).__name__}: {len(missing)} tensors "
            f"missing, {len(extra)} not in the network, {len(shapes)} of another shape "
            f"(first: {first}; the file's first name is {theirs})"
        )
    model.load_state_dict(state, strict=False)


@functools.cache
def _warn_once(text: str) -> None:
    """Warns of a file, which a training reads several times."""
    log.warning(text)


def match_in_order(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> dict[str, str] | None:
    """Which tensor of a file is which of a network's where all are named otherwise.

    They stand in the same order, of the same shapes and the same last parts of their names
    (``weight``, ``running_mean``); at the end there may be the two of a classifier.

    Returns:
        The network's names with the file's; None where a name is the same, or the order is not.

    >>> import torch
    >>> bias, weight = torch.zeros(4), torch.zeros(4, 3)
    >>> match_in_order({"_fc.weight": weight, "_fc.bias": bias}, {"head.weight": weight})
    {'head.weight': '_fc.weight'}
    """
    theirs = [name for name in tensors if not name.endswith(_COUNTER)]
    if not wanted or not 0 <= len(theirs) - len(wanted) <= 2 or count_prefixes(theirs, wanted):
        return None
    pairs = dict(zip(wanted, theirs, strict=False))
    for mine, name in pairs.items():
        same_kind = mine.rpartition(".")[2] == name.rpartition(".")[2]
        if not same_kind or wanted[mine].shape != tensors[name].shape:
            return None
    return pairs


def _prefix_of(file: WeightFile, needed: Collection[str], network: str) -> str:
    """The prefix behind which most of the names are; the empty one where none has more."""
    counts = count_prefixes(file.tensors, set(needed))
    whole = sorted(prefix for prefix, number in counts.items() if number == len(needed))
    if len(whole) > 1 and f"{file.backbone}." in whole:
        return f"{file.backbone}."
    if len(whole) > 1:
        places = ", ".join(f"'{prefix}…'" for prefix in whole)
        raise UserError(
            f"weights: '{file.path}' holds {network} {len(whole)} times ({places}); name one of "
            f"them: {split_choice(file.path)[0]}{CHOICE}{whole[0].removesuffix('.')}"
        )
    best = counts.most_common(1)
    return whole[0] if whole else best[0][0] if best else ""
