"""CustomNets fused into one network: each trains as it would alone, with its own share of the device measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.configurations import BATCH_SIZE, draw
from benchmarks.fused import FusedTraining
from benchmarks.peers.job import Job
from benchmarks.peers.ours import search_config
from benchmarks.trials_per_device import make_plans, resources, seconds_fused
from fmnist_models.data import TrainingData, load_images, split_training
from fmnist_models.epoch import Epoch
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


def train_alone(plan: TrainingPlan, data: TrainingData) -> list[Epoch]:
    return list(Training(plan, data, device=CPU).epochs())


def test_each_of_several_fused_networks_trains_as_it_does_alone(data: TrainingData) -> None:
    plans = [
        make_plan(dropout=0.0, lr=3e-4, seed=1),
        make_plan(dropout=0.0, lr=3e-3, weight_decay=0.5, seed=2),
        make_plan(dropout=0.0, lr=1e-3, weight_decay=0.0, seed=3),
    ]
    fused = list(FusedTraining(plans, data, device=CPU, precision="fp32").epochs())
    for number, plan in enumerate(plans):
        alone = train_alone(plan, data)
        assert [float(epoch.train_loss[number]) for epoch in fused] == pytest.approx(
            [epoch.train_loss for epoch in alone], rel=0.02
        )
        assert [float(epoch.val_accuracy[number]) for epoch in fused] == pytest.approx(
            [epoch.val_accuracy for epoch in alone], abs=0.05
        )


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


def test_trials_that_share_a_device_are_those_of_the_search(
    tmp_path: Path, fashion_mnist_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMNIST_DATA_DIR", str(fashion_mnist_root))
    job = Job(
        configurations=draw(3, seed=0),
        num_epochs=1,
        early_stopping=False,
        num_images=NUM_IMAGES,
        num_trials_at_once=1,
        data_dir=str(fashion_mnist_root),
        folder=str(tmp_path),
    )
    assert [dict(plan.hyperparameters) for plan in make_plans(job)] == [
        {**configuration, "batch_size": BATCH_SIZE} for configuration in job.configurations
    ]
    assert seconds_fused(job, 2, "cpu") > 0  # groups of two and of one


@pytest.mark.parametrize(("device", "node"), [("cpu", Resources(1, 0)), ("cuda", Resources(16, 1))])
@pytest.mark.parametrize("at_once", [1, 4, 16])
def test_a_search_has_as_many_trials_on_a_device_as_asked(
    tmp_path: Path, device: str, node: Resources, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.trials_per_device.local_resources", lambda: node)
    job = Job(
        configurations=draw(1, seed=0),
        num_epochs=1,
        early_stopping=False,
        num_images=NUM_IMAGES,
        num_trials_at_once=at_once,
        data_dir="",
        folder=str(tmp_path),
    )
    config = parse_config(search_config(replace(job, resources=resources(at_once, device))), where="test")
    assert plan_slots(config, [node]).count == at_once
