"""The `fmnist` command as a person or a script uses it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from command import fmnist
from torch import nn

from fmnist_models.data import CLASS_NAMES
from search.records.predictions import read_predictions

REPOSITORY = Path(__file__).parent.parent
SMALL = {
    "dataset": "synthetic",
    "train_size": 400,
    "test_size": 100,
    "space": {"model": "customnet", "lr": {"float": [1e-4, 1e-2], "log": True}},
    "max_trials": 2,
    "max_epochs": 1,
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FMNIST_EXPERIMENTS_DIR", raising=False)


def write_config(**changes: Any) -> Path:
    path = Path("small.yaml")
    path.write_text(json.dumps({**SMALL, **changes}), encoding="utf-8")  # JSON is YAML
    return path


def start_fmnist(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Starts the command as a process of its own, in this folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "search.cli", *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"max_trails": 3}, ["max_trails", "max_trials"]),
        ({"max_trials": "many"}, ["max_trials", "many", "integer"]),
        ({"max_trials": 0}, ["max_trials", "0", "greater than or equal to 1"]),
        ({"space": {"model": "customnet", "lr": {"float": [0.1, 0.01]}}}, ["space.lr", "low=0.1", "high=0.01"]),
        ({"space": {"model": "customnet", "lr": {"float": [0.1, 100]}}}, ["space.lr", "100", "1e-07 to 10"]),
        ({"space": {"model": "vgg"}}, ["space.model", "vgg", "customnet, resnet18"]),
        ({"space": {"model": "resnet18", "unfreeze": ["layer9"]}}, ["space.unfreeze", "layer9", "layer4"]),
        ({"space": {"model": "customnet", "unfreeze": ["layer4"]}}, ["space.unfreeze", "CustomNet", "dropout"]),
        ({"space": {}}, ["space", "empty", "customnet"]),
        ({"cpus_per_trial": 1000}, ["cpus_per_trial", "1000", "CPUs"]),
        ({"gpus_per_trial": 99}, ["gpus_per_trial", "99", "GPUs"]),
        ({"space": {"model": "resnet18", "weights": "nowhere.pth"}}, ["nowhere.pth", "imagenet"]),
        ({"space": {"model": "resnet18", "weights": "foreign.pth"}}, ["foreign.pth", "conv1.weight", "ResNet-18"]),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("command", ["run", "validate"])
def test_a_wrong_config_gets_one_message_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], command: str, changes: dict[str, Any], expected: list[str]
) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), "foreign.pth")
    path = write_config(**changes)
    code, out, err = fmnist(capsys, "search", command, str(path))
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert all(part in err for part in expected), err
    assert sorted(os.listdir()) == ["foreign.pth", "small.yaml"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--name", "../up"], ["../up", "letters"]),
        (["--name", ""], ["''", "letters"]),
        (["--preset", "full"], ["small.yaml", "full", "not both"]),
        (["--set", "max_trials"], ["max_trials", "key=value"]),
        (["--experiments-dir", "small.yaml"], ["small.yaml", "not writable"]),
    ],
    ids=str,
)
def test_wrong_arguments_get_one_message_and_leave_nothing(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: list[str]
) -> None:
    path = write_config()
    code, _, err = fmnist(capsys, "search", "run", str(path), *arguments)
    assert code == 2
    assert all(part in err for part in expected), err
    assert os.listdir() == ["small.yaml"]


def test_a_config_that_is_not_yaml_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text("space: [unclosed\n", encoding="utf-8")
    code, _, err = fmnist(capsys, "search", "run", "bad.yaml")
    assert code == 2
    assert "bad.yaml is not YAML" in err
    assert "line 2" in err


@pytest.mark.parametrize("command", ["trials", "evaluate"])
def test_an_unknown_experiment_is_refused(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, _, err = fmnist(capsys, command, "nothing-here")
    assert code == 2
    assert "nothing-here" in err


def test_damaged_images_are_refused(capsys: pytest.CaptureFixture[str], fashion_mnist_root: Path) -> None:
    shutil.copytree(fashion_mnist_root / "FashionMNIST", "data/FashionMNIST")
    labels = Path("data/FashionMNIST/raw/train-labels-idx1-ubyte.gz")
    labels.chmod(0o644)
    labels.write_bytes(labels.read_bytes()[:-100])
    code, out, err = fmnist(capsys, "data", "prepare", "--data-dir", "data")
    assert code == 2
    assert out == ""
    assert "train-labels-idx1-ubyte.gz" in err
    assert "25c81989df183df01b3e8a0aad5dffbe" in err


def test_validate_shows_what_would_run_and_starts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    path = write_config()
    code, out, _ = fmnist(capsys, "search", "validate", str(path))
    assert code == 0
    assert "lr: 0.0001 … 0.01, log" in out
    assert "2 trials of up to 1 epochs on synthetic, 360 training and 40 validation images" in " ".join(out.split())
    code, out, _ = fmnist(capsys, "search", "validate", str(path), "--json")
    assert code == 0
    assert json.loads(out)["config"]["space"]["lr"] == {"float": [1e-4, 1e-2], "log": True}
    assert os.listdir() == ["small.yaml"]


def test_a_machine_without_a_network_searches_synthetic_garments_from_a_clean_checkout(tmp_path: Path) -> None:
    """Only tracked files, no data on disk, a closed network: the quickstart, made small, ends with a result."""
    checkout, experiments = tmp_path / "checkout", tmp_path / "experiments"
    listing = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    for name in listing.splitlines():
        target = checkout / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, target)
    process = start_fmnist(
        *("search", "run", "--json", "--experiments-dir", str(experiments)),
        *("--set", "train_size=400", "--set", "test_size=100", "--set", "max_trials=2", "--set", "max_epochs=2"),
        PYTHONPATH=str(checkout),
        FMNIST_DATA_DIR=str(tmp_path / "no-data"),
        TORCH_HOME=str(tmp_path / "no-weights"),
        http_proxy="http://127.0.0.1:9",
        https_proxy="http://127.0.0.1:9",
        no_proxy="127.0.0.1,localhost",
    )
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    assert "NOT FASHION-MNIST: training on SYNTHETIC garments" in output
    assert "weights: auto is none" in output
    saved = json.loads((experiments / "quickstart" / "evaluation.json").read_text())
    assert saved["dataset"] == "synthetic"
    assert saved["scores"]["num_images"] == 100
    assert (checkout / "search").is_dir()


def test_a_search_without_a_complete_trial_tests_none_and_says_so() -> None:
    space = {"model": "customnet", "optimizer": "sgd", "lr": 10, "weight_decay": 10, "momentum": 0.99}
    path = write_config(space=space, max_trials=1, max_epochs=3, precision="fp32")
    process = start_fmnist("search", "run", str(path))
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1, output
    assert "failed    diverged: epoch " in output
    assert "no trial is complete, so none was tested" in " ".join(output.split())
    assert "1 trial failed as diverged: epoch " in output


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_search_keeps_what_it_has_and_continues(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("FMNIST_EXPERIMENTS_DIR", "in [/brackets]")
    path = write_config(max_epochs=25, train_size=600, pruner="none", keep_checkpoints=1)
    process = start_fmnist("search", "run", str(path))
    first_epochs = Path("in [/brackets]/small/trials/00000/epochs.csv")
    deadline_s = time.monotonic() + 120
    while not first_epochs.exists() and time.monotonic() < deadline_s:
        time.sleep(0.2)
    process.send_signal(getattr(signal, name))
    start_s = time.monotonic()
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() < start_s + 15
    assert process.returncode == 128 + getattr(signal, name), output
    assert output.splitlines()[-1] == "interrupted; everything so far is saved, `fmnist search resume small` goes on"
    assert "Traceback" not in output
    code, out, _ = fmnist(capsys, "trials", "small", "--json")
    assert code == 0
    trials = json.loads(out)["trials"]
    assert {trial["state"] for trial in trials} == {"running"}
    before = first_epochs.read_text()
    code, out, err = fmnist(capsys, "search", "run", str(path), "--set", "space.lr=0.001")
    assert code == 2
    assert "space" in err
    process = start_fmnist("search", "resume", "small")
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert f"continues with {len(trials)} trials" in output
    after = first_epochs.read_text()
    assert after.startswith(before), "epochs trained before, with their wall times, are as they were"
    assert len(after.splitlines()) - 1 == 25
    check_evaluation_by_hand(capsys, output, Path("in [/brackets]/small").absolute())


def check_evaluation_by_hand(capsys: pytest.CaptureFixture[str], output: str, folder: Path) -> None:
    """A trial that a person names is evaluated beside the experiment's best, and the result says that it was named."""
    assert f"everything is in {folder}" in output
    best = json.loads((folder / "evaluation.json").read_text())
    assert best["rule"].startswith("best epoch on validation images")
    code, out, _ = fmnist(capsys, "evaluate", str(folder), "--trial", str(best["trial"]), "--json")
    assert code == 0
    named = json.loads(out)
    assert named["rule"].startswith("the trial was named by hand")
    assert named["scores"] == best["scores"]
    predictions = read_predictions(folder / "predictions.csv", class_names=CLASS_NAMES)
    assert (predictions.predicted == predictions.labels).mean() == best["scores"]["accuracy"]
    assert json.loads((folder / "evaluation.json").read_text()) == best
    code, _, err = fmnist(capsys, "evaluate", str(folder), "--trial", str(1 - best["trial"]))
    assert code == 2
    assert "has no weights" in err
    code, _, err = fmnist(capsys, "evaluate", str(folder), "--trial", "7")
    assert code == 2
    assert "no trial 7; valid: 0 to 1" in err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = fmnist(capsys, "--help")
    assert code == 0
    assert all(command in out for command in ("search", "trials", "evaluate", "data"))
