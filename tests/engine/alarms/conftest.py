"""Windows of a tenth of their length, so that trainings of a tenth of the steps pass them, too."""

import pytest

WINDOW = 5
"""Steps of a short window: the real ones have ten times as many."""


@pytest.fixture
def short_windows(monkeypatch):
    """Critics are heard, and losses tried, in every window of five steps instead of fifty."""
    for module in ("watch", "critics", "losses"):
        monkeypatch.setattr(f"da.engine.alarms.{module}.WINDOW", WINDOW)
    monkeypatch.setattr("da.engine.alarms.losses.PATIENCE", 3 * WINDOW)
    monkeypatch.setattr("da.engine.alarms.watch.EVERY", 1)
