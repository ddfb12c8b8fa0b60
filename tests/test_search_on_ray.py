"""Searches on a real local Ray: what happens to a trial is what the study says."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray
import torch
from optuna.trial import FrozenTrial, TrialState
from ray._private import worker as ray_worker
from ray.tune.execution import class_cache
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from safetensors.torch import load_file
from scripted_training import (
    BAD,
    COURSES,
    DIES,
    DIES_ONCE,
    DIVERGES,
    GOOD,
    OUT_OF_MEMORY,
    RAISES,
    SLOW,
    DiesWhenIdle,
    KillsAWorkerOnce,
    ScriptedTraining,
)

from cluster import heap, session, token
from cluster.session import BackgroundRay, local_ray
from fmnist_models.data import TrainingData
from fmnist_models.devices import find_cuda_problem
from fmnist_models.errors import DeviceError
from fmnist_models.networks import build_network
from fmnist_models.prediction import DeviceImages, predict_scores
from fmnist_models.probe import candidates
from search.configuration.config import SearchConfig, parse_config
from search.records.cost import measure_cost, read_seconds
from search.records.epochs_file import parse_epochs
from search.records.experiment import Experiment, new_experiment
from search.records.record import DEVICE
from search.review.trial_detail import read_details
from search.review.trial_detail_text import describe_trial
from search.running import arithmetic, runner, time_watch
from search.running.preparation import Prepared
from search.running.progress import SilentProgress
from search.running.remote_arithmetic import decide_on_cluster
from search.running.runner import Outcome, run_trials
from search.running.slots import Resources, Slot, plan_slots
from search.study.search_study import SearchStudy

CPUS, DECLARED_GPUS = 2, 2
NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine whose GPUs are only declared")


LOCALLY = """
import sys, ray
from ray._private import services
services.resolve_ip_for_localhost = lambda host: host  # or it would only try the outer address, and wait there
"""
JOIN = (
    LOCALLY
    + """
from ray.scripts.scripts import main
sys.argv[1:] = ["start", *sys.argv[1:]]
main()
"""
)
ENTER = (
    LOCALLY
    + """
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On
ray.init(address=sys.argv[1])
print("INSIDE")
task = ray.remote(num_cpus=0, scheduling_strategy=On(sys.argv[2], soft=False))(lambda: open(sys.argv[3], "w"))
ray.get(task.remote())
"""
)


@pytest.fixture(scope="module")
def local_cluster() -> Iterator[None]:
    """Without a home folder, and with variables from an earlier cluster, which are no concern of a local Ray."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where Ray's processes find scripted_training
        patch.setenv("OMP_NUM_THREADS", "2")  # which a trial that holds one CPU must not heed
        patch.setenv("HOME", "/proc")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_AUTH_TOKEN", " ")
        patch.setenv("RAY_AUTH_TOKEN_PATH", "/nowhere/token")
        with local_ray(num_cpus=CPUS, num_gpus=DECLARED_GPUS):
            yield


