"""Averages at test time: of the weights over the steps, and of an image with its mirror image."""

from __future__ import annotations

import itertools
import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from made_experiment import make_experiment
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_post_hook

from fmnist_models.checkpoint import load_checkpoint, load_metadata, load_weights, save_checkpoint, save_weights
from fmnist_models.data import CLASS_NAMES, Normalisation, TrainingData, load_images, split_training
from fmnist_models.errors import SavedModelError
from fmnist_models.export import Source, export_model
from fmnist_models.feature_cache import FeatureCache
from fmnist_models.flip_averaging import FlipAveraged, bare_network, for_inference
from fmnist_models.freezing import freeze_stages
from fmnist_models.networks import build_network, get_network
from fmnist_models.prediction import predict_probabilities, predict_scores
from fmnist_models.saved_model import ModelConfig, load_model, save_model
from fmnist_models.training import Training, TrainingPlan
from fmnist_models.weight_average import WeightAverage
from search.configuration.config import parse_config
from search.workflows.evaluation import evaluate_and_save
from search.workflows.winner import find_winner

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def real(fashion_mnist_root: Path) -> TrainingData:
    """192 images to train on, 64 to validate."""
    images = load_images("fashion-mnist", "train", root=fashion_mnist_root, size=256)
    return split_training(images, validation_fraction=0.25, seed=0)


def training(
    data: TrainingData,
    *,
    network: str = "customnet",
    precision: str = "fp32",
    cache: FeatureCache | None = None,
    **hyperparameters: Any,
) -> Training:
    plan = TrainingPlan(
        network=network, hyperparameters={"batch_size": 16} | hyperparameters, num_epochs=2, seed=1, precision=precision
    )
    return Training(plan, data, device=CPU, cache=cache)


