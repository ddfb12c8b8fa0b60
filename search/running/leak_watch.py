"""Placement groups of worker groups that nobody is in any more."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray import tune
from ray._raylet import PlacementGroupID
from ray.util.placement_group import PlacementGroup, remove_placement_group

from search.running.placement import find_groups
from search.running.slots import Slot

_SECONDS_BETWEEN_LOOKS = 5.0
_SECONDS_UNUSED = 15.0  # a group that starts is in its placement group sooner


def remove_groups(slot: Slot) -> None:
    """Removes the placement groups of all worker groups; for the end of a search."""
    for name in find_groups(slot):
        _remove(name)


class LeakWatch(tune.Callback):
    """Removes placement groups of worker groups in which nothing runs.

    Such a group is left when the process that made it, or the one that waits for its workers, is killed; those who
    come after it would wait for ever.
    """

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._unused_since_s: dict[str, float] = {}
        self._looked_s = 0.0

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        now_s = time.monotonic()
        if now_s < self._looked_s + _SECONDS_BETWEEN_LOOKS:
            return
        self._looked_s = now_s
        self._unused_since_s = {name: self._unused_since_s.get(name, now_s) for name in self._find_unused()}
        for name, since_s in self._unused_since_s.items():
            if now_s > since_s + _SECONDS_UNUSED:
                _remove(name)

    def _find_unused(self) -> list[str]:
        total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
        return [
            name
            for name, state in find_groups(self._slot).items()
            # What runs in a group takes a little of this resource, by which Ray knows where the group is.
            if state == "CREATED" and free.get(f"bundle_group_{name}") == total.get(f"bundle_group_{name}")
        ]


def _remove(name: str) -> None:
    remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))
