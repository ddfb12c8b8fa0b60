"""Faults committed for real: whatever ends a search or a trial, nothing finished is lost, doubled or changed."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from made_experiment import make_experiment
from optuna.trial import FrozenTrial, TrialState
from ray._private import worker as ray_worker
from scripted_training import (
    ASKS_NUMPY_FOR_A_PIB,
    ASKS_TORCH_FOR_A_PIB,
    BAD,
    DIES,
    FILLS_MEMORY,
    GOOD,
    HOLDS_THE_GIL,
    LOCAL,
    SLEEPS,
    STOPS,
    ScriptedTraining,
    scripted_config,
    search,
)
from tiny_disk import tiny_disk

from cluster import session
from cluster.session import local_ray
from fmnist_models.checkpoint import save_checkpoint
from fmnist_models.data import TrainingData
from fmnist_models.epoch import Epoch
from fmnist_models.training import TrainingPlan
from search.cli import main
from search.configuration.config import parse_config
from search.errors import ConfigError, ExperimentError
from search.records.epochs_file import format_epochs, parse_epochs
from search.records.experiment import Experiment
from search.records.fingerprint import fingerprint
from search.records.lock import lock_experiment
from search.records.record import read_study
from search.records.results import read_trials
from search.running import time_watch
from search.running.retention import Retention, check_room
from search.study.search_study import SearchStudy
from search.workflows import main_job

REPOSITORY, TESTS = Path(__file__).parent.parent, Path(__file__).parent
NUM_KILLS, NUM_TRIALS = 20, 40
MARK = "FMNIST_TEST"
STARTED: list[subprocess.Popen[bytes]] = []
GIB = 2**30
SMALL = {
    "dataset": "synthetic",
    "train_size": 400,
    "test_size": 100,
    "space": {"model": "customnet", "lr": {"float": [1e-4, 1e-2], "log": True}},
    "max_trials": 3,
    "max_epochs": 6,
    "pruner": "none",
}
REPEATABLE = {
    **SMALL,
    "dataset": "fashion-mnist",
    "train_size": 1000,
    "test_size": 500,
    "validation_fraction": 0.2,
    "space": {"model": "customnet", "lr": {"float": [1e-4, 1e-1], "log": True}, "dropout": {"float": [0.0, 0.6]}},
    "max_trials": NUM_TRIALS,
    "max_epochs": 9,
    "pruner": "halving",
    "deterministic": True,
    "max_concurrent_trials": 2,
}


@pytest.fixture(autouse=True)
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Is in the environment of every process that a test starts, and of those that these start; none outlives it."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    yield mark
    for process in STARTED:  # none is still running, unless the test failed
        process.kill()
        process.wait()
    STARTED.clear()
    try:
        wait_until(lambda: not processes_of(mark), timeout_s=90)
    finally:
        kill(processes_of(mark))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, in which experiments lie."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FMNIST_EXPERIMENTS_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def record(tmp_path: Path) -> Iterator[dict[str, object]]:
    """What a test measured; it stays in the test's folder."""
    measured: dict[str, object] = {}
    yield measured
    (tmp_path / "record.json").write_text(json.dumps(measured, indent=2))


@pytest.fixture(scope="module")
def local_cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS))  # where Ray's processes find scripted_training
        with local_ray(num_cpus=2, num_gpus=0):
            yield


def processes_of(mark: str) -> list[int]:
    """Every living process whose mark begins so."""
    entry, found = f"{MARK}={mark}".encode(), []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if any(variable.startswith(entry) for variable in environment.read_bytes().split(b"\0")):
                found.append(int(environment.parent.name))
    return found


