from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.configuration.config import SearchConfig, parse_config
from search.errors import ConfigError
from search.running.slots import Resources, Slot, cluster_resources, plan_slots

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


# --- Several nodes ---

BARE = Resources(4, 0)
A100 = Resources(16, 2, ("A100",), {"zone": "a", "spot": "no"})
T4 = Resources(8, 1, ("T4",), {"zone": "b", "spot": "yes"})


@pytest.mark.parametrize(
    ("changes", "nodes", "count"),
    [
        ({}, [Resources(2, 0), Resources(3, 0)], 5),
        ({"cpus_per_trial": 2}, [Resources(3, 0), Resources(3, 0)], 2),
        ({"cpus_per_trial": 0.5}, [Resources(1, 0)] * 3, 6),
        ({"gpus_per_trial": 0.25}, [Resources(1, 1), Resources(16, 1)], 5),
        ({"gpus_per_trial": 2}, [Resources(8, 3), Resources(8, 3)], 2),
        ({"gpus_per_trial": 1}, [Resources(64, 0), Resources(2, 4)], 2),
        ({"workers_per_trial": 2}, [Resources(1, 0), Resources(1, 0)], 1),
        ({"workers_per_trial": 3}, [Resources(1, 0), Resources(3, 0), Resources(2, 0)], 2),
        ({"workers_per_trial": 2, "cpus_per_trial": 3}, [Resources(2, 0)] * 3, 1),
        ({"workers_per_trial": 2, "gpus_per_trial": 2}, [Resources(8, 1), Resources(8, 3)], 2),
        ({}, [Resources(0, 0), Resources(2, 0)], 2),
        ({"accelerator_type": "A100"}, [BARE, A100, T4], 16),
        ({"accelerator_type": "T4", "gpus_per_trial": 0.5}, [BARE, A100, T4], 2),
        ({"node_labels": {"zone": "b"}}, [BARE, A100, T4], 8),
        ({"node_labels": {"zone": "b", "spot": "yes"}}, [BARE, A100, T4, T4], 16),
        ({"node_labels": {"zone": "a"}, "accelerator_type": "A100", "gpus_per_trial": 1}, [BARE, A100, T4], 2),
        ({"node_labels": {"spot": "yes"}, "workers_per_trial": 2}, [BARE, A100, T4], 4),
    ],
)
def test_slots_of_a_cluster_are_those_of_its_nodes(changes: dict[str, Any], nodes: list[Resources], count: int) -> None:
    """A worker is on one node, the workers of a trial may be on several."""
    assert plan_slots(config(**changes), nodes).count == count


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"max_cluster_share": 1}, 8),
        ({"max_cluster_share": 0.5}, 4),
        ({"max_cluster_share": 0.3}, 2),
        ({"max_cluster_share": 0.01}, 1),
        ({"max_cluster_share": 0.5, "max_concurrent_trials": 3}, 3),
        ({"max_cluster_share": 0.5, "max_concurrent_trials": 30}, 4),
        ({"max_cluster_share": 0.5, "workers_per_trial": 2}, 2),
        ({"max_cluster_share": 0.7, "workers_per_trial": 8}, 1),
    ],
)
def test_a_search_takes_at_most_its_share_of_a_cluster_and_at_least_one_slot(
    changes: dict[str, Any], count: int
) -> None:
    for may_grow in (False, True):
        assert plan_slots(config(**changes), [Resources(5, 0), Resources(3, 0)], may_grow=may_grow).count == count


@pytest.mark.parametrize(
    ("changes", "nodes", "count"),
    [
        ({}, [Resources(2, 0)], 2),
        ({"max_concurrent_trials": 9}, [Resources(2, 0)], 9),
        ({"max_concurrent_trials": 9}, [], 9),
        ({"max_concurrent_trials": 9, "gpus_per_trial": 1}, [Resources(2, 0)], 9),
        ({"max_concurrent_trials": 9, "node_labels": {"zone": "b"}}, [Resources(2, 0)], 9),
    ],
)
def test_a_cluster_that_may_grow_is_as_large_as_somebody_says(
    changes: dict[str, Any], nodes: list[Resources], count: int
) -> None:
    assert plan_slots(config(**changes), nodes, may_grow=True).count == count


@pytest.mark.parametrize(
    ("changes", "nodes", "words"),
    [
        ({"cpus_per_trial": 3}, [Resources(2, 0)] * 2, ["cpus_per_trial", "3 CPUs", "2 nodes", "up to 2 CPUs"]),
        ({"gpus_per_trial": 3}, [A100, T4], ["gpus_per_trial", "3 GPUs", "2 nodes", "2 GPUs"]),
        ({"accelerator_type": "H100"}, [A100, T4], ["accelerator_type", "H100"]),
        ({"node_labels": {"zone": "c"}}, [A100, T4], ["node_labels", "zone=c"]),
        ({"node_labels": {"zone": "a", "spot": "yes"}}, [A100, T4], ["node_labels", "zone=a", "spot=yes"]),
        ({"accelerator_type": "T4", "node_labels": {"zone": "a"}}, [A100, T4], ["T4", "zone=a"]),
        ({}, [], ["0 nodes"]),
    ],
)
def test_what_no_node_can_hold_is_refused_with_key_asked_and_there(
    changes: dict[str, Any], nodes: list[Resources], words: list[str]
) -> None:
    for may_grow in (False, True):
        with pytest.raises(ConfigError) as caught:
            plan_slots(config(**changes), nodes, may_grow=may_grow)
        assert [word for word in words if word not in str(caught.value)] == []
        assert ("max_concurrent_trials says how far" in str(caught.value)) == may_grow