def mean_of_mirrors(model: torch.nn.Module, data: TrainingData, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """By hand: the mean of the probabilities of ``images`` and of their mirror images."""
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    both = [predict_probabilities(model, part, normalisation=data.normalisation) for part in (images, mirrored)]
    return np.asarray((both[0].astype(np.float64) + both[1]) / 2)


# Of the weights


@pytest.mark.parametrize("decay", [0.3, 0.999])
@pytest.mark.parametrize(
    "chosen",
    [{}, {"precision": "bf16"}, {"network": "lstm"}, {"network": "resnet18", "unfreeze": ("layer4",)}],
    ids=str,
)
def test_the_average_is_the_one_by_hand_over_the_weights_of_all_steps(
    chosen: dict[str, Any], decay: float, real: TrainingData
) -> None:
    few = TrainingData(real.train.first(64), real.validation.first(16), real.normalisation)
    run = training(few, ema=decay, **chosen)
    steps: list[dict[str, Tensor]] = []

    def record(*_: Any) -> None:
        steps.append({name: tensor.clone().double() for name, tensor in run.state_dict()["model"].items()})

    record()
    hook = register_optimizer_step_post_hook(record)
    list(run.epochs())
    hook.remove()
    assert len(steps) == 1 + 2 * 4
    expected, *later = steps
    for number, step in enumerate(later):
        kept = min(decay, (1 + number) / (10 + number))
        expected = {name: kept * expected[name] + (1 - kept) * step[name] for name in step}
    final = run.model.state_dict()
    for name, tensor in ((name, final[name]) for name in expected):
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(tensor, steps[-1][name].to(tensor.dtype))
    assert not all(torch.equal(final[name], tensor.to(final[name].dtype)) for name, tensor in later[-1].items())


def test_the_averaged_network_is_the_one_that_is_judged(real: TrainingData) -> None:
    run = training(real, ema=0.9)
    (*_, epoch) = run.epochs()
    images, labels = (torch.from_numpy(array) for array in (real.validation.images, real.validation.labels))
    scores = predict_scores(run.model, images, normalisation=real.normalisation)
    assert epoch.val_loss == pytest.approx(functional.cross_entropy(scores, labels).item(), rel=1e-5)
    trained = build_network("customnet", {})
    trained.load_state_dict(run.state_dict()["model"])
    other = predict_scores(trained, images, normalisation=real.normalisation)
    assert functional.cross_entropy(other, labels).item() != pytest.approx(epoch.val_loss, rel=1e-3)


def test_averaging_the_weights_leaves_the_training_itself_as_it_is(real: TrainingData) -> None:
    runs = [training(real, **chosen) for chosen in ({}, {"ema": 0.99, "flip_averaging": True})]
    losses = [[epoch.train_loss for epoch in run.epochs()] for run in runs]
    assert losses[0] == losses[1]
    states = [run.state_dict()["model"] for run in runs]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_what_is_frozen_is_neither_averaged_nor_copied() -> None:
    trained = build_network("resnet18", {})
    freeze_stages(get_network("resnet18"), trained, unfreeze=())
    average = WeightAverage(trained, decay=0.9).network
    assert average.get_parameter("layer4.1.conv2.weight") is trained.get_parameter("layer4.1.conv2.weight")
    assert average.get_parameter("fc.weight") is not trained.get_parameter("fc.weight")


def test_a_checkpoint_without_an_average_belongs_to_a_training_without_one(real: TrainingData) -> None:
    old = training(real)
    state = old.state_dict()
    assert "average" not in state
    training(real, ema=0.0, flip_averaging=False).load_state_dict(state)
    with pytest.raises(ValueError, match="belongs to another training"):
        training(real, ema=0.9).load_state_dict(state)


TWO_PROCESS_PLANS: dict[str, dict[str, Any]] = {
    "customnet": {"ema": 0.9, "flip_averaging": True},
    "resnet18": {"ema": 0.9, "flip_averaging": True, "unfreeze": ("layer4",)},  # with features of frozen stages
}


# Without batch norm, whose statistics are of each process alone.
ODD = {"network": "lenet5", "batch_size": 7, "optimizer": "sgd", "lr": 0.05}


def _train_as_one_of_two(rank: int, folder: Path, data: TrainingData) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2)
    for network, chosen in TWO_PROCESS_PLANS.items():
        plan = {"network": network, "cache": FeatureCache(folder / "features", 10**9), **chosen}
        run, last = training(data, **plan), folder / f"{network}.pt"
        epochs = run.epochs()
        next(epochs)
        if rank == 0:
            save_checkpoint(last, run.state_dict())
        list(epochs)
        continued = training(data, **plan)
        dist.barrier()
        continued.load_state_dict(load_checkpoint(last))
        list(continued.epochs())
        for kind, each in (("straight", run), ("continued", continued)):
            save_weights(folder / f"{network}-{kind}-{rank}", each.model.state_dict())
            losses = json.dumps([epoch.val_loss for epoch in each.history])
            (folder / f"{network}-{kind}-{rank}.json").write_text(losses)
    odd = training(data, **ODD)
    losses = json.dumps([epoch.train_loss for epoch in odd.epochs()])
    save_weights(folder / f"odd-{rank}", odd.model.state_dict(), metadata={"losses": losses})
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def few(real: TrainingData) -> TrainingData:
    return TrainingData(real.train.first(64), real.validation.first(16), real.normalisation)