@pytest.fixture(scope="module")
def intruders(local_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes without the token: one would run a task on the node, the other would be a node."""
    folder, context = tmp_path_factory.mktemp("intruders"), ray.get_runtime_context()
    proof, address = folder / "proof", context.gcs_address
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    options = [f"--address={address}", "--disable-usage-stats", f"--temp-dir={folder / 'ray'}"]
    started = []
    for number, arguments in enumerate([[ENTER, address, context.get_node_id(), str(proof)], [JOIN, *options]]):
        with (folder / str(number)).open("wb") as output:
            command = [sys.executable, "-c", *arguments]
            started.append(
                subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
            )
    try:
        yield started
        assert [process.wait(120) != 0 for process in started] == [True, True]
    finally:
        for process in started:
            process.kill()
            process.wait()
    said = [(folder / str(number)).read_text() for number in range(2)]
    assert not proof.exists()
    assert "INSIDE" not in said[0]
    assert "Ray runtime started" not in said[1]
    assert all("token" in text.lower() for text in said), said
    assert len(ray.nodes()) == 1


def prepare(data: TrainingData, **settings: Any) -> Prepared:
    raw = {"dataset": "synthetic", "space": {"model": "customnet"}, **settings}
    return Prepared(parse_config(raw, where="test"), data, {}, ())


def run(experiment: Experiment, prepared: Prepared, **options: Any) -> tuple[Outcome, SearchStudy]:
    experiment.create()
    study = SearchStudy.open(experiment, prepared.config)
    slots = plan_slots(prepared.config, [Resources(CPUS, DECLARED_GPUS)])
    return run_trials(experiment, prepared, slots, study=study, progress=SilentProgress(), **options), study


@dataclass(frozen=True)
class ScriptedSearch:
    """A search in which each course was run once, in order, one at a time."""

    experiment: Experiment
    config: SearchConfig
    study: SearchStudy
    diary: list[str]

    def trial(self, course: float) -> FrozenTrial:
        return self.study.trial(COURSES.index(course))

    def lines(self, course: float, containing: str) -> list[str]:
        return [line for line in self.diary if line.startswith(f"lr={course} ") and containing in line]


@pytest.fixture(scope="module")
def scripted(
    local_cluster: None, synthetic_data: TrainingData, tmp_path_factory: pytest.TempPathFactory
) -> ScriptedSearch:
    folder = tmp_path_factory.mktemp("scripted")
    diary = folder / "diary"
    prepared = prepare(
        synthetic_data,
        space={"model": "customnet", "lr": {"choice": list(COURSES)}},
        max_trials=len(COURSES),
        max_epochs=3,
        max_concurrent_trials=1,
        reduction_factor=2,
        keep_checkpoints=1,
    )
    experiment = new_experiment("scripted", directory=folder)
    experiment.create()
    experiment.config.write_text(prepared.config.to_yaml())
    study = SearchStudy.open(experiment, prepared.config)
    study.enqueue([{"lr": course} for course in COURSES])
    outcome, study = run(experiment, prepared, make_training=functools.partial(ScriptedTraining, diary=diary))
    assert outcome == Outcome.FINISHED
    return ScriptedSearch(experiment, prepared.config, study, diary.read_text().splitlines())


def test_a_complete_trial_has_its_best_epochs_value(scripted: ScriptedSearch) -> None:
    trial = scripted.trial(GOOD)
    assert trial.state == TrialState.COMPLETE
    assert trial.value == 0.9
    assert trial.intermediate_values == {1: 0.7, 2: 0.9, 3: 0.8}


def test_each_trial_is_charged_for_its_processes_the_first_for_their_start(scripted: ScriptedSearch) -> None:
    charged = [read_seconds(trial) for trial in scripted.study.study.trials]
    first, *others = [0.0 if seconds is None else seconds.processor for seconds in charged]
    assert first > 1 > others[0] > 0, "to load torch takes seconds, what is scripted next to nothing"


def test_a_pruned_trial_is_pruned_and_keeps_its_values(scripted: ScriptedSearch) -> None:
    trial = scripted.trial(BAD)
    assert trial.state == TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.3}


@pytest.mark.parametrize(
    ("course", "reason", "message"),
    [
        (DIVERGES, "diverged", "epoch 2: train_loss nan"),
        (RAISES, "code", "RuntimeError: a mistake in the code"),
        (OUT_OF_MEMORY, "memory", "MemoryError: no more of it"),
    ],
)
def test_a_failed_trial_says_why(scripted: ScriptedSearch, course: float, reason: str, message: str) -> None:
    trial = scripted.trial(course)
    assert trial.state == TrialState.FAIL
    assert trial.value is None
    assert (trial.user_attrs["reason"], trial.user_attrs["message"]) == (reason, message)


def test_a_trial_whose_process_keeps_dying_fails_as_infrastructure(scripted: ScriptedSearch) -> None:
    trial = scripted.trial(DIES)
    assert (trial.state, trial.value, trial.user_attrs["reason"]) == (TrialState.FAIL, None, "infrastructure")
    assert "died unexpectedly" in trial.user_attrs["message"]


def test_an_exceptions_traceback_is_in_the_trials_folder(scripted: ScriptedSearch) -> None:
    text = scripted.experiment.trial(scripted.trial(RAISES).number).error.read_text()
    assert "Traceback" in text
    assert "scripted_training.py" in text


def test_a_killed_process_costs_only_the_epoch_in_flight(scripted: ScriptedSearch) -> None:
    assert scripted.trial(DIES_ONCE).state == TrialState.COMPLETE
    assert scripted.trial(DIES_ONCE).value == 0.9
    assert len(scripted.lines(DIES_ONCE, "epoch=1 ")) == 1
    assert len(scripted.lines(DIES_ONCE, "epoch=2 ")) == 2
    assert len(scripted.lines(DIES_ONCE, "epoch=3 ")) == 1


def test_a_process_is_not_restarted_for_ever(scripted: ScriptedSearch) -> None:
    assert len(scripted.lines(DIES, "dies")) == 3


def test_trials_share_a_warm_process_that_exceptions_and_pruning_leave_alive(scripted: ScriptedSearch) -> None:
    pids = {line.split("pid=")[1].split()[0] for course in COURSES[:5] for line in scripted.lines(course, "pid=")}
    assert len(pids) == 1


def test_images_are_shared_not_copied_and_threads_are_the_trials_cpus(scripted: ScriptedSearch) -> None:
    epochs = [line for line in scripted.diary if "pid=" in line]
    assert all("images_writeable=False" in line for line in epochs)
    assert all("threads=1 " in line for line in epochs)


def test_an_interrupted_or_pruned_trial_has_its_epochs_as_a_table(scripted: ScriptedSearch) -> None:
    epochs = parse_epochs(scripted.experiment.trial(scripted.trial(BAD).number).epochs.read_text())
    assert [epoch.val_accuracy for epoch in epochs] == [0.3]


def test_only_the_best_trials_keep_their_weights(scripted: ScriptedSearch) -> None:
    trials = [scripted.experiment.trial(number) for number in range(len(COURSES))]
    assert not any(trial.last.exists() for trial in trials)
    assert [n for n, trial in enumerate(trials) if trial.best.exists()] == [scripted.trial(GOOD).number]


def test_nothing_of_ray_stays_in_the_experiment(scripted: ScriptedSearch) -> None:
    assert not scripted.experiment.ray_files.exists()
    assert not list(scripted.experiment.path.rglob("*.pkl"))


def test_a_local_ray_lives_on_loopback(local_cluster: None) -> None:
    assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]


def test_nothing_of_a_local_ray_listens_beyond_loopback(local_cluster: None) -> None:
    ray.get(ray.remote(lambda: True).remote())  # whose process listens, too
    addresses = [
        connection.laddr.ip.removeprefix("::ffff:")
        for process in (psutil.Process(), *psutil.Process().children(recursive=True))
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(addresses) >= 5  # of the driver, GCS, the raylet, its agent, a worker
    assert set(addresses) == {"127.0.0.1"}


def test_the_files_and_the_token_of_a_local_ray_are_this_users_alone(local_cluster: None) -> None:
    folder = Path(ray_worker.global_worker.node.get_temp_dir_path()).parent
    assert folder.parent == Path("/tmp")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "token").stat().st_mode) == 0o600
    found = ray.get(ray.remote(lambda: {name: os.environ.get(name) for name in token.VARIABLES}).remote())
    assert found == {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": None, "RAY_AUTH_TOKEN_PATH": str(folder / "token")}


def test_the_paths_of_a_local_rays_sockets_leave_room(local_cluster: None) -> None:
    node = ray_worker.global_worker.node
    assert max(len(path) for path in (node.plasma_store_socket_name, node.raylet_socket_name)) <= 100


def test_a_local_ray_refuses_a_task_and_a_node_without_its_token(intruders: list[subprocess.Popen[bytes]]) -> None:
    """They are let to try while the other tests run, as Ray takes its time to say no; then it is looked at."""
    assert len(intruders) == 2


def test_a_local_ray_has_the_processes_that_a_search_needs_and_no_more(local_cluster: None) -> None:
    started = {
        Path(word).name for process in psutil.Process().children(recursive=True) for word in process.cmdline()[:4]
    }
    assert {"gcs_server", "raylet"} <= started
    assert not {"log_monitor.py", "monitor.py", "dashboard.py"} & started


def test_the_agent_of_a_local_ray_serves_nobody(local_cluster: None) -> None:
    lines = [process.cmdline() for process in psutil.Process().children(recursive=True)]
    (raylet,) = (line for line in lines if line and Path(line[0]).name == "raylet")
    (agent,) = (word for word in raylet if word.startswith("--dashboard_agent_command="))
    assert "--minimal" in agent.split()


def test_what_a_person_has_set_for_waiting_processes_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(session._for_waiting_processes(["json"])) == {"preload_python_modules", session._IDLE_MS}
    monkeypatch.setenv(f"RAY_{session._IDLE_MS}", "5000")
    assert session._for_waiting_processes(["json"]) == {"preload_python_modules": ["json"]}
    assert session._for_waiting_processes([]) == {}


def test_the_agent_of_a_local_ray_does_not_ask_each_second_for_a_dashboard(local_cluster: None) -> None:
    log = Path(ray_worker.global_worker.node.get_logs_dir_path()) / "dashboard_agent.log"
    for _ in range(300):
        if "Loaded" in log.read_text():
            break
        time.sleep(0.1)
    time.sleep(3)  # in which it would
    assert "Loaded" in log.read_text()
    assert "Get dashboard http address" not in log.read_text()


class _Actor:
    """What Tune would make an actor of."""

    def pid(self) -> int:
        return os.getpid()


def test_trials_have_the_processes_that_wait_for_them_and_others_on_a_cluster(
    local_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def actor_of_tune() -> Any:
        return class_cache._ActorClassCache().get(_Actor)

    assert ray.get(ray.remote(lambda: True).remote())  # whose process waits afterwards
    waiting = {process.pid for process in psutil.Process().children(recursive=True)}
    with runner._environment_inherited():
        actor = actor_of_tune().remote()
        assert ray.get(actor.pid.remote()) in waiting
        ray.kill(actor)
    monkeypatch.setattr(ray_worker._global_node, "head", False)
    with runner._environment_inherited():
        assert actor_of_tune()._default_options["runtime_env"]["env_vars"]


def test_a_ray_in_the_background_tells_who_waits_what_became_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    never, failing = (BackgroundRay(num_cpus=1, num_gpus=0) for _ in range(2))
    never.stop()
    monkeypatch.setattr(session, "local_ray", raise_no_room)
    failing.start()
    for _ in range(2):
        with pytest.raises(OSError, match="no room"):
            failing.wait()
    failing.stop()


def raise_no_room(**_: Any) -> None:
    raise OSError("no room")


def test_what_goes_wrong_when_a_ray_in_the_background_ends_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def ends_badly(**_: Any) -> Iterator[None]:
        yield
        raise_no_room()

    monkeypatch.setattr(session, "local_ray", ends_badly)
    failing = BackgroundRay(num_cpus=1, num_gpus=0)
    failing.wait()
    with pytest.raises(OSError, match="no room"):
        failing.stop()
    failing.stop()


def test_who_is_interrupted_while_a_ray_in_the_background_ends_goes_on_when_it_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = []

    @contextlib.contextmanager
    def ends_slowly(**_: Any) -> Iterator[None]:
        yield
        os.kill(os.getpid(), signal.SIGINT)  # which wakes the main thread
        time.sleep(0.5)
        gone.append(True)

    monkeypatch.setattr(session, "local_ray", ends_slowly)
    slow = BackgroundRay(num_cpus=1, num_gpus=0)
    slow.wait()
    with pytest.raises(KeyboardInterrupt):
        slow.stop()
    assert gone == [True]


def test_the_log_of_a_ray_that_starts_before_its_experiment_is_there_has_what_came_earlier(tmp_path: Path) -> None:
    folder, logger = tmp_path / "experiment", logging.getLogger("ray")
    with session.ray_log(folder / "ray.log"):
        logger.warning("early")
        assert not folder.exists()
        folder.mkdir()
        with session.ray_log(folder / "ray.log"):
            logger.warning("late")
    assert [line.split(": ")[-1] for line in (folder / "ray.log").read_text().splitlines()] == ["early", "late"]


def test_a_worker_keeps_the_memory_that_a_step_of_training_frees(local_cluster: None) -> None:
    expected = heap.missing_from(os.environ)
    found = ray.get(ray.remote(lambda: dict(os.environ)).remote())
    assert {name: found.get(name) for name in expected} == expected
    assert not set(expected) & set(os.environ)  # of this process, whose other children it would reach


def test_on_a_cluster_the_precision_is_decided_where_trials_run(
    local_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arithmetic, "_probe", None)  # of this process, which is not to measure
    config, notes = parse_config({"space": {"model": "customnet"}}, where="test"), list[str]()
    (slots, known) = plan_slots(config, [Resources(CPUS, 0)]), candidates(torch.device("cpu"))
    assert decide_on_cluster(config, notes, slot=slots.slot, num_train=200) in known
    assert [note.startswith("precision: customnet in ") for note in notes] == [True]


def test_where_no_node_of_the_trials_answers_it_is_decided_here(local_cluster: None) -> None:
    config, notes = parse_config({"space": {"model": "customnet"}}, where="test"), list[str]()
    slot = Slot(num_workers=1, cpus=1, gpus=0, accelerator_type="H200")
    assert decide_on_cluster(config, notes, slot=slot, num_train=200, timeout_s=0.5) in candidates(torch.device("cpu"))
    assert notes[0].startswith("precision: chosen on this machine: no worker responded")
    assert notes[1].startswith("precision: customnet in ")


@NO_CUDA
def test_a_gpu_that_torch_cannot_use_is_told_before_any_trial_of_a_cluster(local_cluster: None) -> None:
    config, notes = parse_config({"space": {"model": "customnet"}, "gpus_per_trial": 0.5}, where="test"), list[str]()
    slots = plan_slots(config, [Resources(CPUS, DECLARED_GPUS)])
    with pytest.raises(DeviceError, match=r"gpus_per_trial: a worker on .* holds a GPU, but torch sees no CUDA device"):
        decide_on_cluster(config, notes, slot=slots.slot, num_train=200)


@NO_CUDA
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_worker_that_holds_a_gpu_which_torch_cannot_use_fails_its_trial_at_once(
    local_cluster: None, synthetic_data: TrainingData, tmp_path: Path, workers: int
) -> None:
    prepared = prepare(
        synthetic_data, max_trials=1, max_epochs=1, gpus_per_trial=workers, workers_per_trial=workers, precision="fp32"
    )
    experiment = new_experiment("no-cuda", directory=tmp_path)
    diary = tmp_path / "diary"
    outcome, study = run(experiment, prepared, make_training=functools.partial(ScriptedTraining, diary=diary))
    assert outcome == Outcome.FINISHED
    (trial,), problem = study.study.trials, find_cuda_problem()
    assert problem is not None
    assert (trial.state, trial.user_attrs["reason"]) == (TrialState.FAIL, "infrastructure")
    assert trial.user_attrs["message"].startswith("a worker on ")
    assert problem.split(" (")[0] in trial.user_attrs["message"]
    assert "CUDA_VISIBLE_DEVICES is '" in trial.user_attrs["message"]
    assert (trial.intermediate_values, trial.user_attrs.get(DEVICE)) == ({}, None)
    assert not diary.exists()
    assert measure_cost(experiment, cpus=1, gpus=1).gpu_hours == 0


def test_every_trial_has_the_name_of_the_device_that_it_trained_on(scripted: ScriptedSearch) -> None:
    """Failed ones too, but for one whose process died."""
    devices = {course: scripted.trial(course).user_attrs.get(DEVICE) for course in COURSES}
    assert devices == dict.fromkeys(COURSES, "cpu")
    (shown,) = read_details(scripted.experiment, [0])
    assert shown.to_dict()["device"] == "cpu"
    assert "trained on cpu" in describe_trial(shown).plain


def test_a_finished_search_trains_nothing_more(scripted: ScriptedSearch, synthetic_data: TrainingData) -> None:
    study = SearchStudy.open(scripted.experiment, scripted.config)
    prepared = Prepared(scripted.config, synthetic_data, {}, ())
    slots = plan_slots(scripted.config, [Resources(CPUS, 0)])
    outcome = run_trials(scripted.experiment, prepared, slots, study=study, progress=SilentProgress())
    assert outcome == Outcome.FINISHED
    assert len(study.study.trials) == len(COURSES)


def test_as_many_trials_at_a_time_as_fit_and_each_trains_for_real(
    local_cluster: None, synthetic_data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the clock of Tune's own time budget goes a day forward at each look."""
    days = SimpleNamespace(time=map(float, itertools.count(86_400, 86_400)).__next__)
    monkeypatch.setattr("ray.tune.stopper.timeout.time", days)
    prepared = prepare(
        synthetic_data,
        space={
            "model": {"choice": ["customnet", "resnet18"]},
            "lr": {"float": [1e-4, 1e-2], "log": True},
            "unfreeze": {"subset": ["layer4"]},
        },
        max_trials=4,
        max_epochs=2,
        pruner="none",
        time_budget_s=3600,
    )
    outcome, study = run(new_experiment("real", directory=tmp_path), prepared)
    trials = study.study.trials
    assert outcome == Outcome.FINISHED
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4
    first, second = sorted(trials, key=lambda trial: trial.number)[:2]
    assert second.datetime_start < first.datetime_complete  # type: ignore[operator]


def test_a_time_budget_leaves_running_trials_to_continue(
    local_cluster: None, synthetic_data: TrainingData, tmp_path: Path
) -> None:
    settings = {"max_trials": 2, "max_epochs": 300, "pruner": "none", "max_concurrent_trials": 1}
    experiment = new_experiment("budget", directory=tmp_path)
    outcome, study = run(experiment, prepare(synthetic_data, time_budget_s=12, **settings))
    assert outcome == Outcome.OUT_OF_TIME
    assert [trial.state for trial in study.study.trials] == [TrialState.RUNNING]
    epochs_before = len(study.trial(0).intermediate_values)
    assert epochs_before < 300
    again = SearchStudy.open(experiment, prepare(synthetic_data, **settings).config)
    assignment = again.next_assignment()
    assert assignment is not None
    assert assignment.number == 0


def test_two_workers_of_a_trial_train_as_one(local_cluster: None, synthetic_data: TrainingData, tmp_path: Path) -> None:
    prepared = prepare(synthetic_data, max_trials=1, max_epochs=2, workers_per_trial=2, precision="fp32")
    experiment = new_experiment("group", directory=tmp_path)
    outcome, study = run(experiment, prepared)
    assert outcome == Outcome.FINISHED
    epochs = parse_epochs(experiment.trial(0).epochs.read_text())
    assert [epoch.epoch for epoch in epochs] == [1, 2]
    assert study.trial(0).intermediate_values == {epoch.epoch: epoch.val_accuracy for epoch in epochs}
    assert epochs[1].train_loss < epochs[0].train_loss
    # What was reported, over both workers' shares, is what the saved model scores on the whole validation part.
    model = build_network("customnet", {})
    model.load_state_dict(load_file(experiment.trial(0).best))
    validation = DeviceImages(synthetic_data.validation, torch.device("cpu"))
    scores = predict_scores(model, validation.images, normalisation=synthetic_data.normalisation)
    accuracy = float((scores.argmax(1) == validation.labels).float().mean())
    assert accuracy == pytest.approx(max(epoch.val_accuracy for epoch in epochs), abs=1e-6)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_slots_workers_train_one_trial_after_the_other_whatever_becomes_of_them(
    local_cluster: None, synthetic_data: TrainingData, tmp_path: Path, workers: int
) -> None:
    courses = (GOOD, BAD, DIVERGES, GOOD, BAD)
    prepared = prepare(
        synthetic_data,
        space={"model": "customnet", "lr": {"choice": list(COURSES)}},
        max_trials=len(courses),
        max_epochs=3,
        max_concurrent_trials=1,
        reduction_factor=2,
        workers_per_trial=workers,
    )
    experiment = new_experiment("contract", directory=tmp_path)
    experiment.create()
    SearchStudy.open(experiment, prepared.config).enqueue([{"lr": course} for course in courses])
    diary = tmp_path / "diary"
    outcome, study = run(experiment, prepared, make_training=functools.partial(ScriptedTraining, diary=diary))
    assert outcome == Outcome.FINISHED
    values = [(trial.state, trial.value, trial.intermediate_values) for trial in study.study.trials]
    complete, pruned = (TrialState.COMPLETE, 0.9, {1: 0.7, 2: 0.9, 3: 0.8}), (TrialState.PRUNED, 0.3, {1: 0.3})
    assert values == [complete, pruned, (TrialState.FAIL, None, {1: 0.7}), complete, pruned]
    lines = diary.read_text().splitlines()
    assert len({line.split("pid=")[1].split()[0] for line in lines}) == workers
    assert len(lines) == workers * sum(len(trial.intermediate_values) for trial in study.study.trials) + workers
    assert {group["state"] for group in placement_group_table().values()} == {"REMOVED"}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [1, 2])
