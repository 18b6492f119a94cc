"""The rules of the house: which way imports go, what is imported when, how long files are."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([ROOT / "run.py", *(ROOT / "da").rglob("*.py"), *(ROOT / "datasets").rglob("*.py")])

#: Each part may import itself and the parts before it.
LAYERS = [
    {"da", "da.types", "da.errors", "da.installation", "da.discovery", "da.data_sets", "da.ops"},
    {"da.norms", "da.selection"},
    {"da.networks"},
    {"da.adapters"},
    {"da.methods"},
    {"da.engine"},
    {"da.grids", "da.reports", "da.analysis", "da.benchmarks", "da.exports"},
    {"da.cli"},
    {"run", "da.__main__"},
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
CLI_OF_LIGHTNING = ("_lightning", "_checkpoints", "_fit_cli")
HEAVY = {"torch", "torchvision", "pytorch_lightning", "torchmetrics", "lightning_fabric"} | {
    "matplotlib",
    "scipy",
    "sklearn",
    "numpy",
}


def name_of(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module):
    return ".".join(module.split(".")[:2])


class Imports(ast.NodeVisitor):
    """Every imported module; ``top`` has those that are imported when the file is."""

    def __init__(self, file):
        self.all = set()
        self.top = set()
        self.depth = 0
        self.file = file
        self.visit(ast.parse(file.read_text()))

    def visit_FunctionDef(self, node):
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1

    def visit_AsyncFunctionDef(self, node):
        self.visit_FunctionDef(node)

    def visit_If(self, node):
        """What is only for types is imported by no one."""
        for_types = "TYPE_CHECKING" in ast.dump(node.test)
        self.depth += for_types
        self.generic_visit(node)
        self.depth -= for_types

    def found(self, module):
        self.all.add(module)
        if not self.depth:
            self.top.add(module)

    def visit_Import(self, node):
        for alias in node.names:
            self.found(alias.name)

    def visit_ImportFrom(self, node):
        # `datasets` may be installed under another name: it names itself relatively, and only it.
        relative = name_of(self.file).split(".")[0] == "datasets"
        if node.level:
            assert relative, "a relative import hides where a name comes from"
            package = self.file.relative_to(ROOT).parent.parts
            base = package[: len(package) - node.level + 1]
            module = ".".join([*base, *filter(None, [node.module])])
        else:
            module = node.module
            assert not (relative and module.split(".")[0] == "datasets"), "import it relatively"
        self.found(module)
        for alias in node.names:  # `from da.ops import yaml12` imports a module
            path = ROOT.joinpath(*module.split("."), alias.name)
            if path.is_dir() or path.with_suffix(".py").is_file():
                self.found(f"{module}.{alias.name}")


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_go_one_way(file):
    own = name_of(file)
    imported = {m for m in Imports(file).all if m.split(".")[0] in ("da", "datasets", "run")}
    if own.split(".")[0] == "datasets":
        allowed = {"da.types", "da.errors", "da.ops"}
        wrong = {m for m in imported if m.startswith("da") and not m.startswith("datasets")}
        wrong = {m for m in wrong if part_of(m) not in allowed}
        assert not wrong
        assert "run" not in imported
        return
    assert not {m for m in imported if m.split(".")[0] == "datasets"}, "da knows no data set"
    assert part_of(own) in LEVEL, "a new part: say where it stands"
    level = LEVEL[part_of(own)]
    wrong = {m for m in imported if LEVEL[part_of(m)] > level}
    assert not wrong


#: What stands between the command line and its help, or runs beside many workers.
LIGHT = [
    file
    for file in FILES
    if name_of(file)
    in (
        *("run", "da", "da.errors", "da.installation", "da.discovery", "da.data_sets"),
        *("da.ops", "da.ops.yaml12"),
    )
    or (part_of(name_of(file)) == "da.cli" and file.stem not in CLI_OF_LIGHTNING)
]


@pytest.mark.parametrize("file", LIGHT, ids=name_of)
def test_heavy_imports_are_made_only_when_needed(file):
    heavy = {m for m in Imports(file).top if m.split(".")[0] in HEAVY}
    assert not heavy
    # Nor through another module of this library.
    light = {name_of(f) for f in LIGHT} | {"da.grids.store"}
    ours = {m for m in Imports(file).top if m.split(".")[0] in ("da", "datasets", "run")}
    assert ours <= light


#: The recipe of the digits is one text from its fonts to its photographs.
LONG = {"datasets.files.digits_recipe": 420}


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_files_are_short_and_say_what_they_are(file):
    text = file.read_text()
    assert len(text.splitlines()) < LONG.get(name_of(file), 360)
    assert ast.get_docstring(ast.parse(text))


#: What opens files as text unless its mode says otherwise.
OPENING = {"open", "fdopen", "read_text", "write_text", "TemporaryFile", "NamedTemporaryFile"}


def opened_as_text(file):
    """The calls in a file that open text in whatever encoding the machine has."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        name = isinstance(node, ast.Call) and getattr(
            node.func, "attr", getattr(node.func, "id", "")
        )
        if name not in OPENING or any(word.arg == "encoding" for word in node.keywords):
            continue
        owner = ast.unparse(node.func).rpartition(".")[0]
        modes = [x.value for x in ast.walk(node) if isinstance(x, ast.Constant)]
        binary = any(
            isinstance(mode, str) and re.fullmatch("[rwax+]*b[rwax+]*", mode) for mode in modes
        )
        if not binary and owner not in NO_TEXT:
            yield ast.unparse(node)


#: Whose ``open`` opens something else.
NO_TEXT = {"os", "Image", "archive", "packed", "tarfile", "_opener(asked)"}


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_text_is_utf_8_on_every_machine(file):
    assert [*opened_as_text(file)] == []


#: What Windows has not.
OF_POSIX = {"fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "curses", "readline"}
#: Where a module of POSIX is imported, or a device named, after a look at the system.
ASKS_FIRST = {"da.benchmarks.peak_memory"}


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_nothing_needs_posix(file):
    modules = {module.split(".")[0] for module in Imports(file).all}
    assert not modules & OF_POSIX or name_of(file) in ASKS_FIRST
    assert not Imports(file).top & OF_POSIX
    tree = ast.parse(file.read_text(encoding="utf-8"))
    texts = [x.value for x in ast.walk(tree) if isinstance(x, ast.Constant)]
    assert not [text for text in texts if isinstance(text, str) and text.startswith("/dev/")]
    calls = {ast.unparse(x) for x in ast.walk(tree) if isinstance(x, ast.Attribute)}
    groups = {"os.setsid", "os.killpg", "signal.SIGKILL"}
    assert not calls & {"os.fork", "os.geteuid", "os.getuid", "signal.SIGALRM", "signal.SIGHUP"}
    assert not calls & groups or name_of(file) == "da.ops.process_groups"


def test_there_is_something_to_check():
    assert len(FILES) > 50
    assert len(LIGHT) > 10
    assert "da.norms.weight_align.normaliser" in map(name_of, FILES)
