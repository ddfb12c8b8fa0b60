"""K trainings as one: each fold is the training that it would be alone, and any crash costs one epoch at most."""

from __future__ import annotations

import gc
import weakref
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from fmnist_models.checkpoint import load_checkpoint, save_checkpoint
from fmnist_models.data import LabelledImages, TrainingData, load_images
from fmnist_models.epoch import Epoch
from fmnist_models.feature_cache import FeatureCache
from fmnist_models.fold_training import FoldTraining
from fmnist_models.folds import FoldedImages, fold_seed
from fmnist_models.training import Training, TrainingPlan

CPU = torch.device("cpu")
FOLDS, EPOCHS = 3, 2
PLAN = TrainingPlan(network="customnet", hyperparameters={"dropout": 0.3, "shift": 2}, num_epochs=EPOCHS, seed=5)


@pytest.fixture(scope="module")
def images() -> LabelledImages:
    return load_images("synthetic", "train", root=Path("unused"), size=151)


def fold_training(images: LabelledImages, *, folds: int = FOLDS, plan: TrainingPlan = PLAN) -> FoldTraining:
    return FoldTraining(plan, FoldedImages(images, folds, seed=7), device=CPU)


def timeless(history: list[Epoch]) -> list[dict[str, Any]]:
    return [{**asdict(epoch), "epoch_s": 0.0} for epoch in history]


@pytest.fixture(scope="module")
def straight(images: LabelledImages) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    run = fold_training(images)
    list(run.epochs())
    return timeless(run.history)


def test_each_fold_is_the_training_that_it_would_be_alone(
    images: LabelledImages, straight: list[dict[str, Any]]
) -> None:
    folded, alone = FoldedImages(images, FOLDS, seed=7), []
    for fold in range(1, FOLDS + 1):
        run = Training(replace(PLAN, seed=fold_seed(PLAN.seed, fold)), folded.fold(fold), device=CPU)
        list(run.epochs())
        alone += [replace(epoch, epoch=(fold - 1) * EPOCHS + epoch.epoch) for epoch in run.history]
    assert straight == timeless(alone)
    assert [epoch["epoch"] for epoch in straight] == list(range(1, FOLDS * EPOCHS + 1))


@pytest.mark.parametrize("count", range(FOLDS * EPOCHS + 1))
def test_continued_after_any_epoch_it_ends_bit_for_bit_as_one_never_interrupted(
    count: int, images: LabelledImages, straight: list[dict[str, Any]], tmp_path: Path
) -> None:
    interrupted = fold_training(images)
    list(islice(interrupted.epochs(), count))
    save_checkpoint(tmp_path / "last.pt", interrupted.state_dict())
    continued = fold_training(images)
    continued.load_state_dict(load_checkpoint(tmp_path / "last.pt"))
    assert [epoch.epoch for epoch in continued.epochs()] == list(range(count + 1, FOLDS * EPOCHS + 1))
    assert timeless(continued.history) == straight


def test_a_checkpoint_of_other_folds_or_of_another_plan_or_of_a_plain_training_is_refused(
    images: LabelledImages,
) -> None:
    run = fold_training(images)
    list(islice(run.epochs(), 1))
    state = run.state_dict()
    with pytest.raises(ValueError, match="other folds"):
        fold_training(images, folds=4).load_state_dict(state)
    with pytest.raises(ValueError, match="another training"):
        fold_training(images, plan=replace(PLAN, seed=6)).load_state_dict(state)
    plain = Training(PLAN, FoldedImages(images, FOLDS, seed=7).fold(1), device=CPU)
    with pytest.raises(LookupError):
        fold_training(images).load_state_dict(plain.state_dict())
    with pytest.raises(LookupError):
        plain.load_state_dict(state)


def test_images_of_one_fold_at_a_time_are_kept(images: LabelledImages) -> None:
    alive: list[weakref.ref[Any]] = []

    def make(plan: TrainingPlan, data: TrainingData, **options: Any) -> Training:
        gc.collect()
        assert not [ref for ref in alive if ref() is not None]
        alive.append(weakref.ref(data.train.images))
        return Training(plan, data, **options)

    list(FoldTraining(PLAN, FoldedImages(images, FOLDS, seed=7), make=make, device=CPU).epochs())
    assert len(alive) == FOLDS


def test_what_frozen_stages_make_of_one_folds_images_is_not_taken_for_anothers(
    images: LabelledImages, tmp_path: Path
) -> None:
    """Their normalisation differs, and so do their features; with a cache or without one the curve is the same."""
    plan = TrainingPlan(network="resnet18", hyperparameters={"unfreeze": ()}, num_epochs=1, seed=0, precision="fp32")
    torch.manual_seed(0)
    pretrained = plan.build(None).state_dict()
    histories = []
    for cache in (None, FeatureCache(tmp_path, 10**9)):
        run = FoldTraining(plan, FoldedImages(images, 2, seed=7), device=CPU, pretrained=pretrained, cache=cache)
        list(run.epochs())
        histories.append(timeless(run.history))
    assert len(list(tmp_path.iterdir())) == 4, "training and validation images of two folds"
    for with_cache, without in zip(*histories, strict=True):
        assert with_cache == pytest.approx(without, abs=1e-3)
    again = FoldTraining(
        plan, FoldedImages(images, 2, seed=7), device=CPU, pretrained=pretrained, cache=FeatureCache(tmp_path, 10**9)
    )
    list(again.epochs())
    assert timeless(again.history) == histories[1]
