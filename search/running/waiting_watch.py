"""Says so when a search waits because others have all that its trials need."""

from __future__ import annotations

import time
from typing import Any

from ray import tune

from search.running.placement import find_groups
from search.running.progress import Progress
from search.running.slots import Slot

_SECONDS_BETWEEN_LOOKS = 5.0
_SECONDS_UNTIL_TOLD = 20.0


class WaitingWatch(tune.Callback):
    """Tells, once until some trial has its slot again, that all of them have been waiting for one for some time."""

    def __init__(self, slot: Slot, progress: Progress) -> None:
        self._slot = slot
        self._progress = progress
        self._looked_s = 0.0
        self._since_s: float | None = None
        self._is_told = False

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks; the study is the record

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        now_s = time.monotonic()
        if now_s < self._looked_s + _SECONDS_BETWEEN_LOOKS:
            return
        self._looked_s = now_s
        states = set(find_groups(self._slot).values()) - {"REMOVED"}
        if not states:  # between two attempts of a worker group to start, or nothing to start
            return
        if states != {"PENDING"}:
            self._since_s, self._is_told = None, False
            return
        self._since_s = self._since_s or now_s
        if not self._is_told and now_s > self._since_s + _SECONDS_UNTIL_TOLD:
            self._is_told = True
            self._progress.waiting_for_slot()
