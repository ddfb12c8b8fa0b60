"""The training images in K parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fmnist_models.data import LabelledImages, load_images
from fmnist_models.errors import DataError
from fmnist_models.folds import fold_seed, split_folds


@pytest.fixture(scope="module")
def images(fashion_mnist_root: Path) -> LabelledImages:
    """The first 2,003 real ones: no number that ten classes or any folds divide."""
    return load_images("fashion-mnist", "train", root=fashion_mnist_root, size=2003)


def _rows(images: LabelledImages) -> list[bytes]:
    return [image.tobytes() for image in images.images]


@pytest.mark.parametrize("folds", [2, 5, 20])
def test_each_image_is_held_out_once_and_each_class_is_shared_evenly(images: LabelledImages, folds: int) -> None:
    parts = [split_folds(images, folds=folds, fold=fold, seed=3) for fold in range(1, folds + 1)]
    assert sorted(row for part in parts for row in _rows(part.validation)) == sorted(_rows(images))
    counts = np.array([np.bincount(part.validation.labels, minlength=10) for part in parts])
    assert (np.ptp(counts, axis=0) <= 1).all()
    assert np.ptp(counts.sum(axis=1)) <= 1
    for part in parts:
        assert sorted(_rows(part.train) + _rows(part.validation)) == sorted(_rows(images))


def test_a_fold_is_decided_by_the_seed_and_keeps_images_with_their_labels(images: LabelledImages) -> None:
    labels = dict(zip(_rows(images), images.labels, strict=True))
    first, again, other = (split_folds(images, folds=5, fold=2, seed=seed).validation for seed in (1, 1, 2))
    assert np.array_equal(first.images, again.images)
    assert _rows(first) != _rows(other)
    assert [labels[row] for row in _rows(first)] == list(first.labels)


def test_a_fold_is_normalised_as_what_it_trains_on_is(images: LabelledImages) -> None:
    folds = [split_folds(images, folds=3, fold=fold, seed=0) for fold in (1, 2, 3)]
    for fold in folds:
        assert fold.normalisation.mean == pytest.approx(fold.train.images.mean() / 255)
        assert fold.normalisation.std == pytest.approx(fold.train.images.std() / 255)
    assert len({fold.normalisation for fold in folds}) == 3


def test_too_few_images_of_a_class_are_refused_with_how_many_there_are(images: LabelledImages) -> None:
    least = np.bincount(images.first(100).labels).min()
    with pytest.raises(DataError, match=rf"100 training images .* {least + 1} folds: there are only {least} of one"):
        split_folds(images.first(100), folds=least + 1, fold=1, seed=0)


@pytest.mark.parametrize(("folds", "fold"), [(1, 1), (5, 0), (5, 6)])
def test_there_are_two_or_more_folds_counted_from_1(images: LabelledImages, folds: int, fold: int) -> None:
    with pytest.raises(ValueError, match=f"fold {fold} of {folds}"):
        split_folds(images, folds=folds, fold=fold, seed=0)


def test_each_fold_has_a_seed_of_its_own() -> None:
    assert len({fold_seed(seed, fold) for seed in range(20) for fold in range(1, 21)}) == 400
