"""What a trial and an epoch cost, in counts: processes, copies, files, syncs, calls. A clock would be of no use on a
noisy machine; a count that grows here is time lost on every machine."""

from __future__ import annotations

import contextlib
import cProfile
import functools
import json
import os
import pstats
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from counting_training import CountingTraining
from optuna.trial import FrozenTrial, TrialState
from torch.utils._python_dispatch import TorchDispatchMode

from cluster.session import local_ray
from fmnist_models.data import LabelledImages, TrainingData
from fmnist_models.epoch import Epoch
from fmnist_models.training import Training, TrainingPlan
from search.cli.running import preloaded_modules
from search.configuration.config import parse_config
from search.records.experiment import Experiment
from search.running.preparation import Prepared
from search.running.progress import SilentProgress
from search.running.runner import Outcome, run_trials
from search.running.slots import Resources, plan_slots
from search.study.search_study import SearchStudy

SLOTS, TRIALS, EPOCHS = 2, 8, 3
REPOSITORY = Path(__file__).parent.parent
RAW: dict[str, Any] = {
    "dataset": "synthetic",
    "space": {"model": "customnet", "lr": {"float": [1e-4, 1e-2], "log": True}},
    "max_trials": TRIALS,
    "max_epochs": EPOCHS,
    "max_concurrent_trials": SLOTS,
    "reduction_factor": 2,
    "precision": "fp32",
    "keep_checkpoints": 1,
}


class Watch(SilentProgress):
    """Looks at the search from its driver: at processes and, when a trial ends, at files."""

    def __init__(self, folder: Path) -> None:
        self.files: list[set[str]] = []
        """At each trial's end, all there are, hidden ones too."""
        self.started: dict[int, list[str]] = {}
        """Command lines of processes that were seen for the first time, by how many trials had ended."""
        self._folder = folder
        self._seen: set[tuple[int, float]] = set()

    @property
    def at_first(self) -> list[str]:
        return self.started.get(0, [])

    def epoch_ended(self, number: int, epoch: Epoch) -> None:
        self._look()

    def trial_ended(self, trial: FrozenTrial) -> None:
        self._look()
        paths = self._folder.rglob("*")
        self.files.append({str(path.relative_to(self._folder)) for path in paths if path.is_file()})

    def _look(self) -> None:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                key, line = (process.pid, process.create_time()), " ".join(process.cmdline())[:200]
                if key not in self._seen:
                    self._seen.add(key)
                    self.started.setdefault(len(self.files), []).append(line)


@dataclass(frozen=True)
class Costs:
    """A search that was watched."""

    experiment: Experiment
    trials: list[FrozenTrial]
    watch: Watch
    waiting: set[int]
    """Ray's processes that had loaded torch before any trial began."""
    epochs: list[dict[str, Any]]
    """Those of the diary, in the order in which they ended: all but the last ones of pruned trials."""
    driver_syncs: int
    optuna_calls: int
    """Of the driver. Its other calls are no measure: Ray's loop turns as often as there is time."""

    @property
    def num_epochs(self) -> int:
        return sum(len(trial.intermediate_values) for trial in self.trials)


def wait_for_torch(count: int) -> set[int]:
    """The processes below this one that have loaded torch, once there are so many, and Ray has had the time to end
    some of them for doing nothing."""
    found: set[int] = set()
    for _ in range(600):
        if len(found) == count:
            break
        time.sleep(0.1)
        found = have_torch()
    time.sleep(3)
    return have_torch()


def have_torch() -> set[int]:
    found = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any("libtorch_python" in mapped.path for mapped in process.memory_maps()):
                found.add(process.pid)
    return found


@pytest.fixture(scope="module")
def costs(synthetic_data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> Costs:
    folder = tmp_path_factory.mktemp("costs")
    config = parse_config(RAW, where="test")
    experiment, watch, syncs = Experiment(folder / "search"), Watch(folder / "search"), []
    experiment.create()
    make_training = functools.partial(CountingTraining, diary=folder / "diary", num_processes=SLOTS)
    sync, profile = os.fsync, cProfile.Profile()

    def counted(descriptor: int) -> None:
        syncs.append(descriptor)
        sync(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), str(Path(__file__).parent)]))
        with local_ray(num_cpus=SLOTS, num_gpus=0, preload=preloaded_modules(config, Resources(SLOTS, 0))):
            study, waiting = SearchStudy.open(experiment, config), wait_for_torch(SLOTS)
            patch.setattr(os, "fsync", counted)
            profile.enable()
            outcome = run_trials(
                experiment,
                Prepared(config, synthetic_data, {}, ()),
                plan_slots(config, [Resources(SLOTS, 0)]),
                study=study,
                progress=watch,
                make_training=make_training,
            )
            profile.disable()
    assert outcome == Outcome.FINISHED
    places = pstats.Stats(profile).stats.items()  # type: ignore[attr-defined]
    calls = sum(number for (path, _, _), (_, number, *_) in places if f"{os.sep}optuna{os.sep}" in path)
    epochs = [json.loads(line) for line in (folder / "diary").read_text().splitlines()]
    return Costs(experiment, study.study.get_trials(), watch, waiting, epochs, len(syncs), calls)


def test_no_process_is_started_after_each_slot_has_its_own(costs: Costs) -> None:
    """A process costs seconds. The first trials wait for each other, so that all slots have theirs by then."""
    assert costs.watch.at_first
    assert {after: lines for after, lines in costs.watch.started.items() if after > 0} == {}
    assert len({line["pid"] for line in costs.epochs}) <= SLOTS


