"""The placement groups that hold what this search's trials run in."""

from __future__ import annotations

import ray
from ray.util.placement_group import placement_group_table

from search.running.slots import Slot


def find_groups(slot: Slot) -> dict[str, str]:
    """State by hexadecimal identifier of the groups of this process's job that have the shape of a slot: those of the
    worker groups, if trials have several workers, else of the trials. ``PENDING``: waits for room; ``CREATED``: has it.
    """
    bundles = [slot.worker_resources] * slot.num_workers if slot.num_workers > 1 else [slot.trial_resources]
    job = ray.get_runtime_context().get_job_id()  # with which the identifiers of all that a job makes end
    return {
        name: group["state"]
        for name, group in placement_group_table().items()
        if name.endswith(job) and list(group["bundles"].values()) == bundles
    }
