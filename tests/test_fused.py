"""CustomNets fused into one network: each trains as it would alone, and the benchmark trains what a search does."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from optuna.trial import FixedTrial

from benchmarks.configurations import BATCH_SIZE, draw
from benchmarks.fused import FusedTraining
from benchmarks.images_per_second import make_plans
from benchmarks.peers.job import Job
from benchmarks.peers.ours import search_config
from benchmarks.trials_per_device import choose_fused_precision, main, rate, resources, train_fused
from fmnist_models.data import TrainingData, load_images, split_training
from fmnist_models.precision import ARITHMETICS
from fmnist_models.seeds import derive_seed
from fmnist_models.training import Training, TrainingPlan
from search.configuration.config import parse_config
from search.running.slots import Resources, plan_slots

CPU = torch.device("cpu")
NUM_IMAGES = 660


def load(root: Path, num_images: int) -> TrainingData:
    images = load_images("fashion-mnist", "train", root=root, size=num_images)
    return split_training(images, validation_fraction=0.2, seed=0)


@pytest.fixture(scope="module")
def data(fashion_mnist_root: Path) -> TrainingData:
    """528 images to train on: the last batch has 16."""
    return load(fashion_mnist_root, NUM_IMAGES)


def make_plan(
    *, dropout: float, lr: float = 1e-3, weight_decay: float = 1e-2, seed: int = 0, precision: str = "fp32"
) -> TrainingPlan:
    hyperparameters = {"lr": lr, "weight_decay": weight_decay, "dropout": dropout, "batch_size": BATCH_SIZE}
    return TrainingPlan(
        network="customnet", hyperparameters=hyperparameters, num_epochs=2, seed=seed, precision=precision
    )


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


def assert_each_trains_as_alone(plans: list[TrainingPlan], data: TrainingData) -> None:
    fused = list(FusedTraining(plans, data, device=CPU).epochs())
    for number, plan in enumerate(plans):
        alone = list(Training(plan, data, device=CPU).epochs())
        # The first epoch's steps are few; later ones add up what rounding did.
        rounding = 3e-3 if plan.precision.startswith("fp32") else 0.02
        assert float(fused[0].train_loss[number]) == pytest.approx(alone[0].train_loss, rel=rounding)
        for beside, by_itself in zip(fused, alone, strict=True):
            for figure in ("train_loss", "val_loss"):
                assert float(getattr(beside, figure)[number]) == pytest.approx(getattr(by_itself, figure), rel=0.02)
            for figure in ("train_accuracy", "val_accuracy"):
                assert float(getattr(beside, figure)[number]) == pytest.approx(getattr(by_itself, figure), abs=0.05)


@pytest.mark.parametrize("precision", ARITHMETICS)
def test_each_of_several_fused_networks_trains_as_it_does_alone(data: TrainingData, precision: str) -> None:
    plans = [
        make_plan(dropout=0.0, lr=3e-4, seed=1, precision=precision),
        # Whose decay makes of 1 in 18 steps 0.58.
        make_plan(dropout=0.0, lr=3e-3, weight_decay=10.0, seed=2, precision=precision),
        make_plan(dropout=0.0, lr=1e-3, weight_decay=0.0, seed=3, precision=precision),
    ]
    assert_each_trains_as_alone(plans, data)


def test_an_image_that_is_left_over_trains_nothing_of_a_fused_network_either(fashion_mnist_root: Path) -> None:
    data = load(fashion_mnist_root, 642)
    assert len(data.train) == 8 * BATCH_SIZE + 1
    assert_each_trains_as_alone([make_plan(dropout=0.0, lr=3e-4, seed=1)], data)


def test_dropout_of_a_fused_network_is_that_of_one_alone(data: TrainingData) -> None:
    """The numbers are others than those of a network alone, so that losses agree about."""
    plans = [make_plan(dropout=dropout, lr=3e-4, seed=1) for dropout in (0.0, 0.5, 0.9)]
    *_, fused = FusedTraining(plans, data, device=CPU).epochs()
    for number, plan in enumerate(plans):
        *_, alone = Training(plan, data, device=CPU).epochs()
        assert float(fused.train_loss[number]) == pytest.approx(alone.train_loss, rel=0.07)
        assert float(fused.val_loss[number]) == pytest.approx(alone.val_loss, rel=0.07)


def test_validation_drops_nothing(data: TrainingData) -> None:
    plans = [make_plan(dropout=dropout, lr=1e-7) for dropout in (0.0, 0.9)]
    *_, last = FusedTraining(plans, data, device=CPU).epochs()
    plain, dropped = last.val_loss.tolist()
    assert plain == pytest.approx(dropped, rel=1e-3)
    plain, dropped = last.train_loss.tolist()
    assert dropped > 1.05 * plain


def test_a_rate_a_decay_and_a_dropout_are_of_one_network_alone(data: TrainingData) -> None:
    plain = make_plan(dropout=0.0)

    def losses(other: TrainingPlan) -> list[float]:
        """The last epoch's, of the plain network and of the one beside it."""
        *_, last = FusedTraining([plain, other], data, device=CPU).epochs()
        return last.train_loss.tolist()

    same = losses(plain)
    assert same[0] == pytest.approx(same[1], rel=1e-3)
    for other in (make_plan(dropout=0.9), make_plan(dropout=0.0, lr=1e-5), make_plan(dropout=0.0, weight_decay=10.0)):
        beside = losses(other)
        assert beside[0] == pytest.approx(same[0], rel=1e-3)
        assert beside[1] > 1.01 * same[0]