def name_of(pid: int) -> str:
    """Nothing if it has just ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def ray_folders_of(mark: str) -> set[Path]:
    """The temporary folders of the Rays that processes with this mark belong to."""
    found = set()
    for pid in processes_of(mark):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/cmdline").read_text()
            found |= {Path(path) for path in re.findall(r"/tmp/fmnist-ray-[^/\0]+", text)}
    return found


def kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_until(condition: Callable[[], object], *, timeout_s: float = 120) -> float:
    """Gives how long it took."""
    start_s = time.monotonic()
    while not condition():
        assert time.monotonic() < start_s + timeout_s, f"waited {timeout_s:g} s in vain"
        time.sleep(0.02)
    return time.monotonic() - start_s


def write_config(folder: Path, settings: dict[str, Any], **changes: Any) -> str:
    path = folder / "small.yaml"
    path.write_text(json.dumps(settings | changes))  # JSON is YAML
    return str(path)


def start_fmnist(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Starts the command as a process of its own in ``folder``, where its experiments lie and its output goes."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "FMNIST_EXPERIMENTS_DIR": str(folder)}
    return start([sys.executable, "-m", "search.cli", *arguments], folder, environment)


def start(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with (folder / "output").open("wb") as output:  # no pipe, for which one would wait until its last holder is gone
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
    STARTED.append(process)
    return process


def output_of(folder: Path) -> str:
    return (folder / "output").read_text()


def finish(process: subprocess.Popen[bytes], folder: Path, *, code: int = 0, timeout_s: float = 300) -> str:
    """Waits for the end, checks the exit code, and gives the output."""
    assert process.wait(timeout_s) == code, output_of(folder)
    assert "Traceback" not in output_of(folder)
    return output_of(folder)


def fmnist(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Runs the command in this process; gives its exit code, standard output and standard error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fmnist", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def trials_of(experiment: Experiment) -> list[FrozenTrial]:
    return read_study(experiment).get_trials()


def states(experiment: Experiment) -> list[TrialState]:
    return [trial.state for trial in trials_of(experiment)]


def epochs_files(experiment: Experiment) -> dict[str, str]:
    """The tables of finished epochs, with the seconds that each took: one trained again would differ."""
    return {file.parent.name: file.read_text() for file in experiment.trials.glob("*/epochs.csv")}


def count_epochs(experiment: Experiment) -> int:
    return sum(text.count("\n") - 1 for text in epochs_files(experiment).values())


def assert_kept(before: dict[str, str], experiment: Experiment) -> None:
    now = epochs_files(experiment)
    assert [number for number, text in before.items() if not now.get(number, "").startswith(text)] == []


def assert_whole(experiment: Experiment) -> None:
    """Every trial's table of epochs says what the study says, and nothing half written lies about."""
    for trial in trials_of(experiment):
        epochs = parse_epochs(experiment.trial(trial.number).epochs.read_text())
        metric = {epoch.epoch: epoch.val_accuracy for epoch in epochs}
        assert metric == trial.intermediate_values, f"trial {trial.number}"
    assert [str(path) for path in experiment.path.rglob("*.part")] == []


# --- The driver ---


def table(experiment: Experiment) -> list[dict[str, Any]]:
    """All that a repeatable search repeats, bit for bit."""
    return [
        {
            "number": trial.number,
            "state": trial.state.name,
            "params": dict(sorted(trial.params.items())),
            "value": trial.value,
            "values": trial.intermediate_values,
        }
        for trial in trials_of(experiment)
    ]


def digest(experiment: Experiment) -> str:
    return fingerprint(trials_of(experiment))


def curves(experiment: Experiment) -> dict[str, list[Epoch]]:
    return {
        number: [dataclasses.replace(epoch, epoch_s=0.0) for epoch in parse_epochs(text)]
        for number, text in epochs_files(experiment).items()
    }


def assert_same_search(there: Experiment, here: Experiment) -> None:
    assert table(there) == table(here)
    assert curves(there) == curves(here)
    assert there.best_weights.read_bytes() == here.best_weights.read_bytes()


