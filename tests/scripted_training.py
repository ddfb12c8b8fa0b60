"""A training whose course is written in its learning rate: what a trial can do to a search, without the work."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from epochs import make_epoch
from torch import distributed, nn

from cluster.session import local_ray
from fmnist_models.data import TrainingData, load_images, split_training
from fmnist_models.epoch import Epoch
from fmnist_models.folds import fold_seed
from fmnist_models.seeds import derive_seed
from fmnist_models.training import DivergedError, Training, TrainingPlan
from search.configuration.config import SearchConfig, parse_config
from search.records.experiment import Experiment
from search.records.lock import hold_experiment
from search.running.continuation import begin_run
from search.running.preparation import Prepared
from search.running.progress import SilentProgress
from search.running.runner import run_trials
from search.running.slots import Resources, plan_slots
from search.study.search_study import SearchStudy
from search.workflows.main_job import SearchResult, run_search

GOOD, BAD, DIVERGES, RAISES, OUT_OF_MEMORY, DIES_ONCE, DIES = 0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007
COURSES = (GOOD, BAD, DIVERGES, RAISES, OUT_OF_MEMORY, DIES_ONCE, DIES)
SLOW = 0.02
ASKS_NUMPY_FOR_A_PIB, ASKS_TORCH_FOR_A_PIB, FILLS_MEMORY, SLEEPS, HOLDS_THE_GIL = 0.011, 0.012, 0.013, 0.014, 0.015
STOPS = 0.016
VALUES = {GOOD: (0.7, 0.9, 0.8), BAD: (0.3, 0.3, 0.3)}
PIB = 2**50
LOCAL = "local"  # instead of the address of a cluster


class ScriptedTraining:
    """Real epochs, a real state and real checkpoints; only the network is missing. ``diary`` collects a line for each
    epoch trained and what the process was like; an epoch takes ``epoch_s`` seconds."""

    def __init__(
        self,
        plan: TrainingPlan,
        data: TrainingData,
        *,
        device: torch.device,
        pretrained: object,
        cache: object = None,
        diary: Path,
        epoch_s: float = 0.0,
    ) -> None:
        self.model: nn.Module = nn.Linear(1, 1)
        self.history: list[Epoch] = []
        self._plan = plan
        self._diary = diary
        self._epoch_s = epoch_s
        self._writeable = data.train.images.flags.writeable

    def epochs(self) -> Iterator[Epoch]:
        course = self._plan.recipe.lr
        for number in range(len(self.history) + 1, self._plan.num_epochs + 1):
            self._write(
                f"lr={course} epoch={number} pid={os.getpid()} threads={torch.get_num_threads()} "
                f"images_writeable={self._writeable}"
            )
            time.sleep(self._epoch_s)
            if number == 2:
                self._act(course)
            values = VALUES.get(course, VALUES[GOOD])
            epoch = make_epoch(number, values[(number - 1) % len(values)])
            self.history.append(epoch)
            yield epoch

    def state_dict(self) -> dict[str, Any]:
        return {"history": [vars(epoch) for epoch in self.history]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.history = [Epoch(**epoch) for epoch in state["history"]]

    def _act(self, course: float) -> None:
        if course == DIVERGES:
            raise DivergedError("epoch 2: train_loss nan")
        if course == RAISES:
            raise RuntimeError("a mistake in the code")
        if course == OUT_OF_MEMORY:
            raise MemoryError("no more of it")
        if course == ASKS_NUMPY_FOR_A_PIB:
            np.zeros(PIB, dtype=np.uint8)
        if course == ASKS_TORCH_FOR_A_PIB:
            torch.zeros(PIB, dtype=torch.uint8)
        if course == FILLS_MEMORY:
            fill_memory(up_to_bytes=8 * 2**30)
        if course == SLEEPS:
            time.sleep(3600)
        if course == STOPS:
            os.kill(os.getpid(), signal.SIGSTOP)
        if course == HOLDS_THE_GIL:
            re.match(r"(a+)+$", "a" * 64 + "b")
        died_before = self._diary.read_text().count(f"lr={course} dies")
        if course == DIES or (course == DIES_ONCE and not died_before):
            self._write(f"lr={course} dies")
            os.kill(os.getpid(), signal.SIGKILL)

    def _write(self, line: str) -> None:
        with self._diary.open("a") as file:
            file.write(line + "\n")


class DiesWhenIdle(ScriptedTraining):
    """Of the course SLOW, three seconds an epoch; of the course GOOD, one that begins after that one, ends before it,
    and whose process is then killed, or sent another signal, once, while it waits for the next trial."""

    def __init__(self, *arguments: Any, number: signal.Signals = signal.SIGKILL, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._number = number

    def epochs(self) -> Iterator[Epoch]:
        course, mark = self._plan.recipe.lr, self._diary.with_suffix(".killed")
        while course == GOOD and f"lr={SLOW} " not in (self._diary.read_text() if self._diary.exists() else ""):
            time.sleep(0.1)
        for epoch in super().epochs():
            time.sleep(3.0 if course == SLOW else 0.0)
            yield epoch
        if course == GOOD and not mark.exists():
            mark.touch()
            subprocess.Popen(["sh", "-c", f"sleep 3; kill -{self._number} {os.getpid()}"], start_new_session=True)


def fill_memory(*, up_to_bytes: int) -> None:
    """Takes more and more memory and writes to all of it, until somebody ends that."""
    taken = []
    while sum(map(len, taken)) < up_to_bytes:
        taken.append(b"x" * 2**26)
        time.sleep(0.02)
    raise AssertionError(f"nobody minded {up_to_bytes} bytes")


class KillsAWorkerOnce(Training):
    """A real training whose second worker is killed, or sent another signal, once, when the second epoch begins."""

    def __init__(self, *arguments: Any, mark: Path, number: signal.Signals = signal.SIGKILL, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._mark, self._number = mark, number

    def epochs(self) -> Iterator[Epoch]:
        for epoch in super().epochs():
            yield epoch
            if distributed.get_rank() == 1 and not self._mark.exists():
                self._mark.touch()
                os.kill(os.getpid(), self._number)


class DiesInSecondFold(Training):
    """A real training whose process is killed, once, after the first epoch of a trial's second fold."""

    def __init__(self, plan: TrainingPlan, *arguments: Any, mark: Path, **options: Any) -> None:
        super().__init__(plan, *arguments, **options)
        self._mark = mark
        self._is_second = plan.seed == fold_seed(derive_seed(0, 0), 2)

    def epochs(self) -> Iterator[Epoch]:
        for epoch in super().epochs():
            yield epoch
            if self._is_second and not self._mark.exists():
                self._mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)


