"""CPU time of the processes that train; other work on a machine hardly changes it, unlike wall-clock time."""

from __future__ import annotations

import os
import time

from torch import distributed as dist

_charged_s = 0.0  # of this process: what its trials have been charged so far


def charge_s() -> float:
    """Processor seconds that this process, its threads and its ended children have used since the last call; at the
    first call, since the process began, so that its start is charged to its first trial."""
    global _charged_s
    children = os.times()  # counted in hundredths of a second, in which a short trial may have used none
    used_s = time.process_time() + children.children_user + children.children_system
    charge, _charged_s = used_s - _charged_s, used_s
    return charge


def charge_group_s() -> float:
    """The same over all workers of a group, each of which calls it."""
    mine = charge_s()
    if not dist.is_initialized():
        return mine
    charges: list[float | None] = [None] * dist.get_world_size()
    dist.all_gather_object(charges, mine)
    return sum(charge or 0.0 for charge in charges)