def test_the_processes_that_ray_has_waiting_load_what_trials_need_and_are_those_that_train(costs: Costs) -> None:
    """Others would load torch once more, each for itself, while these wait."""
    assert costs.waiting == {line["pid"] for line in costs.epochs}


@pytest.mark.parametrize(
    ("changes", "cpus"), [({}, SLOTS + 1), ({"max_trials": 1}, SLOTS), ({"cpus_per_trial": 2}, SLOTS)]
)
def test_processes_that_no_trial_will_take_load_nothing(changes: dict[str, Any], cpus: int) -> None:
    assert preloaded_modules(parse_config({**RAW, **changes}, where="test"), Resources(cpus, 0)) == ()


def test_all_trials_of_all_processes_see_one_copy_of_the_images(costs: Costs) -> None:
    """A place in a file that is mapped into memory is the same for all who map it."""
    assert len({line["images"] for line in costs.epochs}) == 1
    assert costs.epochs[0]["images"] is not None


def test_a_trial_imports_nothing_and_leaves_no_thread_behind(costs: Costs) -> None:
    """From the third epoch of a process on: the first ones may import what nothing before had asked for."""
    later = [
        [line for line in costs.epochs if line["pid"] == pid][2:] for pid in {line["pid"] for line in costs.epochs}
    ]
    assert any(later)
    for lines in later:
        assert len({(line["modules"], line["threads"]) for line in lines}) <= 1


def test_an_epoch_writes_two_files_and_a_third_once_in_a_while(costs: Costs) -> None:
    """The checkpoint, the table and, before an epoch that is worse than the best one or at the trial's end, the best
    one's weights. Each is synced, and its folder: else a file that was renamed may be an empty one after a power
    failure."""
    assert {line["replace"] for line in costs.epochs} == {2, 3}
    assert all(line["replace"] == 2 for line in costs.epochs if line["epoch"] == 1)
    assert all(line["fsync"] == 2 * line["replace"] for line in costs.epochs)


def test_an_epoch_costs_its_process_so_many_calls_and_no_more(costs: Costs) -> None:
    """To save, report and go on; 10,000 of them are torch.save's. Twice as many would be a copy or a second save."""
    assert max(line["calls"] for line in costs.epochs) < 20_000


def test_an_ended_trial_leaves_one_file(costs: Costs) -> None:
    """And the best one its weights; Ray's own files are as many at the end as after the first trial."""
    first, last = costs.watch.files[0], costs.watch.files[-1]
    assert {path for path in last if path.startswith(".")} == {path for path in first if path.startswith(".")}
    there = Counter(path.name for path in costs.experiment.trials.rglob("*") if path.is_file())
    assert there == {"epochs.csv": TRIALS, "best.safetensors": 1}


def test_the_journal_has_a_line_for_each_trial_and_epoch_three_for_an_end_and_one_for_a_decision_to_prune(
    costs: Costs,
) -> None:
    pruned = sum(trial.state == TrialState.PRUNED for trial in costs.trials)
    assert pruned
    lines = costs.experiment.journal.read_bytes().splitlines()
    assert len(lines) == 1 + TRIALS + costs.num_epochs + 3 * TRIALS + pruned, (
        "one for the study itself, and of each trial its device and what it took"
    )


def test_the_driver_syncs_once_a_trial_and_once_an_epoch(costs: Costs) -> None:
    """A trial that begins, and an epoch with all that follows from it."""
    assert costs.driver_syncs == TRIALS + costs.num_epochs


def test_the_record_of_a_trial_or_epoch_costs_so_many_calls_of_optuna_and_no_more(costs: Costs) -> None:
    """Some 140. A look at all trials at each event would be more than twice as many, and more with each trial."""
    assert costs.optuna_calls / costs.driver_syncs < 300


class CountOps(TorchDispatchMode):
    """Operations that reach torch's kernels; a fused one is one."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def ops_of_an_epoch(data: TrainingData, num_steps: int, **recipe: Any) -> int:
    part = TrainingData(data.train.first(64 * num_steps), data.validation, data.normalisation)
    plan = TrainingPlan(network="customnet", hyperparameters=recipe, num_epochs=1, seed=0, precision="fp32")
    training = Training(plan, part, device=torch.device("cpu"))
    with CountOps() as ops:
        list(training.epochs())
    return ops.counts.total()


@pytest.mark.parametrize(("optimizer", "ops"), [("adamw", 285), ("sgd", 339)])
def test_a_step_of_training_is_so_many_operations_and_no_more(
    optimizer: str, ops: int, synthetic_data: TrainingData
) -> None:
    """As many as measured when this was written, and 10 % for another version of torch; an optimiser that is not fused
    needs half as many again."""
    two, three = (ops_of_an_epoch(synthetic_data, steps, batch_size=64, optimizer=optimizer) for steps in (2, 3))
    assert three - two <= 1.1 * ops


def test_validation_is_one_call_of_the_network_for_a_thousand_images(synthetic_data: TrainingData) -> None:
    images = np.zeros((2500, 28, 28), np.uint8)
    many = LabelledImages(images, np.zeros(len(images), np.int64))
    data = TrainingData(synthetic_data.train.first(64), many, synthetic_data.normalisation)
    plan = TrainingPlan(network="lenet5", hyperparameters={}, num_epochs=1, seed=0, precision="fp32")
    training, sizes = Training(plan, data, device=torch.device("cpu")), []
    training.model.register_forward_hook(lambda model, given, made: sizes.append(len(made)))
    list(training.epochs())
    assert sizes == [64, 1000, 1000, 500]
