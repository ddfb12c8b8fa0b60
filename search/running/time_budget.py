"""The time budget of a search, on the monotonic clock."""

from __future__ import annotations

import time
from typing import Any

from ray import tune


class TimeBudget(tune.Stopper):
    """Stops all trials ``budget_s`` seconds after Tune has begun; ``None``: never.

    Tune's own `time_budget_s` reads the wall clock, so that a search would end, or go on for hours, when that is set.
    """

    def __init__(self, budget_s: float | None) -> None:
        self._budget_s = budget_s
        self._start_s: float | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stops no trial alone."""
        return False

    def stop_all(self) -> bool:
        now_s = time.monotonic()
        if self._start_s is None:
            self._start_s = now_s
        return self._budget_s is not None and now_s - self._start_s >= self._budget_s
