from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from fmnist_models.augmentation import augment
from fmnist_models.checkpoint import load_checkpoint, save_checkpoint
from fmnist_models.data import TrainingData, load_images, split_training
from fmnist_models.errors import CheckpointError
from fmnist_models.files import write_aside
from fmnist_models.hyperparameters import defaults
from fmnist_models.networks import get_network
from fmnist_models.optimizers import EagerAdamW, EagerSGD
from fmnist_models.prediction import predict_scores
from fmnist_models.recipe import Recipe, build_optimizer, build_schedule
from fmnist_models.training import DivergedError, Training, TrainingPlan

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def few_images(synthetic_data: TrainingData) -> TrainingData:
    """150 to train on, 20 to validate."""
    return TrainingData(
        synthetic_data.train.first(150), synthetic_data.validation.first(20), synthetic_data.normalisation
    )


def training(
    data: TrainingData,
    *,
    network: str = "customnet",
    num_epochs: int = 3,
    seed: int = 0,
    precision: str = "fp32",
    **hyperparameters: Any,
) -> Training:
    plan = TrainingPlan(
        network=network, hyperparameters=hyperparameters, num_epochs=num_epochs, seed=seed, precision=precision
    )
    return Training(plan, data, device=CPU)


def outcome(run: Training) -> tuple[list[dict[str, bytes]], list[dict[str, float]]]:
    """The bytes of the weights, those that are judged and those that train, and the history without wall times."""
    states = (run.model.state_dict(), run.state_dict()["model"])
    weights = [{name: tensor.contiguous().numpy().tobytes() for name, tensor in state.items()} for state in states]
    return weights, [{**asdict(epoch), "epoch_s": 0.0} for epoch in run.history]


# Continuing and repeating

