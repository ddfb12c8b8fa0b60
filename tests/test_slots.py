from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.config import SearchConfig, parse_config
from search.errors import ConfigError
from search.slots import Resources, Slot, plan_slots

TINY = 1e-6  # fractions of a GPU do not add up exactly


def config(**changes: Any) -> SearchConfig:
    return parse_config({"space": {"model": "customnet"}, **changes}, where="test")


@pytest.mark.parametrize(
    ("changes", "resources", "count"),
    [
        ({}, Resources(4, 0), 4),
        ({"cpus_per_trial": 3}, Resources(4, 0), 1),
        ({"cpus_per_trial": 0.5}, Resources(4, 0), 8),
        ({"cpus_per_trial": 0.1}, Resources(1, 0), 10),
        ({"workers_per_trial": 2}, Resources(5, 0), 2),
        ({"workers_per_trial": 2, "cpus_per_trial": 4}, Resources(8, 0), 2),
        ({"gpus_per_trial": 1}, Resources(16, 3), 3),
        ({"gpus_per_trial": 2}, Resources(16, 5), 2),
        ({"gpus_per_trial": 0.25}, Resources(16, 1), 4),
        ({"gpus_per_trial": 0.1}, Resources(16, 1), 10),
        ({"gpus_per_trial": 0.25, "cpus_per_trial": 8}, Resources(16, 1), 2),
        ({"gpus_per_trial": 2, "workers_per_trial": 2}, Resources(16, 7), 3),
        ({"max_concurrent_trials": 3}, Resources(16, 0), 3),
        ({"max_concurrent_trials": 30}, Resources(16, 0), 16),
    ],
)
def test_as_many_slots_as_fit_up_to_the_cap(changes: dict[str, Any], resources: Resources, count: int) -> None:
    assert plan_slots(config(**changes), [resources]).count == count


@pytest.mark.parametrize(
    ("changes", "num_gpus", "count"),
    [
        ({"gpus_per_trial": 0.4}, 2, 4),
        ({"gpus_per_trial": 0.6}, 3, 3),
    ],
)
def test_a_worker_never_straddles_two_gpus(changes: dict[str, Any], num_gpus: int, count: int) -> None:
    """Ray places a fraction of a GPU on one GPU: two GPUs hold four times 0.4, not five times."""
    assert plan_slots(config(**changes), [Resources(64, num_gpus)]).count == count


@pytest.mark.parametrize(
    ("changes", "resources", "words"),
    [
        ({"cpus_per_trial": 5}, Resources(4, 0), ["cpus_per_trial", "5 CPUs", "4 CPUs"]),
        ({"workers_per_trial": 6}, Resources(4, 0), ["workers_per_trial", "6 CPUs", "4 CPUs"]),
        ({"gpus_per_trial": 0.5}, Resources(4, 0), ["gpus_per_trial", "0.5 GPUs", "0 GPUs"]),
        ({"gpus_per_trial": 4}, Resources(4, 2), ["gpus_per_trial", "4 GPUs", "2 GPUs"]),
    ],
)
def test_what_cannot_fit_is_refused_with_key_asked_and_there(
    changes: dict[str, Any], resources: Resources, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_slots(config(**changes), [resources])
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("gpus", [3, 1])
def test_a_worker_of_a_group_has_whole_gpus(gpus: int) -> None:
    """Ray refuses 1.5 GPUs for a worker, and nccl two workers on one GPU, so a search must before it starts."""
    with pytest.raises(ConfigError, match="gpus_per_trial"):
        config(gpus_per_trial=gpus, workers_per_trial=2)


@settings(deadline=None)
@given(
    cpus_per_trial=st.none() | st.integers(1, 40).map(lambda tenths: tenths / 10),
    gpus_per_trial=st.just(0.0) | st.integers(1, 3).map(float) | st.sampled_from([0.1, 0.2, 0.25, 0.5]),
    num_workers=st.integers(1, 4),
    cpus=st.integers(1, 64),
    gpus=st.integers(0, 8),
)
def test_slots_fit_and_one_more_would_not(
    cpus_per_trial: float | None, gpus_per_trial: float, num_workers: int, cpus: int, gpus: int
) -> None:
    """The fractions divide a GPU evenly, and so does no worker's share straddle two."""
    num_workers = 1 if gpus_per_trial else num_workers
    asked = config(cpus_per_trial=cpus_per_trial, gpus_per_trial=gpus_per_trial, workers_per_trial=num_workers)
    try:
        slots = plan_slots(asked, [Resources(cpus, gpus)])
    except ConfigError:
        assert asked.cpus > cpus or gpus_per_trial > gpus
        return
    assert slots.count >= 1
    assert slots.slot.cpus * slots.count <= cpus + TINY
    assert slots.slot.gpus * slots.count <= gpus + TINY
    more = slots.count + 1
    assert slots.slot.cpus * more > cpus + TINY or slots.slot.gpus * more > gpus + TINY


@settings(deadline=None)
@given(cpus=st.floats(0.01, 256), num_workers=st.integers(1, 32))
def test_threads_are_at_least_one_and_never_more_than_cpus_held(cpus: float, num_workers: int) -> None:
    slot = Slot(num_workers=num_workers, cpus=cpus, gpus=0.0)
    assert 1 <= slot.threads_per_worker <= max(1.0, cpus / num_workers)


@settings(deadline=None)
@given(num_workers=st.integers(1, 8), cpus=st.integers(1, 64), gpus=st.sampled_from([0.0, 0.5, 1.0, 8.0]))
def test_trial_and_workers_together_hold_the_slot_and_nothing_else(num_workers: int, cpus: int, gpus: float) -> None:
    slot = Slot(num_workers=num_workers, cpus=cpus, gpus=gpus)
    holders = [slot.trial_resources] + [slot.worker_resources] * (num_workers if num_workers > 1 else 0)
    held = sum(Decimal(str(holder.get("CPU", 0.0))) for holder in holders)
    assert cpus - Decimal("0.001") <= held <= cpus, "a hair too much can never be placed"
    assert sum(holder.get("GPU", 0.0) for holder in holders) == pytest.approx(gpus)
    assert all(sum(holder.values()) > 0 for holder in holders), "Ray refuses to start what holds nothing"