@pytest.fixture(scope="module")
def trained_by_two(few: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what each of two processes has trained."""
    folder, context = tmp_path_factory.mktemp("two"), multiprocessing.get_context("spawn")
    workers = [context.Process(target=_train_as_one_of_two, args=(rank, folder, few)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    return folder


def test_two_processes_train_on_every_image_of_an_odd_batch(few: TrainingData, trained_by_two: Path) -> None:
    """Their gradient is the mean over all images of the batch, as that of one process is."""
    alone = training(few, **ODD)
    losses = [epoch.train_loss for epoch in alone.epochs()]
    for path in (trained_by_two / "odd-0", trained_by_two / "odd-1"):
        assert json.loads(load_metadata(path)["losses"]) == pytest.approx(losses, rel=1e-4)
        torch.testing.assert_close(load_weights(path), dict(alone.model.state_dict()), rtol=1e-3, atol=1e-4)


def test_two_processes_have_the_same_average(few: TrainingData, trained_by_two: Path) -> None:
    """BatchNorm's averaged statistics too, of which each process has its own; also if they continue."""
    for network in TWO_PROCESS_PLANS:
        names = [f"{network}-{kind}-{rank}" for kind, rank in itertools.product(("straight", "continued"), (0, 1))]
        first, *others = (load_weights(trained_by_two / name) for name in names)
        for other in others:
            assert all(torch.equal(tensor, other[name]) for name, tensor in first.items())
        losses, *same = (json.loads((trained_by_two / f"{name}.json").read_text()) for name in names)
        assert same == [losses] * 3
        model = build_network(network, {})
        model.load_state_dict(first)
        expected = mean_of_mirrors(model, few, few.validation.images)[np.arange(16), few.validation.labels]
        assert losses[-1] == pytest.approx(-np.log(expected).mean(), rel=1e-4)


# Of an image and its mirror image


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_validation_judges_the_mean_over_both_mirrors(precision: str, real: TrainingData) -> None:
    run = training(real, precision=precision, flip_averaging=True)
    (*_, epoch) = run.epochs()
    expected = mean_of_mirrors(run.model, real, real.validation.images)
    loss = -np.log(expected[np.arange(64), real.validation.labels]).mean()
    assert epoch.val_loss == pytest.approx(loss, rel=1e-5 if precision == "fp32" else 2e-2)
    if precision == "fp32":
        assert epoch.val_accuracy == (expected.argmax(1) == real.validation.labels).mean()
    assert list(run.model.state_dict()) == list(build_network("customnet", {}).state_dict())


def test_scores_of_absurd_size_are_averaged_too() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 10))
    torch.nn.init.normal_(network[1].weight, std=1e6)
    images = torch.rand(5, 1, 2, 2)
    expected = (network(images).double().softmax(1) + network(images.flip(3)).double().softmax(1)) / 2
    found = FlipAveraged(network)(images)
    assert found.isfinite().all()
    torch.testing.assert_close(found.softmax(1).double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chosen", [{"ema": 0.9}, {"flip_averaging": True}, {"ema": 0.9, "flip_averaging": True}])
@pytest.mark.parametrize(
    ("frozen", "precision"),
    [
        ({"network": "resnet18", "unfreeze": ("layer4",)}, "fp32"),
        ({"network": "lenet5", "unfreeze": ("f6",)}, "bf16"),
    ],
)
def test_with_features_it_is_the_training_without(
    chosen: dict[str, Any], frozen: dict[str, Any], precision: str, real: TrainingData, tmp_path: Path
) -> None:
    few = TrainingData(real.train.first(48), real.validation.first(32), real.normalisation)
    cache = FeatureCache(tmp_path / "features", max_bytes=10**9)
    plan = {**frozen, **chosen, "precision": precision}
    with_them, without = (training(few, cache=each, **plan) for each in (cache, None))
    assert (with_them._features is not None, without._features) == (True, None)
    tolerance = 1e-4 if precision == "fp32" else 3e-2
    for one, other in zip(with_them.epochs(), without.epochs(), strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=tolerance)
        assert one.val_loss == pytest.approx(other.val_loss, rel=tolerance)
    again = training(few, cache=cache, **plan)
    again.load_state_dict(with_them.state_dict())
    assert again._validate() == (with_them.history[-1].val_loss, with_them.history[-1].val_accuracy)


def saved(folder: Path, data: TrainingData, **hyperparameters: Any) -> torch.nn.Module:
    """A trained network saved in ``folder``."""
    run = training(data, **hyperparameters)
    list(run.epochs())
    config = ModelConfig(
        network="customnet",
        hyperparameters=dict(run.plan.hyperparameters),
        normalisation=data.normalisation,
        class_names=CLASS_NAMES,
        dataset="fashion-mnist",
    )
    save_model(folder, run.predictor, config, metadata={})
    return run.model.eval()


def test_a_saved_model_and_what_is_exported_from_it_do_it_by_themselves(
    real: TrainingData, fashion_mnist_root: Path, tmp_path: Path
) -> None:
    bare = saved(tmp_path / "best", real, flip_averaging=True, ema=0.9)
    assert set(load_weights(tmp_path / "best" / "model.safetensors")) == set(bare.state_dict())
    images = load_images("fashion-mnist", "test", root=fashion_mnist_root, size=100).images
    expected = mean_of_mirrors(bare, real, images)
    alone = predict_probabilities(bare, images, normalisation=real.normalisation)
    assert np.abs(alone - expected).max() > 0.01

    model, config = load_model(tmp_path / "best")
    found = predict_probabilities(model, images, normalisation=config.normalisation)
    np.testing.assert_allclose(found, expected, atol=1e-5)

    source = Source(model=model, config=config, provenance={}, images=images)
    for format_name, name in (("onnx", "m.onnx"), ("torch-export", "m.pt2"), ("safetensors", "m")):
        assert export_model(source, format_name, output=tmp_path / name).is_close
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    program = torch.export.load(tmp_path / "m.pt2").module()
    for number in (1, 7, 100):
        (made,) = session.run(None, {"images": images[:number]})
        np.testing.assert_allclose(made, expected[:number], atol=1e-5)
        ran = program(torch.from_numpy(images[:number])).detach().numpy()
        np.testing.assert_allclose(ran, expected[:number], atol=1e-5)
    again = load_model(tmp_path / "m")[0]
    np.testing.assert_allclose(predict_probabilities(again, images, normalisation=real.normalisation), expected, 1e-5)


def test_a_trial_is_tested_as_it_was_validated(real: TrainingData, fashion_mnist_root: Path, tmp_path: Path) -> None:
    space = {"model": "customnet", "ema": {"choice": [0.0, 0.9]}, "flip_averaging": {"choice": [True]}}
    budget = {"max_trials": 1, "max_epochs": 2, "pruner": "none"}
    config = parse_config({"space": space, "dataset": "fashion-mnist", "test_size": 80, **budget}, where="test")
    experiment = make_experiment(tmp_path / "found", config, [[0.5, 0.6]])
    run = training(real, ema=0.9, flip_averaging=True)
    list(run.epochs())
    save_weights(experiment.trial(0).best, run.model.state_dict())
    evaluation = evaluate_and_save(experiment, config, None, data_root=fashion_mnist_root, data=real)
    test = load_images("fashion-mnist", "test", root=fashion_mnist_root, size=80)
    expected = mean_of_mirrors(run.model, real, test.images)
    assert evaluation.scores.accuracy == (expected.argmax(1) == test.labels).mean()
    assert evaluation.hyperparameters["flip_averaging"] is True
    winner = find_winner(str(experiment.path), directory=tmp_path)
    assert isinstance(winner.classifier.network, FlipAveraged)
    assert evaluation.temperature == winner.config.temperature != 1
    found = predict_probabilities(winner.classifier.network, test.images, normalisation=winner.config.normalisation)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("value", [1, "yes", None, [True]])
def test_a_saved_model_with_another_value_than_true_or_false_is_refused(value: Any, tmp_path: Path) -> None:
    config = ModelConfig(
        network="customnet",
        hyperparameters={"flip_averaging": value},
        normalisation=Normalisation(0.3, 0.3),
        class_names=CLASS_NAMES,
        dataset="fashion-mnist",
    )
    save_model(tmp_path, build_network("customnet", {}), config, metadata={})
    with pytest.raises(SavedModelError, match="flip_averaging must be one of true, false"):
        load_model(tmp_path)


def test_a_model_of_before_there_was_flip_averaging_is_the_network_alone() -> None:
    network = build_network("customnet", {})
    assert for_inference(network, {"lr": 0.1}) is network
    assert bare_network(network) is network
    assert bare_network(for_inference(network, {"flip_averaging": True})) is network