def test_what_workers_raise_is_the_trials_with_its_traceback_and_the_next_one_goes_on(
    local_cluster: None, synthetic_data: TrainingData, tmp_path: Path, workers: int
) -> None:
    courses = (RAISES, OUT_OF_MEMORY, GOOD)
    prepared = prepare(
        synthetic_data,
        space={"model": "customnet", "lr": {"choice": list(COURSES)}},
        max_trials=len(courses),
        max_epochs=3,
        max_concurrent_trials=1,
        pruner="none",
        workers_per_trial=workers,
    )
    experiment = new_experiment("raising", directory=tmp_path)
    experiment.create()
    SearchStudy.open(experiment, prepared.config).enqueue([{"lr": course} for course in courses])
    options = {"make_training": functools.partial(ScriptedTraining, diary=tmp_path / "diary")}
    outcome, study = run(experiment, prepared, **options)
    assert outcome == Outcome.FINISHED
    told = [
        (trial.state, trial.user_attrs.get("reason"), trial.user_attrs.get("message")) for trial in study.study.trials
    ]
    assert told == [
        (TrialState.FAIL, "code", "RuntimeError: a mistake in the code"),
        (TrialState.FAIL, "memory", "MemoryError: no more of it"),
        (TrialState.COMPLETE, None, None),
    ]
    assert "scripted_training.py" in experiment.trial(0).error.read_text()


