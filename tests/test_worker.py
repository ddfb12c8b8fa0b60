"""What a worker saves of a trial: killed between any two of its files, it loses no epoch and no best weights."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from epochs import make_epoch
from torch import nn

from fmnist_models.checkpoint import load_weights
from fmnist_models.epoch import Epoch
from search.records.epochs_file import parse_epochs
from search.records.experiment import Experiment, TrialFiles
from search.running.slots import Slot
from search.running.worker import Shared, train_assignment
from search.study.search_study import Assignment

CURVES = {
    "best in the middle": (0.5, 0.6, 0.4, 0.7, 0.3, 0.7),
    "always better": (0.1, 0.2, 0.3),
    "only worse": (0.9, 0.8, 0.7),
    "one epoch": (0.5,),
}


class Curve:
    """A training whose only weight is the number of its last epoch."""

    def __init__(self, plan: object, data: tuple[tuple[float, ...], list[int]], **_: object) -> None:
        self.model: nn.Module = nn.Linear(1, 1, bias=False)
        self.history: list[Epoch] = []
        self._values, self._trained = data

    def epochs(self) -> Iterator[Epoch]:
        for number in range(len(self.history) + 1, len(self._values) + 1):
            self._trained.append(number)
            nn.init.constant_(self.model.weight, number)  # type: ignore[arg-type]
            self.history.append(make_epoch(number, self._values[number - 1]))
            yield self.history[-1]

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "history": [vars(epoch) for epoch in self.history]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.history = [Epoch(**epoch) for epoch in state["history"]]


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ray, "get", lambda data: data)
    yield
    torch.use_deterministic_algorithms(False)


def train(folder: Path, values: tuple[float, ...], trained: list[int]) -> list[int]:
    """Trains trial 0 on from what is there; gives the epochs that it told of."""
    experiment, told = Experiment(folder), []
    shared = Shared(
        experiment=experiment,
        data=(values, trained),  # type: ignore[arg-type]
        pretrained={},
        slot=Slot(num_workers=1, cpus=1, gpus=0),
        num_epochs=len(values),
        dataset="synthetic",
        metric="val_accuracy",
        seed=0,
        precision={"customnet": "fp32"},
        deterministic=False,
        timeout_s=None,
        make_training=Curve,
    )
    train_assignment(
        Assignment(0, {"model": "customnet"}), shared, report=lambda message: told.append(message["epoch"])
    )
    return told


def assert_whole(files: TrialFiles, values: tuple[float, ...]) -> None:
    assert [epoch.val_accuracy for epoch in parse_epochs(files.epochs.read_text())] == list(values)
    assert load_weights(files.best)["weight"].item() == values.index(max(values)) + 1


@pytest.mark.usefixtures("_no_ray")
@pytest.mark.parametrize("values", CURVES.values(), ids=CURVES)
def test_killed_before_or_after_any_of_its_files_is_in_place_it_trains_one_epoch_again_at_most(
    values: tuple[float, ...], tmp_path: Path
) -> None:
    replace, num_files = os.replace, 0
    for kill_at in range(100):
        for is_there in (False, True):
            experiment = Experiment(tmp_path / f"{kill_at}-{is_there}")
            experiment.create()
            trained: list[int] = []
            num_files = 0

            def killing(source: Path, target: Path, at: int = kill_at, is_there: bool = is_there) -> None:
                nonlocal num_files
                num_files += 1
                if num_files - 1 == at:
                    if is_there:
                        replace(source, target)
                    raise Killed
                replace(source, target)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "replace", killing)
                try:
                    train(experiment.path, values, trained)
                except Killed:
                    assert num_files == kill_at + 1
            in_flight = trained[-1]
            told = train(experiment.path, values, trained)
            assert told == list(range(1, len(values) + 1))
            assert sorted(trained) in (sorted(told), sorted([*told, in_flight]))
            assert_whole(experiment.trial(0), values)
        if num_files <= kill_at:
            break
    assert 2 * len(values) < num_files < 3 * len(values) + 1


@pytest.mark.usefixtures("_no_ray")
def test_best_weights_are_written_when_they_are_left_behind_and_not_with_each_better_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, written = os.replace, []

    def noted(source: Path, target: Path) -> None:
        written.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", noted)
    experiment = Experiment(tmp_path)
    experiment.create()
    train(tmp_path, (0.5, 0.6, 0.4, 0.3, 0.7), [])
    last, best, table = "last.pt", "best.safetensors", "epochs.csv"
    assert written == [last, table, last, table, best, last, table, last, table, last, best, table]


def test_what_a_trial_does_around_its_training_loads_no_compiler(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
import ray
from search.records.experiment import Experiment
from test_worker import train
ray.get = lambda data: data
Experiment(Path({str(tmp_path / "x")!r})).create()
assert train(Path({str(tmp_path / "x")!r}), (0.5, 0.6), []) == [1, 2]
sys.exit("torch._dynamo" in sys.modules)
"""
    paths = os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[1])))
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": paths}, check=True)