PLANS: dict[str, dict[str, Any]] = {
    "adamw, constant": {"optimizer": "adamw", "schedule": "constant"},
    "sgd, cosine": {"optimizer": "sgd", "schedule": "cosine", "lr": 0.02, "momentum": 0.8},
    "everything random": {
        "optimizer": "adamw",
        "schedule": "one-cycle",
        "label_smoothing": 0.1,
        "dropout": 0.5,
        "flip": True,
        "shift": 2,
        "erase": 0.5,
    },
    "resnet18, partly frozen": {"network": "resnet18", "unfreeze": ("layer4",), "dropout": 0.2, "ema": 0.95},
    "averaged": {"ema": 0.9, "flip_averaging": True, "flip": True},
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_continued_training_ends_bit_for_bit_as_one_never_interrupted(
    plan: dict[str, Any], precision: str, few_images: TrainingData, tmp_path: Path
) -> None:
    straight = training(few_images, precision=precision, **plan)
    list(straight.epochs())

    interrupted = training(few_images, precision=precision, **plan)
    list(islice(interrupted.epochs(), 2))
    save_checkpoint(tmp_path / "two.pt", interrupted.state_dict())
    torch.rand(7)  # whatever else happened meanwhile

    continued = training(few_images, precision=precision, **plan)
    continued.load_state_dict(load_checkpoint(tmp_path / "two.pt"))
    assert [epoch.epoch for epoch in continued.epochs()] == [3]
    assert outcome(continued) == outcome(straight)


def test_a_checkpoint_of_before_there_were_sizes_and_stems_is_continued_with_their_defaults(
    few_images: TrainingData,
) -> None:
    """As a search saved it: with every hyperparameter that the network had then."""
    complete = defaults(get_network("resnet18").hyperparameters) | defaults(Recipe) | {"batch_size": 64}
    old = {name: value for name, value in complete.items() if name not in ("input_size", "stem")}
    straight = training(few_images, network="resnet18", num_epochs=2, **complete)
    interrupted = training(few_images, network="resnet18", num_epochs=2, **old)
    list(straight.epochs())
    list(islice(interrupted.epochs(), 1))
    state = interrupted.state_dict()
    assert "stem" not in state["plan"]["hyperparameters"]
    continued = training(few_images, network="resnet18", num_epochs=2, **complete)
    continued.load_state_dict(state)
    assert [epoch.epoch for epoch in continued.epochs()] == [2]
    assert outcome(continued) == outcome(straight)
    other = training(few_images, network="resnet18", num_epochs=2, **{**complete, "stem": "small"})
    with pytest.raises(ValueError, match="belongs to another training"):
        other.load_state_dict(state)


def test_same_seed_trains_the_same_and_another_seed_differs(few_images: TrainingData) -> None:
    first, again, other = (training(few_images, num_epochs=2, seed=seed) for seed in (4, 4, 5))
    for run in (first, again, other):
        list(run.epochs())
    assert outcome(first) == outcome(again)
    assert outcome(first)[1] != outcome(other)[1]


def test_each_epoch_goes_through_the_images_in_another_order(few_images: TrainingData) -> None:
    """From the same fresh weights and without other randomness, epochs 1 and 2 still give different losses."""
    first, second = (training(few_images, num_epochs=epochs, dropout=0.0) for epochs in (1, 2))
    epoch = next(first.epochs())
    second.load_state_dict({**second.state_dict(), "history": [asdict(epoch)]})
    assert next(second.epochs()).train_loss != epoch.train_loss


def test_a_finished_training_has_no_more_epochs(few_images: TrainingData) -> None:
    run = training(few_images, num_epochs=2)
    epochs = list(run.epochs())
    assert [epoch.epoch for epoch in epochs] == [1, 2]
    assert run.history == epochs
    assert list(run.epochs()) == []


def test_an_epoch_tells_the_truth_about_validation(few_images: TrainingData) -> None:
    run = training(few_images, num_epochs=2)
    epoch = list(run.epochs())[-1]
    images, labels = (torch.from_numpy(array) for array in (few_images.validation.images, few_images.validation.labels))
    scores = predict_scores(run.model, images, normalisation=few_images.normalisation)
    assert epoch.val_accuracy == (scores.argmax(1) == labels).double().mean()
    assert epoch.val_loss == pytest.approx(torch.nn.functional.cross_entropy(scores, labels).item(), rel=1e-5)
    assert epoch.metric("val_loss") == epoch.val_loss
    assert epoch.metric("val_accuracy") == epoch.val_accuracy
    assert epoch.epoch_s > 0


def test_a_checkpoint_of_another_seed_is_refused_with_both(few_images: TrainingData) -> None:
    state = training(few_images, seed=3).state_dict()
    with pytest.raises(ValueError, match=r"seed 3, not 4"):
        training(few_images, seed=4).load_state_dict(state)


def test_training_by_an_absurd_rate_is_given_up(few_images: TrainingData) -> None:
    # Each step multiplies the weights by 1 - lr * weight_decay = -99.
    run = training(few_images, optimizer="sgd", lr=10.0, momentum=0.99, weight_decay=10.0, batch_size=10)
    with pytest.raises(DivergedError, match=r"epoch \d: train_loss .* with lr 10"):
        list(run.epochs())
    assert all(np.isfinite([epoch.train_loss, epoch.val_loss]).all() for epoch in run.history)


# Recipe


def steps(recipe: Recipe, *, num_steps: int) -> Iterator[dict[str, Any]]:
    """The optimiser's settings at every step that it makes."""
    optimizer = build_optimizer(recipe, [torch.nn.Parameter(torch.ones(1))])
    schedule = build_schedule(recipe, optimizer, num_steps=num_steps)
    for _ in range(num_steps):
        yield {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
        optimizer.step()
        schedule.step()


@settings(deadline=None, max_examples=40)
@given(
    optimizer=st.sampled_from(["adamw", "sgd"]),
    schedule=st.sampled_from(["constant", "cosine", "one-cycle"]),
    lr=st.floats(1e-7, 10.0),
    num_steps=st.integers(1, 200),
)
def test_every_rate_is_positive_and_never_above_lr(optimizer: str, schedule: str, lr: float, num_steps: int) -> None:
    recipe = Recipe(optimizer=optimizer, schedule=schedule, lr=lr)
    rates = [step["lr"] for step in steps(recipe, num_steps=num_steps)]
    assert all(0 < rate <= lr * (1 + 1e-9) for rate in rates)


@pytest.mark.parametrize("num_steps", [30, 101])
def test_constant_stays_cosine_falls_and_one_cycle_rises_then_falls(num_steps: int) -> None:
    constant, cosine, one_cycle = (
        np.array([step["lr"] for step in steps(Recipe(schedule=schedule, lr=0.5), num_steps=num_steps)])
        for schedule in ("constant", "cosine", "one-cycle")
    )
    assert (constant == 0.5).all()
    np.testing.assert_allclose(cosine, 0.25 * (1 + np.cos(np.pi * np.arange(num_steps) / num_steps)), atol=1e-12)
    peak = one_cycle.argmax()
    assert 0.2 * num_steps < peak < 0.4 * num_steps
    assert (np.diff(one_cycle[: peak + 1]) > 0).all()
    assert (np.diff(one_cycle[peak:]) < 0).all()
    assert one_cycle[peak] == pytest.approx(0.5, rel=0.01)
    assert max(one_cycle[0] - 0.02, one_cycle[-1]) < 0.01


@pytest.mark.parametrize("num_steps", [1, 2, 3, 30])
def test_the_last_step_of_one_cycle_has_the_cycles_last_rate(num_steps: int) -> None:
    rates = [step["lr"] for step in steps(Recipe(schedule="one-cycle", lr=0.01), num_steps=num_steps)]
    assert rates[-1] == pytest.approx(4e-8)
    assert all(rate > 4e-8 for rate in rates[:-1])


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one-cycle"])
def test_momentum_and_weight_decay_are_as_asked_at_every_step(schedule: str) -> None:
    recipe = Recipe(optimizer="sgd", schedule=schedule, momentum=0.3, weight_decay=0.07)
    settings_of = list(steps(recipe, num_steps=20))
    assert {step["momentum"] for step in settings_of} == {0.3}
    assert {step["weight_decay"] for step in settings_of} == {0.07}


def test_the_schedule_spans_all_epochs(few_images: TrainingData) -> None:
    run = training(few_images, schedule="cosine", lr=0.01, num_epochs=2)
    assert [epoch.lr for epoch in run.epochs()] == pytest.approx([0.01, 0.005])


# Augmentation


@pytest.fixture(scope="module")
def garments(synthetic_data: TrainingData) -> Tensor:
    """``(200, 28, 28)`` uint8."""
    return torch.from_numpy(synthetic_data.train.images[:200])


def test_augmentation_is_off_by_default(garments: Tensor) -> None:
    before = torch.get_rng_state()
    assert torch.equal(augment(garments, Recipe()), garments)
    assert torch.equal(torch.get_rng_state(), before)


def test_flip_gives_the_image_or_its_mirror_about_as_often(garments: Tensor) -> None:
    torch.manual_seed(0)
    flipped = augment(garments, Recipe(flip=True))
    same = (flipped == garments).flatten(1).all(1)
    mirrored = (flipped == garments.flip(2)).flatten(1).all(1)
    assert (same | mirrored).all()
    assert 60 < mirrored.sum() < 140


def moved(image: Tensor, *, down: int, right: int) -> Tensor:
    """``image`` ``(28, 28)`` moved by less than 28 pixels, black where nothing was."""
    result = torch.zeros_like(image)
    for row in range(28):
        for column in range(28):
            if 0 <= row - down < 28 and 0 <= column - right < 28:
                result[row, column] = image[row - down, column - right]
    return result


@pytest.mark.parametrize("pixels", [1, 2])
def test_shift_moves_by_at_most_so_many_pixels_each_way_over_black(pixels: int, garments: Tensor) -> None:
    torch.manual_seed(0)
    image = garments[:1] // 2 + 100  # lit up to its edges
    shifted = augment(image.expand(500, 28, 28), Recipe(shift=pixels))
    reach = range(-pixels, pixels + 1)
    allowed = {moved(image[0], down=down, right=right).numpy().tobytes() for down in reach for right in reach}
    assert {one.numpy().tobytes() for one in shifted} == allowed


def test_erase_blanks_one_rectangle_of_every_image_when_certain() -> None:
    torch.manual_seed(0)
    white = torch.full((300, 28, 28), 255, dtype=torch.uint8)
    black = augment(white, Recipe(erase=1.0)) == 0
    area = black.flatten(1).sum(1)
    height, width = black.any(2).sum(1), black.any(1).sum(1)
    assert (area > 0).all()
    assert torch.equal(area, height * width)
    assert area.min() >= 0.015 * 784
    assert 0.25 * 784 < area.max() <= 0.36 * 784
    assert len(set(zip(height.tolist(), width.tolist(), strict=True))) > 50
    assert (white == 255).all()


def test_erase_leaves_other_images_alone() -> None:
    torch.manual_seed(0)
    erased = augment(torch.full((1_000, 28, 28), 255, dtype=torch.uint8), Recipe(erase=0.3))
    assert (erased == 0).flatten(1).any(1).float().mean() == pytest.approx(0.3, abs=0.06)


# Checkpoints and files


@pytest.fixture(scope="module")
def checkpoint(few_images: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a checkpoint after one epoch."""
    run = training(few_images, num_epochs=1)
    list(run.epochs())
    path = tmp_path_factory.mktemp("checkpoint") / "whole.pt"
    save_checkpoint(path, run.state_dict())
    assert load_checkpoint(path)["history"] == [asdict(run.history[0])]
    return path.read_bytes()


@settings(deadline=None, max_examples=60)
@given(kept=st.floats(0, 1, exclude_max=True))
def test_a_truncated_checkpoint_is_refused_by_name(
    kept: float, checkpoint: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "short.pt"
    path.write_bytes(checkpoint[: int(kept * len(checkpoint))])
    with pytest.raises(CheckpointError, match=r"short\.pt is not a readable checkpoint"):
        load_checkpoint(path)


def test_an_altered_checkpoint_is_refused(few_images: TrainingData, tmp_path: Path) -> None:
    path = tmp_path / "altered.pt"
    run = training(few_images, num_epochs=1)
    save_checkpoint(path, run.state_dict())
    weights = run.model.state_dict()["fc.weight"].numpy().tobytes()
    content = bytearray(path.read_bytes())
    content[content.index(weights) + len(weights) // 2] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"altered\.pt is not a readable checkpoint"):
        load_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@settings(deadline=None, max_examples=100)
@given(content=st.one_of(st.binary(max_size=40), st.binary(max_size=40).map(lambda tail: b"\x80\x02" + tail)))
def test_what_is_no_checkpoint_is_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "other.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"other\.pt is not a readable checkpoint"):
        load_checkpoint(path)


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.pt is not a readable checkpoint"):
        load_checkpoint(tmp_path / "none.pt")


@pytest.mark.parametrize("content", ["Überzug", b"bytes", memoryview(b"view")])
def test_write_aside_makes_the_folder_and_replaces_the_file(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.txt"
    write_aside(path, "old")
    write_aside(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else bytes(content))
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("content", "error"), [(3, TypeError), ("\ud800", UnicodeEncodeError)])
def test_write_aside_that_fails_leaves_the_old_file_and_nothing_beside_it(
    content: Any, error: type[Exception], tmp_path: Path
) -> None:
    path = tmp_path / "file.txt"
    write_aside(path, "old")
    with pytest.raises(error):
        write_aside(path, content)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_aside_that_cannot_replace_leaves_nothing_beside(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        write_aside(tmp_path / "folder", "text")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


# Learning


@pytest.mark.parametrize(("dataset", "num_epochs", "at_least"), [("fashion-mnist", 3, 0.80), ("synthetic", 5, 0.90)])
def test_customnet_learns_from_5000_images(
    dataset: str, num_epochs: int, at_least: float, fashion_mnist_root: Path
) -> None:
    """With the paper's dropout of 0.5, judged on the first 1,000 test images."""
    images = load_images(dataset, "train", root=fashion_mnist_root, size=5_000)
    test = load_images(dataset, "test", root=fashion_mnist_root, size=1_000)
    data = split_training(images, validation_fraction=0.02, seed=0)
    recipe = {"dropout": 0.5, "schedule": "one-cycle", "lr": 3e-3}
    run = training(data, num_epochs=num_epochs, precision="auto", **recipe)
    epochs = list(run.epochs())
    scores = predict_scores(run.model, torch.from_numpy(test.images), normalisation=data.normalisation)
    assert (scores.argmax(1).numpy() == test.labels).mean() > at_least
    assert epochs[-1].train_loss < epochs[0].train_loss


@pytest.mark.parametrize(
    ("torchs", "ours", "arguments"),
    [
        (AdamW, EagerAdamW, {"lr": 1e-2, "fused": True}),
        (SGD, EagerSGD, {"lr": 0.1, "momentum": 0.9}),
    ],
)
def test_our_optimizers_are_torchs(torchs: type[Optimizer], ours: type[Optimizer], arguments: dict[str, Any]) -> None:
    def train(kind: type[Optimizer], other: type[Optimizer]) -> tuple[Tensor, dict[str, Any]]:
        torch.manual_seed(0)
        layer, images = nn.Linear(5, 3), torch.randn(7, 5)
        optimizer = kind(layer.parameters(), **arguments)
        schedule = OneCycleLR(optimizer, max_lr=0.1, total_steps=12, cycle_momentum=False)
        for step in range(10):
            optimizer.zero_grad()
            layer(images).square().sum().backward()
            optimizer.step()
            schedule.step()
            if step == 5:
                state = other(layer.parameters(), **arguments)
                state.load_state_dict(optimizer.state_dict())
                optimizer.load_state_dict(state.state_dict())
        return layer.weight.detach(), optimizer.state_dict()

    (weights, state), (expected, expected_state) = train(ours, torchs), train(torchs, torchs)
    assert torch.equal(weights, expected)
    assert state["param_groups"] == expected_state["param_groups"]
    for number, expected_values in expected_state["state"].items():
        values = state["state"].pop(number)
        assert values.keys() == expected_values.keys()
        assert all(torch.equal(values[name], expected) for name, expected in expected_values.items())
    assert not state["state"]
