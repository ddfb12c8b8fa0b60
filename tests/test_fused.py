"""CustomNets fused into one network: each trains as it would alone, and the benchmark trains what a search does."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from optuna.trial import FixedTrial

from benchmarks.configurations import BATCH_SIZE, draw
from benchmarks.fused import FusedTraining
from benchmarks.peers.job import Job
from benchmarks.peers.ours import search_config
from benchmarks.trials_per_device import choose_fused_precision, main, make_plans, rates, resources, train_fused
from fmnist_models.data import TrainingData, load_images, split_training
from fmnist_models.epoch import Epoch
from fmnist_models.precision import ARITHMETICS
from fmnist_models.seeds import derive_seed
from fmnist_models.training import Training, TrainingPlan
from search.configuration.config import parse_config
from search.running.slots import Resources, plan_slots

CPU = torch.device("cpu")
NUM_IMAGES = 640


@pytest.fixture(scope="module")
def data(fashion_mnist_root: Path) -> TrainingData:
    images = load_images("fashion-mnist", "train", root=fashion_mnist_root, size=NUM_IMAGES)
    return split_training(images, validation_fraction=0.2, seed=0)


def make_plan(*, dropout: float, lr: float = 1e-3, weight_decay: float = 1e-2, seed: int = 0) -> TrainingPlan:
    hyperparameters = {"lr": lr, "weight_decay": weight_decay, "dropout": dropout, "batch_size": BATCH_SIZE}
    return TrainingPlan(network="customnet", hyperparameters=hyperparameters, num_epochs=2, seed=seed, precision="fp32")


def make_job(folder: Path, num_trials: int) -> Job:
    return Job(
        configurations=draw(num_trials, seed=0),
        num_epochs=1,
        early_stopping=False,
        num_images=NUM_IMAGES,
        num_trials_at_once=1,
        data_dir="",
        folder=str(folder),
    )


def train_alone(plan: TrainingPlan, data: TrainingData) -> list[Epoch]:
    return list(Training(plan, data, device=CPU).epochs())


@pytest.mark.parametrize("precision", ARITHMETICS)
def test_each_of_several_fused_networks_trains_as_it_does_alone(data: TrainingData, precision: str) -> None:
    plans = [
        make_plan(dropout=0.0, lr=3e-4, seed=1),
        make_plan(dropout=0.0, lr=3e-3, weight_decay=10.0, seed=2),  # which makes of 1 in 16 steps 0.61
        make_plan(dropout=0.0, lr=1e-3, weight_decay=0.0, seed=3),
    ]
    fused = list(FusedTraining(plans, data, device=CPU, precision=precision).epochs())
    for number, plan in enumerate(plans):
        alone = train_alone(replace(plan, precision=precision), data)
        for beside, by_itself in zip(fused, alone, strict=True):
            for figure in ("train_loss", "val_loss"):
                assert float(getattr(beside, figure)[number]) == pytest.approx(getattr(by_itself, figure), rel=0.02)
            for figure in ("train_accuracy", "val_accuracy"):
                assert float(getattr(beside, figure)[number]) == pytest.approx(getattr(by_itself, figure), abs=0.05)


def test_a_rate_a_decay_and_a_dropout_are_of_one_network_alone(data: TrainingData) -> None:
    plain = make_plan(dropout=0.0)

    def losses(other: TrainingPlan) -> list[float]:
        """The last epoch's, of the plain network and of the one beside it."""
        *_, last = FusedTraining([plain, other], data, device=CPU, precision="fp32").epochs()
        return last.train_loss.tolist()

    same = losses(plain)
    assert same[0] == pytest.approx(same[1], rel=1e-3)
    for other in (
        make_plan(dropout=0.9),
        make_plan(dropout=0.0, lr=1e-5),
        make_plan(dropout=0.0, weight_decay=10.0, lr=1e-2),
    ):
        beside = losses(other)
        assert beside[0] == pytest.approx(same[0], rel=1e-3)
        assert beside[1] > 1.1 * same[0]


