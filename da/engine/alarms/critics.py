"""Alarms of a domain critic: at chance from the start, or perfect for hundreds of steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean

from torch import Tensor

from da.engine.alarms.record import Verdict

EVERY = 5
"""A critic's accuracy is heard in one step of so many: ten in a window, few enough to cost
nothing."""

WINDOW = 50
"""Steps of a window, over which accuracies are averaged and after which the device is asked once.
With 32 images of each domain that is 640 predictions, and chance stays within 6 points of 50 %."""

START = 4
"""Windows that are the start. A critic that learns tells the domains apart within them, before or
while a reversed gradient grows; that it is fooled later is what is wanted of it."""

CHANCE = 0.55
"""Highest mean over the start at chance: with eight images of each domain, chance alone stays below
it in 99 of 100 runs. Critics of the default grid, which fight a reversal from the first window on,
are between 0.61 and 0.67 there."""

LEARNT = 0.6
"""Mean of any window of the start from which a critic has learnt something, if only for a while."""

PERFECT = 0.99
"""Lowest mean of a window in which a critic is taken to be perfect."""

PERFECT_WINDOWS = 4
"""Windows in a row for which it must be."""

STRONG = 0.2
"""Progress of the stage at hand from which a perfect critic counts: the published schedule of the
reversal is at three quarters of its strength there, and before it a critic is meant to be ahead."""


@dataclass
class Critic:
    """What is kept of one critic.

    Attributes:
        first: mean accuracies of its first windows, at most ``START``.
        perfect: those of the windows in a row, up to now, in which it was perfect.
        total: sum of the accuracies of the window at hand, on the device where they are.
        count: how many these are.
    """

    first: list[float] = field(default_factory=list)
    perfect: list[float] = field(default_factory=list)
    total: Tensor | float = 0.0
    count: int = 0

    def add(self, accuracy: Tensor) -> None:
        """Adds the accuracy of a batch, a scalar; nothing waits for the device."""
        self.total = self.total + accuracy.detach().float()
        self.count += 1

    def end_window(self, about: str, progress: float) -> Verdict | None:
        """Ends the window at hand.

        Args:
            about: the name under which the accuracy is logged.
            progress: of the stage at hand, from 0 to 1.
        """
        if not self.count:
            return None
        mean, self.total, self.count = float(self.total) / self.count, 0.0, 0
        if mean >= PERFECT and progress >= STRONG:
            self.perfect.append(mean)
        else:
            self.perfect.clear()
        at_start = len(self.first) < START
        if at_start:
            self.first.append(mean)
        if at_start and self._is_at_chance():
            return Verdict(
                "critic-at-chance",
                about,
                f"{100 * fmean(self.first):.1f} % over its first {START * WINDOW} steps, and "
                f"never more than {100 * max(self.first):.1f} % over {WINDOW}; the critic learns "
                "nothing, or there is no shift for it to see",
            )
        if len(self.perfect) == PERFECT_WINDOWS:
            return Verdict(
                "critic-perfect",
                about,
                f"{100 * min(self.perfect):.1f} % or more for {PERFECT_WINDOWS * WINDOW} steps; "
                "the features don't come closer",
            )
        return None

    def _is_at_chance(self) -> bool:
        started = len(self.first) == START
        return started and fmean(self.first) < CHANCE and max(self.first) < LEARNT
