"""`fmnist tensorboard`: files that TensorBoard itself reads, its hyperparameters tab included."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from epochs import make_epoch
from made_experiment import FAILED, make_experiment
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from search.cli import main
from search.configuration.config import parse_config
from search.integrations.event_files import Written, write_event_files
from search.records.epochs_file import format_epochs
from search.records.experiment import Experiment
from search.records.lock import lock_experiment
from search.records.record import read_study
from search.study.search_study import SearchStudy

CONFIG = parse_config(
    {
        "dataset": "synthetic",
        "space": {
            "model": {"choice": ["customnet", "resnet18"]},
            "lr": {"float": [1e-4, 1e-1], "log": True},
            "unfreeze": {"subset": ["layer4"]},
        },
        "max_trials": 12,
        "max_epochs": 3,
        "pruner": "none",
        "sampler": "random",
    },
    where="test",
)
PATIENCE_S = 60
TAGS = {"train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "epoch_s"}


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    """Trials 0 to 7 complete, 8 failed, 9 running with a table of its epochs, of which the study knows the first."""
    curves = [[0.25, 0.5, 0.125 * (number % 8)] for number in range(8)]
    made = make_experiment(tmp_path / "mine", CONFIG, [*curves, FAILED, [0.25]])
    for number, curve in [(0, curves[0]), (9, [0.25, 0.5])]:
        made.trial(number).path.mkdir()
        epochs = [make_epoch(epoch, accuracy) for epoch, accuracy in enumerate(curve, start=1)]
        made.trial(number).epochs.write_text(format_epochs(epochs, dataset="synthetic"))
    return made


def read(folder: Path, number: int) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder / f"trial-{number:05d}"))
    accumulator.Reload()  # type: ignore[no-untyped-call]
    return accumulator


def curve(accumulator: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]  # type: ignore[no-untyped-call]


def test_tensorboard_reads_every_epoch(experiment: Experiment, tmp_path: Path) -> None:
    output = tmp_path / "runs" / "deep"
    assert write_event_files(experiment, output) == Written(10, 10)
    first = read(output, 0)
    assert {*TAGS, "best_val_accuracy"} == set(first.scalars.Keys())  # type: ignore[no-untyped-call]
    assert curve(first, "val_accuracy") == [(1, 0.25), (2, 0.5), (3, 0.0)]
    assert curve(first, "best_val_accuracy") == [(2, 0.5)]
    trial = read_study(experiment).trials[0]
    assert trial.datetime_start is not None
    times = [event.wall_time - trial.datetime_start.timestamp() for event in first.Scalars("lr")]  # type: ignore[no-untyped-call]
    assert times == pytest.approx([1, 2, 3], abs=1e-3)
    assert curve(read(output, 1), "val_accuracy") == [(1, 0.25), (2, 0.5), (3, 0.125)]
    assert curve(read(output, 9), "train_loss") == [(1, 0.75)]


def test_written_again_they_only_grow(experiment: Experiment, tmp_path: Path) -> None:
    output = tmp_path / "runs"
    write_event_files(experiment, output)
    following = read(output, 9)
    assert write_event_files(experiment, output) == Written(10, 0)
    with lock_experiment(experiment):
        study = SearchStudy.open(experiment, CONFIG)
        study.next_assignment()
        study.report(9, make_epoch(2, 0.5))
        assert write_event_files(experiment, output) == Written(10, 1)
        study.report(9, make_epoch(3, 0.75))
    torn = next((output / "trial-00009").iterdir())
    torn.write_bytes(torn.read_bytes()[:-5])
    assert write_event_files(experiment, output) == Written(10, 1)
    following.Reload()  # type: ignore[no-untyped-call]
    assert curve(following, "val_accuracy") == [(1, 0.25), (2, 0.5), (3, 0.75)]
    torn.write_bytes(b"something else")
    assert write_event_files(experiment, output) == Written(10, 1)
    assert curve(read(output, 9), "best_val_accuracy") == [(3, 0.75)]


@pytest.fixture
def board(experiment: Experiment, tmp_path: Path) -> Iterator[str]:
    """The address of a real TensorBoard of these files."""
    write_event_files(experiment, tmp_path / "runs")
    said = tmp_path / "said"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path / "runs"), "--port", "0"]
    with said.open("w") as log:
        process = subprocess.Popen([*command, "--load_fast", "false"], stdout=log, stderr=log)
    try:
        end_s = time.monotonic() + PATIENCE_S
        while not (found := re.search(r"http://localhost:\d+/", said.read_text())):
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < end_s, said.read_text()
            time.sleep(0.1)
        yield found[0]
    finally:
        process.kill()
        process.wait()


def test_the_hyperparameters_tab_is_filled(board: str, experiment: Experiment) -> None:
    def ask(what: str, **body: Any) -> Any:
        address = f"{board}data/plugin/hparams/{what}"
        request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    found: Any = {}
    end_s = time.monotonic() + PATIENCE_S
    while len(found.get("hparamInfos", [])) < 3:
        assert time.monotonic() < end_s, found
        with contextlib.suppress(urllib.error.HTTPError):  # before it has read any
            found = ask("experiment", experimentName="", includeMetrics=True)
    assert {info["name"] for info in found["hparamInfos"]} == {"model", "lr", "unfreeze.layer4"}
    assert {info["name"]["tag"] for info in found["metricInfos"]} == {*TAGS, "best_val_accuracy"}
    states = ["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING", "STATUS_UNKNOWN"]
    metric = {"metric": {"tag": "best_val_accuracy", "group": ""}}
    groups = ask(
        "session_groups",
        experimentName="",
        allowedStatuses=states,
        aggregationType="AGGREGATION_AVG",
        colParams=[metric],
        startIndex=0,
        sliceSize=100,
    )["sessionGroups"]
    for trial, group in zip(
        read_study(experiment).trials, sorted(groups, key=lambda group: group["name"]), strict=True
    ):
        assert group["hparams"] == trial.params
    statuses = [group["sessions"][0]["status"] for group in sorted(groups, key=lambda group: group["name"])]
    assert statuses == ["STATUS_SUCCESS"] * 8 + ["STATUS_FAILURE", "STATUS_UNKNOWN"]


def fmnist(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["fmnist", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_command(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FMNIST_EXPERIMENTS_DIR", str(tmp_path))
    assert fmnist(monkeypatch, "tensorboard", "mine") == 0
    assert "10 trials in runs/mine, 10 of them new" in capsys.readouterr().out
    assert curve(read(tmp_path / "runs" / "mine", 2), "val_accuracy")[-1] == (3, 0.25)
    assert fmnist(monkeypatch, "tensorboard", "mine", "--output", str(experiment.config)) == 2
    assert "cannot be written" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert fmnist(monkeypatch, "tensorboard", "mine") == 2
    assert "pip install 'fmnist-search[tensorboard]'" in capsys.readouterr().err
