"""Where the parts lie and what they are called: in a checkout, or installed as a package.

A checkout has ``da/``, ``datasets/`` and ``configs/`` side by side. A wheel carries them as ``da``,
``da_datasets`` and ``da/configs``, since ``datasets`` is the name of a package of Hugging Face's.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_file_location, spec_from_loader
from pathlib import Path
from types import ModuleType

_DA = Path(__file__).absolute().parent

INSTALLED = (_DA / "configs").is_dir()
"""Whether this is a wheel's copy; an editable installation is a checkout."""

CHECKOUT_NAME = "datasets"
"""The package of data sets in a checkout, and in everything that is stored."""

PACKAGE_NAME = "da_datasets"
"""The same package when it is installed; in a checkout both names mean the same modules."""

CONFIGS = "configs"


def configs_root() -> Path:
    """The folder in which ``configs`` lies."""
    return _DA if INSTALLED else _DA.parent


def data_sets_folder() -> Path:
    """The folder of the package of data sets."""
    return _DA.parent / (PACKAGE_NAME if INSTALLED else CHECKOUT_NAME)


def packaged_config(name: str) -> Path | None:
    """The configuration of a name among those that come with the library.

    Args:
        name: ``"configs/ablations/digits.yaml"``, with or without ``configs/`` and ``.yaml``.

    >>> [packaged_config(name) for name in ("ablations/no_such_grid", "../pyproject.toml", "")]
    [None, None, None]
    """
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        return None
    within = path if path.parts[0] == CONFIGS else CONFIGS / path
    # Not with_suffix: what follows a dot may be a part of the name.
    for one in (within, within.with_name(f"{within.name}.yaml")):
        if (file := configs_root() / one).is_file():
            return file
    return None


def program() -> str:
    """How the program was called: ``python run.py``, ``da`` or ``python -m da``."""
    called = Path(sys.argv[0] if sys.argv else "")
    if called.stem == "__main__" and called.parent.name == "da":
        return "python -m da"
    return "da" if called.stem == "da" or INSTALLED else "python run.py"


def as_called(text: str) -> str:
    """A text that names commands as ``python run.py COMMAND``, by what was called instead."""
    return text.replace("python run.py", program())


def _name_of_data_sets() -> str:
    """What the package of data sets is imported as in this process."""
    if INSTALLED or PACKAGE_NAME in sys.modules:
        return PACKAGE_NAME
    with suppress(ImportError, ValueError):  # something that is no package stands in its place
        spec = find_spec(CHECKOUT_NAME)
        places = (spec and spec.submodule_search_locations) or ()
        ours = data_sets_folder().resolve()
        if any(Path(place).resolve() == ours for place in places):
            return CHECKOUT_NAME
    return PACKAGE_NAME


class _PackageName(MetaPathFinder, Loader):
    """Has a checkout's package of data sets found under its name in a wheel.

    Where ``datasets`` is ours both names give the same modules, so that no class exists twice;
    where it is another package, ours is imported from its folder under that name alone.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The place of ``da_datasets`` or a module in it."""
        first, _, rest = fullname.partition(".")
        if first != PACKAGE_NAME:
            return None
        if DATA_SETS == CHECKOUT_NAME:
            with suppress(ModuleNotFoundError):
                known = find_spec(f"{CHECKOUT_NAME}{fullname[len(PACKAGE_NAME) :]}")
                return known and spec_from_loader(fullname, self)
        if rest:
            return None  # found in the folder of its package
        folder = data_sets_folder()
        return spec_from_file_location(
            fullname, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )

    def exec_module(self, module: ModuleType) -> None:
        """Puts the module of the usual name in the place of this one."""
        usual = f"{CHECKOUT_NAME}{module.__name__[len(PACKAGE_NAME) :]}"
        sys.modules[module.__name__] = importlib.import_module(usual)


DATA_SETS = _name_of_data_sets()
"""The name by which this process imports the package of data sets."""

if not INSTALLED and PACKAGE_NAME not in sys.modules:
    sys.meta_path.insert(0, _PackageName())


def stored_name(dotted: str) -> str:
    """The dotted name of a class as it is stored, the same however this library is installed.

    >>> stored_name("da_datasets.digits.Digits"), stored_name("datasets.digits.Digits")
    ('datasets.digits.Digits', 'datasets.digits.Digits')
    >>> stored_name("my_sets.Mine")
    'my_sets.Mine'
    """
    first, dot, rest = dotted.partition(".")
    return f"{CHECKOUT_NAME}{dot}{rest}" if first in (DATA_SETS, PACKAGE_NAME) else dotted


def importable_name(name: str) -> str:
    """The name by which this process imports the class of a stored name; others stay.

    ``datasets.digits.Digits`` is ours wherever we have such a module, and else whatever Python
    finds: a package of the user's, or Hugging Face's, may be called so, too.
    """
    first, _, rest = name.partition(".")
    module = rest.rpartition(".")[0]
    if first in (CHECKOUT_NAME, PACKAGE_NAME) and first != DATA_SETS and module:
        with suppress(ModuleNotFoundError):
            if find_spec(f"{DATA_SETS}.{module}") is not None:
                return f"{DATA_SETS}.{rest}"
    return name