@pytest.fixture(scope="module")
def undisturbed(fashion_mnist_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("undisturbed")
    run = ["search", "run", write_config(folder, REPEATABLE), "--name", "a", "--data-dir", str(fashion_mnist_root)]
    finish(start_fmnist(folder, *run), folder, timeout_s=900)
    return Experiment(folder / "a")


def wait_for_an_epoch(experiment: Experiment) -> float:
    """Waits until a search that has just been started again finishes an epoch; gives after how many seconds."""
    time.sleep(2)  # what its forerunner was still writing does not count
    before = count_epochs(experiment)
    return 2 + wait_until(lambda: count_epochs(experiment) > before)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_search_killed_twenty_times_ends_as_the_undisturbed_one(
    undisturbed: Experiment, folder: Path, fashion_mnist_root: Path, mark: str, record: dict[str, object]
) -> None:
    experiment, chance = Experiment(folder / "k"), random.Random(0)
    run = ["search", "run", write_config(folder, REPEATABLE), "--name", "k", "--data-dir", str(fashion_mnist_root)]
    kept: list[dict[str, str]] = []
    carried_on_s: list[float] = []
    ray_folders: set[Path] = set()
    for _ in range(NUM_KILLS):
        process = start_fmnist(folder, *run)
        if chance.random() < 0.25:
            time.sleep(chance.uniform(1, 9))  # while it starts
        else:
            carried_on_s.append(wait_for_an_epoch(experiment))
            kill_s = time.monotonic() + chance.uniform(0, 3)
            # No more than a few epochs each time, or a fast machine would be at the end before the last kill.
            enough = count_epochs(experiment) + chance.randint(1, 6)
            wait_until(lambda: time.monotonic() > kill_s or count_epochs(experiment) >= enough)  # noqa: B023
        ray_folders |= ray_folders_of(mark)
        process.kill()
        assert process.wait() == -signal.SIGKILL, output_of(folder)
        kept.append(epochs_files(experiment))
    process = start_fmnist(folder, *run)
    carried_on_s.append(wait_for_an_epoch(experiment))
    finish(process, folder, timeout_s=900)
    assert [trial.number for trial in trials_of(experiment)] == list(range(NUM_TRIALS))
    assert set(states(experiment)) == {TrialState.COMPLETE, TrialState.PRUNED}
    assert_same_search(undisturbed, experiment)
    for before in kept:
        assert_kept(before, experiment)
    assert_whole(experiment)
    assert ray_folders
    wait_until(lambda: not processes_of(mark), timeout_s=90)  # the last of a killed Ray make their folder anew
    with local_ray(num_cpus=1, num_gpus=0):
        assert [str(path) for path in ray_folders if path.exists()] == []
    record["seconds_until_it_went_on"] = [round(seconds, 1) for seconds in carried_on_s]
    record["epochs_finished_at_each_kill"] = [sum(t.count("\n") - 1 for t in b.values()) for b in kept]
    record["sha256_undisturbed"] = digest(undisturbed)
    record["sha256_killed"] = digest(experiment)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_search_beside_which_others_work_ends_as_the_undisturbed_one(
    undisturbed: Experiment, folder: Path, fashion_mnist_root: Path, record: dict[str, object]
) -> None:
    run = ["search", "run", write_config(folder, REPEATABLE), "--name", "b", "--data-dir", str(fashion_mnist_root)]
    process, experiment = start_fmnist(folder, *run), Experiment(folder / "b")
    wait_until(lambda: count_epochs(experiment) >= 5)
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as burner:
            time.sleep(12)
            burner.kill()
        time.sleep(5)
    finish(process, folder, timeout_s=900)
    assert_same_search(undisturbed, experiment)
    record["sha256_disturbed"] = digest(experiment)


@pytest.mark.slow
def test_a_live_experiment_is_refused_and_a_killed_ones_is_taken_over_at_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, experiment = ["search", "run", write_config(folder, SMALL)], Experiment(folder / "small")
    process = start_fmnist(folder, *run)
    wait_until(lambda: len(states(experiment)) == 2 and count_epochs(experiment) >= 2 if experiment.exists() else False)
    code, _, err = fmnist(capsys, *run)
    assert code == 2
    assert f"is being run by process {process.pid} on {platform.node()} since 20" in err
    before = epochs_files(experiment)
    process.kill()
    process.wait()
    again = start_fmnist(folder, *run)
    assert "continues with 2 trials" in " ".join(finish(again, folder).split())
    assert_kept(before, experiment)
    assert states(experiment) == [TrialState.COMPLETE] * 3
    assert_whole(experiment)


def test_an_experiment_is_held_before_anything_is_compared_or_started(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else whoever comes second is told of a precision that only the first one has decided."""
    make_experiment(folder / "small", parse_config({**SMALL, "precision": "fp32"}, where="test"), [[0.5]])
    (folder / "small" / "folds").mkdir()
    changed = write_config(folder, SMALL, precision="bf16", max_disk_gb=1e-6)
    for command in (
        ["search", "run", changed, "--name", "small"],
        ["crossval", changed, "--name", "small", "--set", "space.lr=0.001"],
    ):
        with lock_experiment(Experiment(folder / "small")):
            code, _, err = fmnist(capsys, *command)
            assert (code, f"is being run by process {os.getpid()}" in err) == (2, True), err


@pytest.mark.parametrize("make", [False, True])
def test_a_refused_start_leaves_nothing(folder: Path, capsys: pytest.CaptureFixture[str], make: bool) -> None:
    if make:
        (folder / "new" / "small").mkdir(parents=True)
        (folder / "new" / "small" / "notes.txt").write_text("mine")
    before = sorted(folder.rglob("*"))
    config = write_config(folder, SMALL, max_disk_gb=1e-6)
    for _ in range(2):
        code, _, err = fmnist(capsys, "search", "run", config, "--experiments-dir", str(folder / "new"))
        assert (code, "max_disk_gb" in err) == (2, True), err
        assert sorted(folder.rglob("*")) == sorted([*before, Path(config)])


@pytest.mark.parametrize("interrupt", [signal.SIGINT, signal.SIGTERM])
def test_a_search_interrupted_while_its_ray_starts_leaves_nothing(
    folder: Path, mark: str, interrupt: signal.Signals
) -> None:
    process = start_fmnist(folder, "search", "run", write_config(folder, SMALL))
    wait_until(lambda: "raylet" in {name_of(pid) for pid in processes_of(mark)})
    process.send_signal(interrupt)
    assert process.wait(timeout=60) == 128 + interrupt
    told = " ".join(output_of(folder).split())
    assert re.sub("^waiting for trials and Ray to end.* at once ", "", told) == "interrupted; nothing was started"
    assert not Experiment(folder / "small").exists()
    wait_until(lambda: not processes_of(mark))


def test_a_search_holds_its_experiment_until_its_ray_is_gone(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, logger = [], logging.getLogger("ray")
    before = (logger.handlers[:], logger.propagate, ray_worker.print_to_stdstream)

    @contextlib.contextmanager
    def local(*, log: Path, **_: Any) -> Iterator[None]:
        with session.ray_log(log):
            yield
            held.append(Experiment(folder / "small").is_held())

    def interrupt(*_: Any, **__: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(session, "local_ray", local)
    monkeypatch.setattr(main_job, "run_search", interrupt)
    _, out, _ = fmnist(capsys, "search", "run", write_config(folder, SMALL), "--experiments-dir", str(folder))
    assert "interrupted; everything so far is saved" in " ".join(out.split())
    assert held == [True]
    assert (logger.handlers, logger.propagate, ray_worker.print_to_stdstream) == before
    assert not Experiment(folder / "small").is_held()


@pytest.mark.slow
@pytest.mark.parametrize("pause_s", [0.05, 0.5, 1.5])
def test_a_second_ctrl_c_ends_at_once_with_all_of_ray(folder: Path, mark: str, pause_s: float) -> None:
    experiment = Experiment(folder / "small")
    process = start_fmnist(folder, "search", "run", write_config(folder, SMALL, max_epochs=12, max_trials=2))
    wait_until(lambda: count_epochs(experiment) >= 2)
    before = epochs_files(experiment)
    process.send_signal(signal.SIGINT)
    time.sleep(pause_s)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=2) in (130, -signal.SIGINT)
    assert "Traceback" not in output_of(folder)
    wait_until(lambda: not processes_of(mark), timeout_s=10)
    assert states(experiment) == [TrialState.RUNNING] * 2
    finish(start_fmnist(folder, "search", "resume", "small"), folder)
    assert_kept(before, experiment)
    assert_whole(experiment)


# --- A trial ---


@dataclass(frozen=True)
class Scripted:
    """A search of which each course is one trial."""

    experiment: Experiment
    courses: tuple[float, ...]

    def trial(self, course: float) -> FrozenTrial:
        return trials_of(self.experiment)[self.courses.index(course)]

    def failure(self, course: float) -> tuple[TrialState, str | None, str]:
        trial = self.trial(course)
        return trial.state, trial.user_attrs.get("reason"), trial.user_attrs.get("message", "")

    def times_trained(self, course: float) -> list[int]:
        """How often each of its epochs was begun."""
        lines = self.experiment.path.with_name("diary").read_text().splitlines()
        epochs = Counter(line.split()[1] for line in lines if line.startswith(f"lr={course} epoch="))
        return [epochs[f"epoch={number}"] for number in range(1, len(epochs) + 1)]


@pytest.fixture(scope="module")
def without_restarts(
    local_cluster: None, synthetic_data: TrainingData, tmp_path_factory: pytest.TempPathFactory
) -> Scripted:
    courses = (ASKS_NUMPY_FOR_A_PIB, GOOD, DIES, ASKS_TORCH_FOR_A_PIB, BAD)
    folder = tmp_path_factory.mktemp("without-restarts") / "search"
    search(folder, synthetic_data, courses=courses, max_restarts=0)
    return Scripted(Experiment(folder), courses)


@pytest.mark.parametrize(
    ("course", "message"),
    [(ASKS_NUMPY_FOR_A_PIB, "Unable to allocate 1.00 PiB"), (ASKS_TORCH_FOR_A_PIB, "DefaultCPUAllocator")],
    ids=["numpy", "torch"],
)
def test_memory_that_is_not_there_fails_the_trial(without_restarts: Scripted, course: float, message: str) -> None:
    state, reason, said = without_restarts.failure(course)
    assert (state, reason) == (TrialState.FAIL, "memory")
    assert message in said


def test_without_restarts_a_processs_first_death_is_its_trials_end(without_restarts: Scripted) -> None:
    state, reason, _ = without_restarts.failure(DIES)
    assert (state, reason) == (TrialState.FAIL, "infrastructure")
    assert without_restarts.times_trained(DIES) == [1, 1]


def test_other_trials_go_on_beside_those_that_fail(without_restarts: Scripted) -> None:
    for course in (GOOD, BAD):
        assert without_restarts.trial(course).state == TrialState.COMPLETE
        assert without_restarts.times_trained(course) == [1, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("max_restarts", [0, 2])
def test_a_trial_that_hangs_fails_as_timeout_and_says_where_it_stood(
    local_cluster: None, synthetic_data: TrainingData, tmp_path: Path, max_restarts: int
) -> None:
    courses = (SLEEPS, GOOD, HOLDS_THE_GIL, BAD)
    folder = tmp_path / "search"
    search(folder, synthetic_data, courses=courses, trial_timeout_s=8.0, max_restarts=max_restarts)
    scripted = Scripted(Experiment(folder), courses)
    for course in (SLEEPS, HOLDS_THE_GIL):
        state, reason, message = scripted.failure(course)
        assert (state, reason) == (TrialState.FAIL, "timeout")
        assert "Timeout" in message
        assert "in _act" in scripted.experiment.trial(scripted.trial(course).number).timeout.read_text()
        assert scripted.times_trained(course) == [1, 1], "a trial that hung is not tried again"
    for course in (GOOD, BAD):
        assert scripted.trial(course).state == TrialState.COMPLETE
        assert not scripted.experiment.trial(scripted.trial(course).number).timeout.exists()


def test_a_trial_whose_process_is_stopped_is_killed_as_timeout_and_the_next_one_runs(
    local_cluster: None, synthetic_data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_watch, "_GRACE_S", 1.0)
    courses, folder = (STOPS, GOOD), tmp_path / "search"
    search(folder, synthetic_data, courses=courses, trial_timeout_s=3.0, max_restarts=2, max_concurrent_trials=1)
    scripted = Scripted(Experiment(folder), courses)
    state, reason, message = scripted.failure(STOPS)
    assert (state, reason, message.split(":")[0]) == (TrialState.FAIL, "timeout", "Timeout (3 s)")
    assert scripted.times_trained(STOPS) == [1, 1], "a trial that hung is not tried again"
    assert scripted.trial(GOOD).state == TrialState.COMPLETE
    stopped = pid_of(scripted, STOPS, epoch=2)
    assert stopped is not None
    wait_until(lambda: not psutil.pid_exists(stopped), timeout_s=10)


def start_scripted(
    folder: Path, *, address: str = LOCAL, environment: dict[str, str] | None = None, **options: Any
) -> subprocess.Popen[bytes]:
    """Starts a scripted search as a program of its own, as a submitted job would be."""
    command = [sys.executable, "-c", "import scripted_training; scripted_training.main()"]
    found_here = {"PYTHONPATH": f"{TESTS}{os.pathsep}{REPOSITORY}"}
    arguments = [address, str(folder / "search"), json.dumps(options)]
    return start([*command, *arguments], folder, {**os.environ, **found_here, **(environment or {})})


def memory_threshold(*, more_bytes: int) -> float:
    """The share of this machine's memory that is in use when so much more is taken."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    kibibytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    used = kibibytes["MemTotal"] - kibibytes["MemAvailable"] + more_bytes / 1024
    if used > 0.9 * kibibytes["MemTotal"]:
        pytest.skip(f"{more_bytes / GIB:.1f} GiB of memory are not free")
    return used / kibibytes["MemTotal"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_trial_that_fills_the_memory_fails_and_the_others_go_on(folder: Path) -> None:
    """Ray's memory monitor kills processes when the machine's memory is nearly full."""
    courses = (FILLS_MEMORY, GOOD, BAD, 0.021, 0.022, 0.023)
    threshold = memory_threshold(more_bytes=4 * GIB)
    environment = {"RAY_memory_usage_threshold": f"{threshold:.3f}", "RAY_memory_monitor_refresh_ms": "100"}
    finish(start_scripted(folder, environment=environment, courses=courses, epoch_s=1.0), folder)
    scripted = Scripted(Experiment(folder / "search"), courses)
    state, reason, message = scripted.failure(FILLS_MEMORY)
    assert (state, reason) == (TrialState.FAIL, "memory")
    assert "running low on memory" in message
    assert scripted.times_trained(FILLS_MEMORY)[0] == 1
    assert [scripted.trial(course).state for course in courses[1:]] == [TrialState.COMPLETE] * 5


# --- A node ---


@dataclass(frozen=True)
class Node:
    """A machine of a cluster, as far as one machine can be several: its processes, and its folder for Ray's files."""

    mark: str
    ray_folder: Path

    @property
    def address_file(self) -> Path:
        """A head's."""
        return self.ray_folder / "ray_current_cluster"

    @property
    def address(self) -> str:
        return self.address_file.read_text().strip()

    def kill(self, *names: str) -> None:
        """Kills the processes of these names, or all of them."""
        kill([pid for pid in self.pids() if not names or name_of(pid) in names])

    def pids(self) -> list[int]:
        return processes_of(self.mark)


@contextlib.contextmanager
def start_node(mark: str, *, ip: str, num_cpus: int, head: Node | None = None) -> Iterator[Node]:
    """``ray start``, on loopback, with a temporary folder of its own as on a machine of its own."""
    with tempfile.TemporaryDirectory(prefix="fmnist-test-", dir="/tmp", ignore_cleanup_errors=True) as ray_folder:
        node = Node(f"{mark}:{ip}", Path(ray_folder, "ray"))  # Ray opens its own folder to all users
        join = ["--head", "--port=0", "--include-dashboard=false"] if head is None else [f"--address={head.address}"]
        ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats", *join]
        here = [f"--node-ip-address={ip}", f"--temp-dir={node.ray_folder}", "--dashboard-agent-listen-port=0"]
        with (Path(ray_folder) / "output").open("wb") as output:
            process = subprocess.Popen(
                [*ray, *here, f"--num-cpus={num_cpus}", "--num-gpus=0"],
                env={**os.environ, MARK: node.mark, "PYTHONPATH": str(TESTS)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(lambda: "Ray runtime started" in (Path(ray_folder) / "output").read_text())
            wait_until(lambda: head is not None or node.address_file.exists())
            yield node
        finally:
            node.kill()
            process.wait()
            wait_until(lambda: not node.pids(), timeout_s=20)


@pytest.fixture
def _with_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else on this machine gets into a test's cluster."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", uuid.uuid4().hex * 2)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")


def pid_of(scripted: Scripted, course: float, *, epoch: int) -> int | None:
    """The process that trained a course's epoch, the last one if several did."""
    diary = scripted.experiment.path.with_name("diary")
    lines = diary.read_text().splitlines() if diary.exists() else []
    found = [line for line in lines if line.startswith(f"lr={course} epoch={epoch} ")]
    return int(found[-1].split("pid=")[1].split()[0]) if found else None


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("_with_token")
def test_a_trial_of_a_lost_machine_goes_on_elsewhere_from_its_last_epoch(
    folder: Path, mark: str, record: dict[str, object]
) -> None:
    courses = (0.021, 0.022, 0.023)
    scripted = Scripted(Experiment(folder / "search"), courses)
    with (
        start_node(mark, ip="127.0.0.2", num_cpus=1) as head,
        start_node(mark, ip="127.0.0.3", num_cpus=1, head=head) as worker,
    ):
        process = start_scripted(folder, address=head.address, courses=courses, epoch_s=1.0, max_epochs=8)
        wait_until(lambda: all(pid_of(scripted, course, epoch=3) for course in courses[:2]))
        [moved] = [course for course in courses[:2] if pid_of(scripted, course, epoch=3) in worker.pids()]
        before = epochs_files(scripted.experiment)
        worker.kill()
        killed_s = time.monotonic()
        table = scripted.experiment.trial(courses.index(moved)).epochs
        wait_until(lambda: len(table.read_text()) > len(before[table.parent.name]))
        record["seconds_until_it_went_on"] = round(time.monotonic() - killed_s, 1)
        assert process.wait(300) == 0, output_of(folder)
    assert states(scripted.experiment) == [TrialState.COMPLETE] * 3
    times = scripted.times_trained(moved)
    assert (min(times), max(times), sum(times)) == (1, 2, 9), "only the epoch in flight was begun twice"
    assert [scripted.times_trained(course) for course in courses if course != moved] == [[1] * 8] * 2
    assert_kept(before, scripted.experiment)
    assert_whole(scripted.experiment)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("_with_token")
def test_a_search_whose_head_is_lost_ends_by_itself_and_goes_on_with_another(
    folder: Path, mark: str, record: dict[str, object]
) -> None:
    courses = (0.021, 0.022, 0.023)
    scripted = Scripted(Experiment(folder / "search"), courses)
    options = {"courses": courses, "epoch_s": 1.0, "max_epochs": 6}
    environment = {"RAY_gcs_rpc_server_reconnect_timeout_s": "10"}  # instead of a minute
    with start_node(mark, ip="127.0.0.2", num_cpus=2) as head:
        process = start_scripted(folder, address=head.address, environment=environment, **options)
        wait_until(lambda: all(pid_of(scripted, course, epoch=3) for course in courses[:2]))
        head.kill("gcs_server", "raylet")
        start_s = time.monotonic()
        assert process.wait(timeout=60) != 0
        record["seconds_until_the_driver_ended"] = round(time.monotonic() - start_s, 1)
        record["exit_code"] = process.returncode
        record["output"] = output_of(folder)[-600:]
    before = epochs_files(scripted.experiment)
    assert states(scripted.experiment) == [TrialState.RUNNING] * 2
    with start_node(mark, ip="127.0.0.2", num_cpus=2) as head:
        process, start_s = start_scripted(folder, address=head.address, **options), time.monotonic()
        wait_until(lambda: count_epochs(scripted.experiment) > sum(t.count("\n") - 1 for t in before.values()))
        record["seconds_until_it_went_on"] = round(time.monotonic() - start_s, 1)
        finish(process, folder)
    assert states(scripted.experiment) == [TrialState.COMPLETE] * 3
    assert_kept(before, scripted.experiment)
    assert_whole(scripted.experiment)
    for course in courses:
        assert max(scripted.times_trained(course)) <= 2
        assert sum(scripted.times_trained(course)) <= 7, "only the epoch in flight was begun twice"


# --- Files ---


CUT, WENT_ON, TOLD_TOO_LITTLE, TOLD_TOO_LITTLE_AT_THE_END = 0.031, 0.032, 0.033, 0.034
# Course: epochs of which its table and the study know, epochs that its checkpoint holds. SIGKILL can come in between.
INTERRUPTED = {CUT: (2, 2), WENT_ON: (2, 2), TOLD_TOO_LITTLE: (1, 2), TOLD_TOO_LITTLE_AT_THE_END: (2, 3)}


def make_interrupted(experiment: Experiment, data: TrainingData) -> None:
    """A scripted search as SIGKILL leaves it."""
    config = scripted_config(tuple(INTERRUPTED))
    experiment.create()
    study = SearchStudy.open(experiment, config)
    study.enqueue([{"lr": course} for course in INTERRUPTED])
    for number, (course, (known, trained)) in enumerate(INTERRUPTED.items()):
        study.next_assignment()
        files = experiment.trial(number)
        files.path.mkdir()
        plan = TrainingPlan(network="customnet", hyperparameters={"lr": course}, num_epochs=3, seed=0)
        diary = experiment.path.with_name("diary")
        training = ScriptedTraining(plan, data, device=torch.device("cpu"), pretrained=None, diary=diary)
        for epoch in itertools.islice(training.epochs(), trained):
            if epoch.epoch <= known:
                study.report(number, epoch)
                files.epochs.write_text(format_epochs(training.history, dataset="synthetic"))
        save_checkpoint(files.last, training.state_dict())


@pytest.fixture(scope="module")
def continued(local_cluster: None, synthetic_data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> Scripted:
    """One that was interrupted, its newest files half written and its locks still there, and has been continued."""
    experiment = Experiment(tmp_path_factory.mktemp("continued") / "search")
    make_interrupted(experiment, synthetic_data)
    cut = experiment.trial(list(INTERRUPTED).index(CUT))
    cut.last.write_bytes(cut.last.read_bytes()[:-100])
    cut.last.with_name(".last.pt.12345.part").write_bytes(b"half of it")
    with experiment.journal.open("a") as journal:
        journal.write('{"op_code":6,"worker_id"')
    experiment.journal.with_name("study.journal.lock").symlink_to(experiment.journal)
    search(experiment.path, synthetic_data, courses=tuple(INTERRUPTED))
    return Scripted(experiment, tuple(INTERRUPTED))


def test_a_journal_cut_short_with_a_dead_writers_lock_beside_it_is_continued(continued: Scripted) -> None:
    assert states(continued.experiment) == [TrialState.COMPLETE] * len(INTERRUPTED)
    assert {trial.value for trial in trials_of(continued.experiment)} == {0.9}


def test_a_checkpoint_cut_short_is_not_taken_for_one(continued: Scripted) -> None:
    assert continued.times_trained(CUT) == [2, 2, 1]
    assert continued.times_trained(WENT_ON) == [1, 1, 1]


@pytest.mark.parametrize("course", INTERRUPTED)
def test_a_trial_killed_between_its_files_has_all_of_them_in_the_end(continued: Scripted, course: float) -> None:
    """The checkpoint is written first, then the table of epochs; then the study is told."""
    number = continued.trial(course).number
    epochs = parse_epochs(continued.experiment.trial(number).epochs.read_text())
    assert {epoch.epoch: epoch.val_accuracy for epoch in epochs} == continued.trial(course).intermediate_values
    if course != CUT:
        assert continued.times_trained(course) == [1, 1, 1]


def test_what_a_killed_process_was_writing_does_not_stay(continued: Scripted) -> None:
    assert [path.name for path in continued.experiment.path.rglob("*.part")] == []


# --- The disk ---


def fill(path: Path, *, leaving_bytes: int = 0) -> None:
    """Takes all the room that is left on a file's disk, or nearly all."""
    size = max(0, shutil.disk_usage(path.parent).free - leaving_bytes)
    with path.open("wb") as file, contextlib.suppress(OSError):
        while size > 0:
            size -= file.write(b"x" * min(size, 2**16))
            file.flush()


@pytest.mark.slow
def test_a_search_on_a_full_disk_says_so_and_goes_on_when_there_is_room(
    folder: Path, capsys: pytest.CaptureFixture[str], record: dict[str, object]
) -> None:
    path = write_config(folder, SMALL, max_epochs=10)
    with tiny_disk(folder / "disk", kibibytes=24 * 1024) as disk:
        experiment = Experiment(disk / "small")
        process = start_fmnist(disk, "search", "run", path)
        wait_until(lambda: count_epochs(experiment) >= 4)
        fill(disk / "filler")
        start_s = time.monotonic()
        told = finish(process, disk, code=2, timeout_s=60)
        record["seconds_until_it_ended"] = round(time.monotonic() - start_s, 1)
        assert told.count("error: ") == 1
        assert "No space left on device" in told
        assert list(read_trials(experiment)["state"]) == ["running"] * 2
        before = epochs_files(experiment)
        code, _, err = fmnist(capsys, "search", "resume", str(experiment.path))
        assert code == 2
        assert "too little room" in err
        (disk / "filler").unlink()
        finish(start_fmnist(disk, "search", "resume", "small"), disk)
        assert states(experiment) == [TrialState.COMPLETE] * 3
        assert_kept(before, experiment)
        assert_whole(experiment)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["renamed", "removed"])
def test_a_results_folder_that_vanishes_ends_the_search_and_is_not_made_anew(folder: Path, how: str) -> None:
    experiment = Experiment(folder / "small")
    process = start_fmnist(folder, "search", "run", write_config(folder, SMALL, max_epochs=12))
    wait_until(lambda: count_epochs(experiment) >= 2)
    before = epochs_files(experiment)
    os.rename(experiment.path, folder / "away")
    if how == "removed":
        shutil.rmtree(folder / "away")
    told = finish(process, folder, code=2, timeout_s=60)
    assert told.count("error: ") == 1
    assert str(experiment.path) in told
    assert not experiment.path.exists()
    if how == "renamed":
        moved = Experiment(folder / "away")
        finish(start_fmnist(folder, "search", "resume", "away"), folder)
        assert states(moved) == [TrialState.COMPLETE] * 3
        assert_kept(before, moved)
        assert_whole(moved)


def test_a_search_for_which_the_disk_is_too_small_starts_nothing(folder: Path) -> None:
    path = write_config(folder, SMALL)
    with tiny_disk(folder / "disk", kibibytes=1024) as disk:
        said = finish(start_fmnist(folder, "search", "run", path, "--experiments-dir", str(disk)), folder, code=2)
        assert "too little room" in said
        assert "max_concurrent_trials" in said
        assert os.listdir(disk) == []


def test_a_search_that_cannot_keep_to_max_disk_gb_starts_nothing(folder: Path) -> None:
    said = finish(start_fmnist(folder, "search", "run", write_config(folder, SMALL, max_disk_gb=0.001)), folder, code=2)
    assert "max_disk_gb" in said
    assert "0.001" in said
    assert sorted(os.listdir(folder)) == ["output", "small.yaml"]


def test_no_trial_starts_when_the_disk_is_nearly_full_or_max_disk_gb_is_reached(tmp_path: Path) -> None:
    config = parse_config({**SMALL, "max_disk_gb": 0.02}, where="test")
    with tiny_disk(tmp_path / "disk", kibibytes=64 * 1024) as disk:
        experiment = Experiment(disk / "x")
        experiment.create()
        check_room(experiment, config, num_slots=2)
        Retention(experiment, config, ()).before_trial()
        (experiment.path / "large").write_bytes(bytes(21_000_000))
        with pytest.raises(ExperimentError, match=r"takes 0\.021 GB, more than max_disk_gb: 0\.02"):
            Retention(experiment, config, ()).before_trial()
        (experiment.path / "large").unlink()
        fill(disk / "filler", leaving_bytes=1_000_000)
        with pytest.raises(ExperimentError, match=r"nearly full: 0\.00\d+ GB are free"):
            Retention(experiment, config, ()).before_trial()
        with pytest.raises(ConfigError, match="max_disk_gb"):
            check_room(experiment, config.model_copy(update={"max_trials": 10}), num_slots=10)


def test_a_finished_search_is_shown_again_or_refused_clearly_on_a_full_disk(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = parse_config({**SMALL, "max_trials": 1, "max_epochs": 1}, where="test")
    with tiny_disk(folder / "disk", kibibytes=32 * 1024) as disk:
        experiment = make_experiment(disk / "x", config, [[0.5]])
        (experiment.path / "notes").mkdir()
        fill(experiment.path / "notes" / "large")
        code, _, err = fmnist(capsys, "search", "resume", str(experiment.path))
        assert code == 2
        assert err.startswith("error: ")
        assert "No space left on device" in err
        assert list(read_trials(experiment)["state"]) == ["complete"]


# --- Repeating ---


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_trial_trained_again_gets_the_same_curve_unless_the_record_was_altered(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = {"model": "customnet", "lr": {"choice": [1e-3, 1e-7]}}
    settings = {"max_trials": 2, "max_epochs": 2, "pruner": "halving", "reduction_factor": 2}
    path = write_config(folder, SMALL, space=space, max_concurrent_trials=1, **settings)
    (folder / "first.yaml").write_text('[{"lr": 1.0e-3}, {"lr": 1.0e-7}]')
    finish(start_fmnist(folder, "search", "run", path, "--enqueue", "first.yaml"), folder)
    experiment = Experiment(folder / "small")
    assert states(experiment) == [TrialState.COMPLETE, TrialState.PRUNED]
    before = experiment.journal.read_bytes()
    for number, num_epochs in ((0, 2), (1, 1)):
        told = finish(start_fmnist(folder, "search", "replay", "small", "--trial", str(number)), folder)
        assert f"the same curve: {num_epochs} epoch" in told
    assert experiment.journal.read_bytes() == before
    alter_value(experiment, trial=0, epoch=2)
    told = finish(start_fmnist(folder, "search", "replay", "small", "--trial", "0"), folder, code=1)
    assert "another curve: they part at epoch 2" in told
    code, _, err = fmnist(capsys, "search", "replay", "small", "--trial", "7")
    assert code == 2
    assert "no trial 7; valid: 0 to 1" in err


def alter_value(experiment: Experiment, *, trial: int, epoch: int) -> None:
    lines = [json.loads(line) for line in experiment.journal.read_text().splitlines()]
    [value] = [line for line in lines if line.get("trial_id") == trial and line.get("step") == epoch]
    value["intermediate_value"] += 1e-9
    experiment.journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
