import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from da.types import Batch, Labelled, Unlabelled

torch.set_num_threads(1)


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
def batch() -> Batch:
    """Eight images of each domain, four classes, the target shifted and scaled."""
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(8, 3, 32, 32, generator=generator)
    target = 2 * torch.randn(8, 3, 32, 32, generator=generator) + 1
    return Batch(Labelled(source, torch.arange(8) % 4), Unlabelled(target))


@pytest.fixture(autouse=True)
def _calm():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
        yield
