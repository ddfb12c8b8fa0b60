"""Searches as jobs of a real cluster: submitted, followed, stopped, continued, and what lost machines do to them."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from live_cluster import (
    LONG,
    SMALL,
    Result,
    Running,
    Trace,
    assert_gone,
    assert_kept,
    count_epochs,
    epochs_files,
    experiment,
    fmnist,
    job,
    log,
    note,
    place_for_clusters,
    record_of,
    submit,
    trace,
    trial_processes,
    wait_until,
    write_config,
)
from optuna.trial import FrozenTrial, TrialState

from cluster.jobs import Jobs
from cluster.local import LocalCluster
from search.records.epochs_file import parse_epochs
from search.records.record import read_study

pytestmark = pytest.mark.filterwarnings("ignore:ssl=None is deprecated")  # as Ray asks for it when it follows a job

TEAM = "team"
# Some tenths of a second an epoch: long enough to be caught in the middle, short enough to be awaited.
EPOCHS = 8
LONGISH = {
    **SMALL,
    "space": {"model": "customnet", "batch_size": 16, "lr": {"float": [1e-4, 1e-2], "log": True}},
    "max_epochs": EPOCHS,
    "max_concurrent_trials": 3,
}
LONGER = LONGISH | {"max_epochs": 30}
SECRETS = (".env", "secret.key", "data/images.bin", "experiments-old/study.journal", ".git/config", ".venv/bin/python")


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with place_for_clusters(tmp_path_factory.mktemp("jobs")) as folder:
        for name in SECRETS:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text("nobody's business")
        yield folder


@contextlib.contextmanager
def cluster_up(name: str, **options: Any) -> Iterator[LocalCluster]:
    """A cluster of which nothing is left afterwards, whether or not it was taken down in the block."""
    cluster = LocalCluster(name, **options)
    cluster.up()
    seen: list[Trace] = []
    try:
        yield cluster
        with contextlib.suppress(AssertionError):
            seen.append(trace(name))
    finally:
        fmnist("cluster", "down", "--name", name)
    for before in seen:
        assert_gone(before)


@pytest.fixture(scope="module")
def team(folder: Path) -> Iterator[LocalCluster]:
    """Two nodes with two CPUs each; the second has a label."""
    with cluster_up(TEAM, nodes=2, cpus_per_node=2, labels=[{}, {"zone": "b"}]) as cluster:
        yield cluster


def trials_of(name: str) -> list[FrozenTrial]:
    return read_study(experiment(name)).get_trials() if experiment(name).exists() else []


def states(name: str) -> list[TrialState]:
    return [trial.state for trial in trials_of(name)]


def assert_whole(name: str, *, num_trials: int, num_epochs: int) -> None:
    """Exactly the trials asked for, all complete, each with all its epochs, as its table and the study say."""
    assert [trial.number for trial in trials_of(name)] == list(range(num_trials))
    assert set(states(name)) == {TrialState.COMPLETE}
    for trial in trials_of(name):
        epochs = parse_epochs(experiment(name).trial(trial.number).epochs.read_text())
        assert [epoch.epoch for epoch in epochs] == list(range(1, num_epochs + 1)), f"trial {trial.number}"
        assert {epoch.epoch: epoch.val_accuracy for epoch in epochs} == trial.intermediate_values
    assert experiment(name).evaluation.summary.exists()


def trials_on(cluster: str, node: int) -> set[int]:
    """The numbers of the trials that have a process on a node: Tune names the folder they work in by them."""
    found = set()
    for pid in trial_processes(cluster, node):
        with contextlib.suppress(psutil.Error, ValueError):
            found.add(int(Path(psutil.Process(pid).cwd()).name))
    return found


def wait_for_trials(name: str, count: int, *, epochs: int = 1) -> float:
    return wait_until(lambda: sum(number >= epochs for number in count_epochs(name)) >= count)


def hold_trials(name: str, cluster: str, *, count: int) -> None:
    """Halts the process of each trial that has finished an epoch, until so many are halted, all in their middle."""

    def hold() -> bool:
        now = [trial for trial, text in epochs_files(name).items() if text.count("\n") > 1]
        for pid in trial_processes(cluster):
            with contextlib.suppress(psutil.Error):
                if Path(psutil.Process(pid).cwd()).name in now:
                    os.kill(pid, signal.SIGSTOP)
        return len(now) >= count

    wait_until(hold)
    hold()


def stop(job_id: str, cluster: str = TEAM) -> Result:
    stopped = fmnist("jobs", "stop", job_id, "--cluster", cluster)
    assert stopped.code == 0, stopped.err
    return stopped


def used_cpus(cluster: str) -> list[float]:
    nodes = fmnist("cluster", "status", "--name", cluster, "--json").json()["nodes"]
    return [node["used"].get("CPU", 0.0) for node in nodes]


# --- The life of a job ---


def test_a_job_is_submitted_followed_listed_stopped_continued_and_finished(team: LocalCluster) -> None:
    """Three trials at a time use both nodes; whoever submitted it is gone."""
    start_s = time.monotonic()
    config = write_config(LONGISH)
    submitted = Running("submit", config, "--name", "life", "--cluster", TEAM, "--json").finish(code=0)
    accepted_s = time.monotonic()
    first = json.loads(submitted)
    assert first["experiment"] == "life"
    assert re.fullmatch(r"life-\d{4}-\d{4}-[0-9a-f]{4}", first["id"])
    follower = Running("jobs", "logs", first["id"], "--follow", "--cluster", TEAM)
    wait_for_trials("life", 1)
    note(submit_to_first_epoch_s=time.monotonic() - start_s, of_it_accepted_after_s=accepted_s - start_s)
    hold_trials("life", TEAM, count=3)
    assert [len(trial_processes(TEAM, node)) > 0 for node in (0, 1)] == [True, True]
    assert len(trial_processes(TEAM)) == 3
    assert trials_on(TEAM, 0) | trials_on(TEAM, 1) == {0, 1, 2}
    check_the_list_while_it_runs(first["id"])
    refused = fmnist("jobs", "resubmit", first["id"], "--cluster", TEAM)
    assert refused.code == 2
    assert f"job {first['id']} is running" in refused.err
    wait_until(lambda: "3 trials at a time with 1 CPU each" in follower.output, timeout_s=20)
    follower.process.send_signal(signal.SIGINT)
    assert f"the job goes on; `fmnist jobs logs {first['id']} --follow" in follower.finish(code=130)
    assert job(first["id"], TEAM)["state"] == "running"
    check_the_stop(first["id"])
    kept = epochs_files("life")
    check_what_it_took_along(team)
    second = fmnist("jobs", "resubmit", first["id"], "--cluster", TEAM, "--json").json()
    assert second["id"] != first["id"]
    ended = fmnist("jobs", "wait", second["id"], "--cluster", TEAM, "--json").json()
    assert (ended["state"], ended["trials"], ended["exit_code"]) == ("succeeded", 3, 0)
    assert_whole("life", num_trials=3, num_epochs=EPOCHS)
    assert_kept(kept, "life")
    check_what_is_told_of_both(first["id"], second["id"])


def check_the_list_while_it_runs(job_id: str) -> None:
    row = job(job_id, TEAM)
    assert row["experiments_dir"] == str(experiment("life").path.parent)
    expected = {"state": "running", "user": getpass.getuser(), "trials": 0, "max_trials": 3, "best_value": None}
    assert {key: row[key] for key in expected} == expected
    assert re.fullmatch("[0-9a-f]{12}", row["config_hash"])
    header, line = fmnist("jobs", "--cluster", TEAM).out.splitlines()[:2]
    assert header.split() == ["id", "experiment", "user", "state", "trials", "best", "age"]
    assert line.split()[:5] == [job_id, "life", getpass.getuser(), "running", "0/3"]
    assert re.search(r"\d+ (s|min)", line)


def check_the_stop(job_id: str) -> None:
    start_s = time.monotonic()
    stopped = stop(job_id)
    note(stop_s=time.monotonic() - start_s)
    assert stopped.out == f"{job_id}: stopped; `fmnist jobs resubmit {job_id}` goes on with its experiment\n"
    wait_until(lambda: not trial_processes(TEAM), timeout_s=10)
    assert states("life") == [TrialState.RUNNING] * 3
    told = log(job_id, TEAM)
    assert f"interrupted; everything so far is saved, `fmnist jobs resubmit {job_id}` goes on" in told
    assert "Traceback" not in told
    waited = fmnist("jobs", "wait", job_id, "--cluster", TEAM)
    assert waited.code == 143
    assert "was stopped" in waited.err
    shown = fmnist("trials", "life", "--json").json()
    assert [trial["state"] for trial in shown["trials"]] == ["running"] * 3
    wait_until(lambda: used_cpus(TEAM) == [0.0, 0.0], timeout_s=30)


def check_what_it_took_along(team: LocalCluster) -> None:
    """The code and the config, of all that lies in the folder from which it was submitted."""
    there = Path(record_of(team.name).temporary_folder)
    packages = [path for path in there.glob("0/session_2*/runtime_resources/working_dir_files/*") if path.is_dir()]
    assert packages
    for package in packages:
        names = {path.name for path in package.iterdir()}
        assert names == {"cluster", "fmnist_models", "search", "config.yaml"}
        assert [str(path) for path in package.rglob("*") if path.name in {Path(name).name for name in SECRETS}] == []


def check_what_is_told_of_both(first: str, second: str) -> None:
    rows = fmnist("jobs", "--cluster", TEAM, "--json").json()
    assert [(row["id"], row["state"]) for row in rows[:2]] == [(second, "succeeded"), (first, "stopped")]
    assert rows[0]["config_hash"] == rows[1]["config_hash"]
    assert (rows[1]["trials"], rows[1]["best_value"]) == (0, None), "what the second one finished is not the first's"
    best = max(trial.value or 0.0 for trial in trials_of("life"))
    assert rows[0]["best_value"] == best
    assert f"{best:.4f}" in fmnist("jobs", "--cluster", TEAM).out.splitlines()[1]
    told = log(second, TEAM)
    assert "continues with 3 trials already in the study" in told
    assert "test accuracy" in told
    followed = fmnist("jobs", "logs", second, "--follow", "--cluster", TEAM)
    assert (followed.code, followed.out) == (0, told)
    assert "succeeded" in stop(second).out, "what has ended stays as it is"


# --- Jobs that fail ---


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"max_trails": 3}, [], ["max_trails", "max_trials"]),
        ({"max_cluster_share": 0}, [], ["max_cluster_share", "0"]),
        ({"max_cluster_share": 1.5}, [], ["max_cluster_share", "1.5"]),
        ({"node_labels": {"zone": "b c"}}, [], ["node_labels", "b c"]),
        ({}, ["--name", "../up"], ["../up", "letters"]),
        ({}, ["--set", "max_trials"], ["max_trials", "key=value"]),
        ({}, ["--preset", "full"], ["full", "not both"]),
        ({}, ["--enqueue", "nowhere.yaml"], ["nowhere.yaml"]),
        ({}, ["--warm-start", "nobody"], ["nobody"]),
        ({"space": {"model": "resnet18", "weights": "nowhere.pth"}}, [], ["nowhere.pth"]),
    ],
    ids=str,
)
def test_what_is_wrong_is_refused_before_anything_is_submitted(
    team: LocalCluster, changes: dict[str, Any], options: list[str], words: list[str]
) -> None:
    before = fmnist("jobs", "--cluster", TEAM, "--json").json()
    result = fmnist("submit", write_config(SMALL, **changes), "--cluster", TEAM, *options)
    assert (result.code, result.out) == (2, "")
    assert [word for word in words if word not in result.err] == []
    now = fmnist("jobs", "--cluster", TEAM, "--json").json()
    assert [row["id"] for row in now] == [row["id"] for row in before]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--experiments-dir", "all its nodes share"]),
        (["--experiments-dir", "here"], ["here", "full path"]),
        (["--experiments-dir", "/tmp", "--data-dir", "there"], ["there", "full path"]),
        (["--experiments-dir", "/tmp", "--warm-start", "./other"], ["./other", "full path"]),
        (
            ["--experiments-dir", "/tmp", "--set", "space={model: resnet18, weights: w.pth}"],
            ["w.pth", "full path"],
        ),
    ],
    ids=str,
)
def test_for_a_cluster_elsewhere_places_are_named_in_full(
    team: LocalCluster, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(Path("clusters", TEAM, "token")))
    monkeypatch.delenv("FMNIST_EXPERIMENTS_DIR")
    result = fmnist("submit", write_config(SMALL), "--address", team.dashboard.url, *arguments)
    assert (result.code, result.out) == (2, "")
    assert [word for word in words if word not in result.err] == []


def test_a_job_that_fails_at_once_says_why_and_ends_with_its_exit_code(team: LocalCluster, tmp_path: Path) -> None:
    """There are no images, and no way to get them."""
    config = write_config(SMALL, dataset="fashion-mnist")
    options = ["--name", "imageless", "--cluster", TEAM, "--data-dir", str(tmp_path)]
    followed = fmnist("submit", config, *options, "--follow")
    assert followed.code == 2
    assert "Fashion-MNIST is not under" in followed.out
    assert "Fashion-MNIST is not under" in followed.err
    job_id = followed.out.split()[1]
    waited = fmnist("jobs", "wait", job_id, "--cluster", TEAM)
    assert (waited.code, waited.out) == (2, "")
    assert "Fashion-MNIST is not under" in waited.err
    row = job(job_id, TEAM)
    assert (row["state"], row["exit_code"], row["trials"]) == ("failed", 2, None)


# --- Several people on one cluster, and where trials land ---


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [1, 2])
def test_two_searches_share_a_cluster_and_a_third_waits_and_says_so(team: LocalCluster, workers: int) -> None:
    one, two, name = f"first-half-{workers}", f"second-half-{workers}", f"third-{workers}"
    half = LONG | {"max_cluster_share": 0.5}
    first = submit(half, name=one, cluster=TEAM)
    second = submit(half, name=two, cluster=TEAM)
    wait_for_trials(one, 2)
    wait_for_trials(two, 2)
    assert len(trial_processes(TEAM)) == 4
    assert (len(states(one)), len(states(two))) == (2, 2)
    wait_until(lambda: used_cpus(TEAM) == [2.0, 2.0], timeout_s=30)
    third = submit(
        SMALL | {"max_cluster_share": 0.5, "max_trials": 2, "workers_per_trial": workers}, name=name, cluster=TEAM
    )
    wait_until(lambda: "waiting for a free slot" in log(third, TEAM), timeout_s=240)
    assert count_epochs(name) == []
    assert job(third, TEAM)["state"] == "running"
    assert stop(first).out.startswith(f"{first}: stopped")
    assert fmnist("jobs", "wait", third, "--cluster", TEAM).code == 0
    assert_whole(name, num_trials=2, num_epochs=1)
    assert log(third, TEAM).count("waiting for a free slot") == 1
    assert job(second, TEAM)["state"] == "running"
    stop(second)
    wait_until(lambda: not trial_processes(TEAM), timeout_s=10)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [1, 2])
def test_node_labels_lead_all_trials_to_the_nodes_that_have_them(team: LocalCluster, workers: int) -> None:
    name = f"labelled-{workers}"
    job_id = submit(LONG | {"node_labels": {"zone": "b"}, "workers_per_trial": workers}, name=name, cluster=TEAM)
    wait_for_trials(name, 2 // workers)
    wait_until(lambda: used_cpus(TEAM) == [0.0, 2.0], timeout_s=30)
    assert states(name) == [TrialState.RUNNING] * (2 // workers)
    count = f"{2 // workers} trial{'s' if workers == 1 else ''} at a time"
    assert count in log(job_id, TEAM)
    stop(job_id)
    wait_until(lambda: used_cpus(TEAM) == [0.0, 0.0], timeout_s=30)


@pytest.mark.slow
def test_a_label_that_no_node_has_fails_at_once_and_is_named(team: LocalCluster) -> None:
    job_id = submit(SMALL | {"node_labels": {"zone": "c"}}, name="nowhere", cluster=TEAM)
    waited = fmnist("jobs", "wait", job_id, "--cluster", TEAM)
    assert waited.code == 2
    assert "node_labels" in waited.err
    assert "zone=c" in waited.err


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine whose GPUs are only declared")
def test_a_gpu_that_is_only_declared_ends_a_search_and_is_named(folder: Path) -> None:
    """Before its trials where the precision is open, else with each of them."""
    with cluster_up("gpu", nodes=1, cpus_per_node=4, gpus_per_node=1):
        quarters = SMALL | {"gpus_per_trial": 0.25}
        waited = fmnist("jobs", "wait", submit(quarters, name="refused", cluster="gpu"), "--cluster", "gpu")
        assert waited.code == 2
        assert "holds a GPU, but torch sees no CUDA device there" in waited.err
        job_id = submit(quarters | {"precision": "fp32"}, name="quarters", cluster="gpu")
        assert fmnist("jobs", "wait", job_id, "--cluster", "gpu").code == 1
        assert states("quarters") == [TrialState.FAIL] * SMALL["max_trials"]
        said = log(job_id, "gpu")
        assert "3 trials at a time with 1 CPU and 0.25 GPU each" in said
        assert "3 trials failed as infrastructure: a worker on " in said


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_process_that_has_the_token_searches_on_the_cluster_without_a_job(team: LocalCluster) -> None:
    address = ["--address", team.address]
    done = Running("search", "run", write_config(SMALL), "--name", "direct", *address, **team.environment)
    assert "test accuracy" in done.finish(code=0)
    assert_whole("direct", num_trials=3, num_epochs=1)
    going = Running("search", "run", write_config(LONG), "--name", "going", *address, **team.environment)
    wait_for_trials("going", 3)
    going.process.send_signal(signal.SIGINT)
    told = going.finish(code=130)
    assert f"`fmnist search resume going --address {team.address}` goes on" in told
    wait_until(lambda: not trial_processes(TEAM), timeout_s=10)
    refused = Running("search", "run", write_config(SMALL), "--name", "refused", *address, HOME=os.getcwd())
    assert f"no Ray cluster answers at {team.address}" in refused.finish(code=3)
    assert not experiment("refused").path.exists()


# --- Losses ---


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_lost_node_costs_no_finished_epoch(folder: Path) -> None:
    """Two trials at a time on three nodes of one CPU: one at least is not on the head, and one node is free for it."""
    with cluster_up("fragile", nodes=3, cpus_per_node=1):
        search = LONGER | {"max_concurrent_trials": 2, "max_trials": 4}
        job_id = submit(search, name="fragile", cluster="fragile")
        wait_for_trials("fragile", 2, epochs=2)
        node = next(number for number in (1, 2) if trials_on("fragile", number))
        (lost,) = trials_on("fragile", node)
        before = epochs_files("fragile")
        assert fmnist("cluster", "kill-node", str(node), "--name", "fragile").code == 0
        dead_s = time.monotonic()
        elsewhere = [number for number in (0, 1, 2) if number != node]
        wait_until(lambda: any(lost in trials_on("fragile", number) for number in elsewhere), timeout_s=60)
        process_s = time.monotonic() - dead_s
        last = before[f"{lost:05d}"].count("\n") + 1  # one that it was about to write when the node died
        wait_until(lambda: epochs_files("fragile")[f"{lost:05d}"].count("\n") > last, timeout_s=90)
        note(node_death_to_process_elsewhere_s=process_s, to_its_next_epoch_s=time.monotonic() - dead_s)
        ended = fmnist("jobs", "wait", job_id, "--cluster", "fragile", "--json").json()
        assert (ended["state"], ended["trials"]) == ("succeeded", 4)
        told = log(job_id, "fragile")
        assert "state-dump" not in told, "Ray's own accounts of a lost node are for search.log"
        assert "Traceback" not in told
    assert_whole("fragile", num_trials=4, num_epochs=LONGER["max_epochs"])
    assert_kept(before, "fragile")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_lost_head_is_told_of_and_a_new_cluster_goes_on(folder: Path) -> None:
    with cluster_up("headless", nodes=2, cpus_per_node=2):
        first = trace("headless")
        job_id = submit(LONGER, name="headless", cluster="headless")
        waiting = Running("jobs", "wait", job_id, "--cluster", "headless")
        following = Running("jobs", "logs", job_id, "--follow", "--cluster", "headless")
        wait_until(lambda: "at a time" in following.output)
        wait_for_trials("headless", 3)
        assert fmnist("cluster", "kill-node", "0", "--name", "headless").code == 0
        assert "does not answer any more" in following.finish(code=3, timeout_s=60)
        assert "no Ray dashboard answers" in waiting.finish(code=3, timeout_s=60)
        refused = fmnist("submit", write_config(LONGER), "--name", "headless", "--cluster", "headless")
        assert refused.code == 3
        assert fmnist("cluster", "down", "--name", "headless").code == 0
        assert_gone(first)
        kept = epochs_files("headless")
        assert set(states("headless")) <= {TrialState.RUNNING, TrialState.COMPLETE}
        LocalCluster("headless", nodes=2, cpus_per_node=2).up()
        job_id = submit(LONGER, name="headless", cluster="headless")
        assert fmnist("jobs", "wait", job_id, "--cluster", "headless").code == 0
    assert_whole("headless", num_trials=3, num_epochs=LONGER["max_epochs"])
    assert_kept(kept, "headless")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_taking_a_cluster_down_has_its_jobs_save_what_they_have(folder: Path) -> None:
    with cluster_up("ending", nodes=2, cpus_per_node=1):
        submit(LONG, name="ending", cluster="ending")
        wait_for_trials("ending", 2)
        before, kept, start_s = trace("ending"), epochs_files("ending"), time.monotonic()
        assert fmnist("cluster", "down", "--name", "ending") == Result(0, "cluster ending is down\n", "")
        note(down_with_a_job_s=time.monotonic() - start_s)
        assert_gone(before)
    assert states("ending") == [TrialState.RUNNING] * 2
    assert_kept(kept, "ending")
    assert experiment("ending").trials_table.exists(), "the search came to its end in order"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("wait_s", [0.0, 2.0, 5.0, 8.0])
def test_a_job_stopped_while_it_starts_leaves_nothing_running(team: LocalCluster, wait_s: float) -> None:
    name = f"early-{wait_s:g}"
    job_id = submit(LONG, name=name, cluster=TEAM)
    time.sleep(wait_s)
    stop(job_id)
    assert fmnist("jobs", "wait", job_id, "--cluster", TEAM).code in (143, 130)
    wait_until(lambda: not trial_processes(TEAM), timeout_s=10)
    wait_until(lambda: used_cpus(TEAM) == [0.0, 0.0], timeout_s=30)
    assert set(states(name)) <= {TrialState.RUNNING}
    assert "Traceback" not in log(job_id, TEAM)
    assert Jobs(team.dashboard).get(job_id).state.has_ended