@pytest.mark.parametrize(
    "other", [{"batch_size": 32}, {"optimizer": "sgd"}, {"flip": True}, {"schedule": "cosine"}, {"ema": 0.9}]
)
def test_plans_that_cannot_be_fused_are_refused(data: TrainingData, other: dict[str, object]) -> None:
    plan = make_plan(dropout=0.0)
    changed = replace(plan, hyperparameters={**plan.hyperparameters, **other})
    with pytest.raises(ValueError, match="only lr, weight_decay, dropout and seed may differ"):
        FusedTraining([plan, changed], data, device=CPU)


def test_plans_of_other_networks_epochs_or_arithmetic_are_refused(data: TrainingData) -> None:
    plan = make_plan(dropout=0.0)
    lenet = TrainingPlan(network="lenet5", hyperparameters={}, num_epochs=2, seed=0, precision="fp32")
    for plans in ([plan, replace(plan, num_epochs=3)], [plan, replace(plan, precision="bf16")], [lenet]):
        with pytest.raises(ValueError, match="only lr, weight_decay, dropout and seed may differ"):
            FusedTraining(plans, data, device=CPU)


def test_the_benchmark_trains_the_trials_of_the_search(
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
    assert precision in ARITHMETICS
    ends_s = train_fused(replace(job, precision=precision), at_once=2, device_name="cpu")
    assert ends_s[0] == ends_s[1] < ends_s[2]  # a group of two and one of one


def test_a_rate_leaves_out_the_first_trials_of_each_process() -> None:
    assert rate([10.0, 11.0, 15.0, 16.0, 20.0, 21.0], at_once=2) == 4 / 10 * 3600


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
    kept = json.loads((tmp_path / "trials_per_device_cpu.json").read_text())
    assert not kept["is_standard"]
    assert kept["precisions"].keys() == kept["trials_per_hour"].keys() == {"search, 1 at once", "fused, 1 at once"}
    assert all(summary["n"] == 1 and summary["median"] > 0 for summary in kept["trials_per_hour"].values())
    assert kept["times_the_first"]["search, 1 at once"] == 1
    assert "fused, 1 at once, 0: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "valid"), [("--at-once 1 4 --trials 4", "valid are 1 to 3"), ("--repeats 0", "valid is 1 or more")]
)
def test_arguments_that_leave_nothing_to_measure_are_refused(
    words: str, valid: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["trials_per_device", *words.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert valid in capsys.readouterr().err


@pytest.mark.parametrize(("device", "node"), [("cpu", Resources(1, 0)), ("cuda", Resources(16, 1))])
@pytest.mark.parametrize("at_once", [1, 4, 6, 7, 16])
def test_a_search_has_as_many_trials_on_a_device_as_asked(
    tmp_path: Path, device: str, node: Resources, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.trials_per_device.local_resources", lambda: node)
    job = replace(
        make_job(tmp_path, 1), num_trials_at_once=at_once, resources=resources(at_once=at_once, device_name=device)
    )
    config = parse_config(search_config(job), where="test")
    assert plan_slots(config, [node]).count == at_once
