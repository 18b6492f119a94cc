import gc
import hashlib
import http.server
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

# Lightning comes before whatever else builds a type: ``typing`` keeps one object for
# ``Optional[Union[int, float]]`` and ``Optional[Union[float, int]]``, that of who asks first, and
# where that is float's, the Trainer's ``limit_*_batches`` read "1" as all batches.
import pytorch_lightning  # noqa: F401
import torch

import run
from da.networks.backbones.base import build_backbone
from da.norms import batch_norms, normaliser
from da.ops.files import cache_folder
from da.types import Batch, Labelled, Unlabelled

torch.set_num_threads(1)


def pytest_collection_finish():
    """Leaves out of later collections of garbage what is there already: thousands of tests, and the
    libraries. Each would go through all of it, and in a worker of a loader copy it, too."""
    gc.collect()
    gc.freeze()


class FakeTrainer:
    """As much of a trainer as a module asks for outside of a run."""

    def __init__(self, steps: int):
        self.step = 0
        self.estimated_stepping_batches = steps
        self.datamodule = SimpleNamespace(evaluations=(), batch_size=8)
        self.is_last_batch = True
        self.logged: dict[str, Any] = {}


@pytest.fixture
def fake_trainer(monkeypatch):
    """Gives a module a trainer at a step of one's choice: ``fake_trainer(module, steps)``."""

    def attach(module, steps: int = 100) -> FakeTrainer:
        trainer = FakeTrainer(steps)
        kind = type(module)
        monkeypatch.setattr(kind, "trainer", property(lambda self: trainer))
        monkeypatch.setattr(kind, "global_step", property(lambda self: trainer.step))
        monkeypatch.setattr(
            kind, "log", lambda self, name, value, **_: trainer.logged.update({name: value})
        )
        return trainer

    return attach


@pytest.fixture
def alike():
    """Whether two sets of scores agree: ``alike(found, expected, rel)``; results alone go on to
    say how each class fared, and of how many images there is no label."""

    def compare(found, expected, rel):
        found, expected = (
            {
                name: value
                for name, value in scores.items()
                if name not in ("per_class", "confusion", "label_free", "unlabelled")
            }
            for scores in (found, expected)
        )
        return found == pytest.approx(expected, rel=rel, abs=1e-6)

    return compare


@pytest.fixture
def batch() -> Batch:
    """Eight images of each domain, four classes, the target shifted and scaled."""
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(8, 3, 32, 32, generator=generator)
    target = 2 * torch.randn(8, 3, 32, 32, generator=generator) + 1
    return Batch(
        Labelled((source,), torch.arange(8) % 4, torch.arange(8)),
        Unlabelled((target,), torch.arange(8)),
    )


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory) -> str:
    """A file of weights for ``digits_resnet``, with statistics that are not those of the start."""
    path = tmp_path_factory.mktemp("pretrained") / "digits_resnet.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        backbone = build_backbone("digits_resnet")
        for norm in batch_norms(backbone).values():
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 1.5)
    torch.save(backbone.state_dict(), path)
    return str(path)


@pytest.fixture(scope="session")
def start(pretrained):
    """What a method needs beside a normaliser's name to start with it: ``start(norm)``."""
    return lambda norm: {"weights": pretrained} if normaliser(norm).needs_pretrained else {}


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    """What tests keep goes into a folder of their own; the embedded digits are shared."""
    digits = cache_folder() / "digits"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        cache_folder().mkdir()
        with suppress(OSError):  # where it can't be written or linked, they are made anew
            digits.mkdir(parents=True, exist_ok=True)
            (cache_folder() / "digits").symlink_to(digits)
        yield


@pytest.fixture(autouse=True)
def _calm():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
        yield


@pytest.fixture(autouse=True)
def _torch_stays_as_it_is():
    """No command or training changes what the next one in the same process computes."""
    before = _settings_of_torch()
    yield
    assert _settings_of_torch() == before


def _settings_of_torch() -> dict[str, object]:
    return {
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "search of cuDNN": torch.backends.cudnn.benchmark,
        "dtype": torch.get_default_dtype(),
        "precision of products": torch.get_float32_matmul_precision(),
        "anomalies": torch.is_anomaly_enabled(),
    }


class Cutting(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; half of a file that has another beside it of its name with ``.cut``."""

    def copyfile(self, source, outputfile):
        content = source.read()
        if Path(f"{source.name}.cut").exists():
            content = content[: len(content) // 2]
        outputfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves a folder; gives the folder, its address and the paths asked for."""
    served = tmp_path / "served"
    served.mkdir()
    asked = []

    class Handler(Cutting):
        def __init__(self, *args):
            super().__init__(*args, directory=str(served))

        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield served, f"http://127.0.0.1:{listener.server_port}", asked
    listener.shutdown()
    listener.server_close()


@pytest.fixture
def cached(tmp_path):
    """Gives the names of the files in the cache that ``server`` sets up."""
    return lambda: [p.name for p in (tmp_path / "hub").rglob("*") if p.is_file()]


@pytest.fixture
def publish():
    """Writes a state dict as a published file, its checksum in its name; gives the name.

    ``small``: each tensor is one number in the file, of its full shape for who reads it: kilobytes
    for 100 MB.
    """

    def write(state, folder, name, small=True):
        if small:
            state = {
                key: torch.full((), i % 7 / 8 + 0.1).to(value.dtype).expand(value.shape)
                for i, (key, value) in enumerate(state.items())
            }
        path = folder / f"{name}.pth"
        torch.save(state, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        return path.rename(folder / f"{name}-{digest}.pth").name

    return write


@pytest.fixture
def refused_words(tmp_path, monkeypatch, capfd):
    """Runs a command that is refused in one line and writes nothing; gives the line."""
    monkeypatch.chdir(tmp_path)

    def run_it(*words):
        capfd.readouterr()
        before = sorted(tmp_path.rglob("*"))
        assert run.main([str(word) for word in words]) == 2
        out, err = capfd.readouterr()
        # Small images for a network of large ones: that is said, and wanted in tests.
        lines = [line for line in err.splitlines(True) if not line.endswith("yours is used\n")]
        err = "".join(lines)
        assert sorted(tmp_path.rglob("*")) == before, "something was written"
        assert err.count("\n") == 1
        assert "Traceback" not in out + err
        return err.removeprefix("error: ").strip()

    return run_it