@pytest.mark.slow
def test_a_placement_group_that_was_left_behind_does_not_keep_the_next_trial_waiting(
    local_cluster: None, synthetic_data: TrainingData, tmp_path: Path
) -> None:
    """As Ray Train leaves them now and then, when a trial is stopped at the wrong moment."""
    left = placement_group([{"CPU": 1.0}] * CPUS)
    assert left.wait(30)
    others = placement_group([{"memory": 1.0}])  # of another shape, so none of a worker group
    prepared = prepare(synthetic_data, max_trials=1, max_epochs=1, workers_per_trial=2)
    outcome, _ = run(new_experiment("after-a-leak", directory=tmp_path), prepared)
    assert outcome == Outcome.FINISHED
    assert placement_group_table(left)["state"] == "REMOVED"
    assert placement_group_table(others)["state"] == "CREATED"
    remove_placement_group(others)


@pytest.mark.slow
def test_a_killed_worker_of_a_group_costs_a_restart_from_the_last_epoch(
    local_cluster: None, synthetic_data: TrainingData, tmp_path: Path
) -> None:
    prepared = prepare(synthetic_data, max_trials=1, max_epochs=3, workers_per_trial=2)
    experiment = new_experiment("killed-worker", directory=tmp_path)
    options = {"make_training": functools.partial(KillsAWorkerOnce, mark=tmp_path / "killed")}
    outcome, study = run(experiment, prepared, **options)
    assert outcome == Outcome.FINISHED
    assert (tmp_path / "killed").exists()
    assert study.trial(0).state == TrialState.COMPLETE
    assert sorted(study.trial(0).intermediate_values) == [1, 2, 3]