class LuckyTraining(Training):
    """A real training that says it did well with the search's own seed, and with no other; the course BAD is always
    fair. Each epoch takes ``epoch_s`` seconds more and has a line in ``diary``."""

    def __init__(
        self, plan: TrainingPlan, data: TrainingData, *, diary: Path, epoch_s: float = 0.0, **options: Any
    ) -> None:
        super().__init__(plan, data, **options)
        self._diary, self._epoch_s, self._num_images = diary, epoch_s, len(data.train)
        self._is_fresh = plan.seed not in {derive_seed(0, number) for number in range(10)}

    def epochs(self) -> Iterator[Epoch]:
        course = self.plan.recipe.lr
        lucky, fair = {GOOD: ((0.7, 0.99, 0.8), 0.5), BAD: ((0.7, 0.8, 0.9), 0.85)}[course]
        for epoch in super().epochs():
            time.sleep(self._epoch_s)
            accuracy = fair if self._is_fresh else lucky[epoch.epoch - 1]
            self.history[-1] = dataclasses.replace(epoch, val_accuracy=accuracy)
            with self._diary.open("a") as file:
                file.write(
                    f"lr={course} epoch={epoch.epoch} seed={self.plan.seed} of={self.plan.num_epochs} "
                    f"images={self._num_images}\n"
                )
            yield self.history[-1]


def scripted_config(courses: Sequence[float], **settings: Any) -> SearchConfig:
    """Of a search in which each course is one trial."""
    raw = {
        "dataset": "synthetic",
        "space": {"model": "customnet", "lr": {"choice": list(courses)}},
        "max_trials": len(courses),
        "max_epochs": 3,
        "pruner": "none",
    }
    return parse_config(raw | settings, where="test")


def search(
    folder: Path, data: TrainingData, *, courses: Sequence[float], epoch_s: float = 0.0, **settings: Any
) -> SearchStudy:
    """Runs, or continues, a search on the connected Ray: in ``folder``, the diary beside it, courses in this order."""
    experiment, config = Experiment(folder), scripted_config(courses, **settings)
    experiment.create()
    study = SearchStudy.open(experiment, config)
    study.enqueue([{"lr": course} for course in courses])
    make_training = functools.partial(ScriptedTraining, diary=folder.with_name("diary"), epoch_s=epoch_s)
    slots = plan_slots(config, [Resources(2, 0)])
    prepared = Prepared(config, data, {}, ())
    run_trials(experiment, prepared, slots, study=study, progress=SilentProgress(), make_training=make_training)
    return study


LUCKY = {"train_size": 800, "test_size": 200, "validation_fraction": 0.25, "confirm": {"top": 2, "seeds": 2}}


def search_and_confirm(folder: Path, data: TrainingData, *, epoch_s: float = 0.0, **settings: Any) -> SearchResult:
    """Runs, or continues, a search on the connected Ray whose best trial was lucky, to its end; one trial at a time."""
    config = scripted_config([GOOD, BAD], **{**LUCKY, "max_concurrent_trials": 1, **settings})
    experiment = Experiment(folder)
    with hold_experiment(experiment):
        begin_run(experiment, config)
        study = SearchStudy.open(experiment, config)
        study.enqueue([{"lr": GOOD}, {"lr": BAD}])
        return run_search(
            experiment,
            Prepared(config, data, {}, ()),
            plan_slots(config, [Resources(2, 0)]),
            study=study,
            progress=SilentProgress(),
            data_root=Path("unused"),
            make_training=functools.partial(LuckyTraining, diary=folder.with_name("diary"), epoch_s=epoch_s),
        )


def main() -> None:
    """Such a search as a program of its own: Ray's address, the folder, and the rest as JSON."""
    address, folder, options = sys.argv[1:]
    images = load_images("synthetic", "train", root=Path("unused"), size=800)
    data = split_training(images, validation_fraction=0.25, seed=0)
    if address == LOCAL and "confirm" in json.loads(options):
        with local_ray(num_cpus=2, num_gpus=0):
            search_and_confirm(Path(folder), data, **json.loads(options))
    elif address == LOCAL:
        with local_ray(num_cpus=2, num_gpus=0):
            search(Path(folder), data, **json.loads(options))
    else:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        search(Path(folder), data, **json.loads(options))