@pytest.mark.parametrize(
    ("changes", "nodes", "words"),
    [
        ({"workers_per_trial": 4}, [Resources(1, 0)] * 3, ["workers_per_trial", "4 workers", "up to 3 workers"]),
        ({"cpus_per_trial": 2, "gpus_per_trial": 1}, [Resources(8, 0), Resources(1, 1)], ["together"]),
    ],
)
def test_a_misfit_that_is_of_no_single_node_is_told_as_what_it_is(
    changes: dict[str, Any], nodes: list[Resources], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_slots(config(**changes), nodes)
    assert [word for word in words if word not in str(caught.value)] == []
    assert "node_labels" not in str(caught.value)


def test_the_nodes_of_a_cluster_are_those_that_live(monkeypatch: pytest.MonkeyPatch) -> None:
    told = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0, "accelerator_type:T4": 1.0}, "Labels": {"zone": "b"}},
        {"Alive": True, "Resources": {"memory": 1.0}, "Labels": {}},
        {"Alive": False, "Resources": {"CPU": 8.0}, "Labels": {}},
    ]
    monkeypatch.setattr("ray.nodes", lambda: told)
    assert cluster_resources() == [Resources(8, 1, ("T4",), {"zone": "b"}), Resources(0, 0)]


def test_what_a_slot_asks_of_a_node_it_asks_of_ray() -> None:
    """By the resource with which Ray marks the nodes that have an accelerator, once for each worker."""
    mark = {"accelerator_type:A100": 0.001}
    alone = plan_slots(config(accelerator_type="A100", gpus_per_trial=1), [A100]).slot
    assert alone.trial_resources == {"CPU": 1.0, "GPU": 1.0} | mark
    group = plan_slots(config(accelerator_type="A100", gpus_per_trial=2, workers_per_trial=2), [A100]).slot
    assert group.worker_resources == {"CPU": 1.0, "GPU": 1.0} | mark
    assert not set(mark) & set(group.trial_resources)


def place(workers: int, share: tuple[Fraction, Fraction], nodes: Sequence[Resources]) -> int:
    """So many workers of (CPUs, GPUs) as the nodes hold, put down one after the other."""
    cpus, gpus = share
    placed = 0
    for node in nodes:
        free_cpus, free_gpus = Fraction(node.cpus), [Fraction(1)] * node.gpus
        while free_cpus >= cpus and placed < workers:
            if gpus <= 1:
                fitting = [index for index, free in enumerate(free_gpus) if free >= gpus]
                if gpus and not fitting:
                    break
                if gpus:
                    free_gpus[fitting[0]] -= gpus
            else:
                whole = [index for index, free in enumerate(free_gpus) if free == 1][: int(gpus)]
                if len(whole) < gpus:
                    break
                for index in whole:
                    free_gpus[index] = Fraction(0)
            free_cpus -= cpus
            placed += 1
    return placed


@settings(deadline=None)
@given(
    cpu_tenths=st.integers(1, 40),
    gpus=st.just(Fraction(0)) | st.integers(1, 3).map(Fraction) | st.integers(1, 9).map(lambda n: Fraction(n, 10)),
    num_workers=st.integers(1, 4),
    share_tenths=st.integers(1, 10),
    sizes=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4)), min_size=1, max_size=4),
)
def test_slots_are_as_many_as_can_be_put_down_one_by_one(
    cpu_tenths: int, gpus: Fraction, num_workers: int, share_tenths: int, sizes: list[tuple[int, int]]
) -> None:
    if gpus.denominator > 1:
        num_workers = 1
    nodes = [Resources(*size) for size in sizes]
    changes = {"cpus_per_trial": cpu_tenths / 10, "max_cluster_share": share_tenths / 10}
    asked = config(workers_per_trial=num_workers, gpus_per_trial=float(gpus * num_workers), **changes)
    expected = place(10**6, (Fraction(cpu_tenths, 10 * num_workers), gpus), nodes) // num_workers
    if expected == 0:
        with pytest.raises(ConfigError):
            plan_slots(asked, nodes)
    else:
        assert plan_slots(asked, nodes).count == max(1, int(expected * Fraction(share_tenths, 10)))


@settings(deadline=None)
@given(sizes=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2)), min_size=1, max_size=4))
def test_a_node_more_never_costs_a_slot(sizes: list[tuple[int, int]]) -> None:
    nodes, asked = [Resources(*size) for size in sizes], config(workers_per_trial=2)
    counts = []
    for end in range(1, len(nodes) + 1):
        try:
            counts.append(plan_slots(asked, nodes[:end]).count)
        except ConfigError:
            counts.append(0)
    assert counts == sorted(counts)