@pytest.mark.parametrize("other", [{"batch_size": 32}, {"optimizer": "sgd"}, {"flip": True}, {"schedule": "cosine"}])
def test_plans_that_cannot_be_fused_are_refused(data: TrainingData, other: dict[str, object]) -> None:
    plan = make_plan(dropout=0.0)
    changed = replace(plan, hyperparameters={**plan.hyperparameters, **other})
    with pytest.raises(ValueError, match="only lr, weight_decay, dropout and the seed"):
        FusedTraining([plan, changed], data, device=CPU, precision="fp32")


def test_the_benchmark_trains_each_trial_of_the_job_as_the_search_does(
    tmp_path: Path, fashion_mnist_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMNIST_DATA_DIR", str(fashion_mnist_root))
    job = make_job(tmp_path, 3)
    searched = parse_config(search_config(job), where="test")
    plans = make_plans(job)
    assert [plan.seed for plan in plans] == [derive_seed(searched.seed, number) for number in range(3)]
    for plan, configuration in zip(plans, job.configurations, strict=True):
        suggested = searched.space.suggest(FixedTrial(configuration))
        assert suggested.pop("model") == "customnet"
        assert replace(plan, hyperparameters=suggested).is_same(asdict(plan))
    precision = choose_fused_precision(job, at_once=2, device_name="cpu")
    begun_s = time.monotonic()
    ends_s = train_fused(job, at_once=2, device_name="cpu", precision=precision)
    assert precision in ARITHMETICS
    assert begun_s < ends_s[0] == ends_s[1] < ends_s[2] < time.monotonic()  # a group of two and one of one


def test_rates_leave_out_the_first_trials_of_each_process_or_nothing() -> None:
    assert rates([10.0, 11.0, 15.0, 16.0, 20.0, 21.0], at_once=2) == {
        "whole": 6 / 21 * 3600,
        "after the first": 4 / 10 * 3600,
    }


def test_a_search_and_what_is_fused_are_measured_side_by_side(
    tmp_path: Path, fashion_mnist_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FMNIST_DATA_DIR", str(fashion_mnist_root))
    monkeypatch.setattr("benchmarks.results.FOLDER", tmp_path)
    monkeypatch.setattr("benchmarks.trials_per_device._take_one", lambda device_name: None)  # of this test's process
    settings = {"device": "cpu", "at-once": 1, "trials": 2, "epochs": 1, "images": NUM_IMAGES, "repeats": 1}
    arguments = [f"--{name}={value}" for name, value in settings.items()]
    monkeypatch.setattr("sys.argv", ["trials_per_device", *arguments])
    main()
    kept = json.loads((tmp_path / "trials_per_device.json").read_text())
    assert not kept["is_standard"]
    assert kept["precisions"].keys() == {"search, 1 at once", "fused, 1 at once"}
    for part in ("whole", "after the first"):
        measured = kept["trials_per_hour"][part]
        assert measured.keys() == kept["precisions"].keys()
        assert all(summary["n"] == 1 and summary["median"] > 0 for summary in measured.values())
        assert kept["times_the_first"][part]["search, 1 at once"] == 1
    assert "fused, 1 at once, whole" in capsys.readouterr().out


def test_as_many_at_once_as_there_are_trials_leave_nothing_to_measure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["trials_per_device", "--at-once", "1", "4", "--trials", "4"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "valid are 1 to 3" in capsys.readouterr().err


@pytest.mark.parametrize(("device", "node"), [("cpu", Resources(1, 0)), ("cuda", Resources(16, 1))])
@pytest.mark.parametrize("at_once", [1, 4, 16])
def test_a_search_has_as_many_trials_on_a_device_as_asked(
    tmp_path: Path, device: str, node: Resources, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.trials_per_device.local_resources", lambda: node)
    job = replace(
        make_job(tmp_path, 1), num_trials_at_once=at_once, resources=resources(at_once=at_once, device_name=device)
    )
    config = parse_config(search_config(job), where="test")
    assert plan_slots(config, [node]).count == at_once