@pytest.mark.slow
def test_a_group_with_a_stopped_worker_ends_at_the_time_limit_and_the_next_one_has_its_place(
    local_cluster: None, synthetic_data: TrainingData, tmp_path: Path
) -> None:
    prepared = prepare(synthetic_data, max_trials=2, max_epochs=2, workers_per_trial=2, trial_timeout_s=40.0)
    experiment = new_experiment("stopped-worker", directory=tmp_path)
    training = functools.partial(KillsAWorkerOnce, mark=tmp_path / "stopped", number=signal.SIGSTOP)
    outcome, study = run(experiment, prepared, make_training=training)
    assert outcome == Outcome.FINISHED
    assert study.trial(0).state == TrialState.FAIL
    assert "Timeout" in experiment.trial(0).timeout.read_text()
    assert study.trial(1).state == TrialState.COMPLETE


@pytest.mark.slow
@pytest.mark.parametrize("max_restarts", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_killed_or_stopped_while_it_waits_for_a_trial_costs_no_trial(
    local_cluster: None,
    synthetic_data: TrainingData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    max_restarts: int,
    number: signal.Signals,
) -> None:
    """In a repeatable search a slot waits for older trials; what waits there can die too."""
    monkeypatch.setattr(time_watch, "_RESET_S", 3.0)
    prepared = prepare(
        synthetic_data,
        space={"model": "customnet", "lr": {"float": [1e-4, 1e-1]}},
        max_trials=5,
        max_epochs=3,
        pruner="none",
        deterministic=True,
        max_concurrent_trials=2,
        max_restarts=max_restarts,
        trial_timeout_s=600.0 if number == signal.SIGSTOP else None,
    )
    experiment = new_experiment("idle", directory=tmp_path)
    experiment.create()
    SearchStudy.open(experiment, prepared.config).enqueue([{"lr": SLOW}, {"lr": GOOD}, {"lr": BAD}])
    options = {"make_training": functools.partial(DiesWhenIdle, diary=tmp_path / "diary", number=number)}
    outcome, study = run(experiment, prepared, **options)
    assert outcome == Outcome.FINISHED
    assert (tmp_path / "diary.killed").exists()
    told = {trial.number: trial.user_attrs for trial in study.study.trials if trial.state != TrialState.COMPLETE}
    assert told == {}
