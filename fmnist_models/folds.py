"""K-fold cross-validation: the training images in K parts, each of which is held out once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fmnist_models.data import LabelledImages, Normalisation, TrainingData, divide_images, measure_normalisation
from fmnist_models.errors import DataError
from fmnist_models.seeds import derive_seed

_FOLD = 0x666F6C64  # keeps a fold's seed apart from those that a training derives for its epochs


@dataclass(frozen=True)
class FoldedImages:
    """Training images that each trial of a search splits in the same way."""

    images: LabelledImages
    folds: int
    seed: int

    @property
    def num_validation(self) -> int:
        """About how many images are held out in each fold."""
        return len(self.images) // self.folds

    @property
    def normalisation(self) -> Normalisation:
        """That of all images, as a model has it that was trained on all."""
        return measure_normalisation(self.images)

    def fold(self, number: int) -> TrainingData:
        """Fold ``number``, from 1, as ``split_folds`` has it."""
        return split_folds(self.images, folds=self.folds, fold=number, seed=self.seed)

    def held_out(self, number: int) -> npt.NDArray[np.int64]:
        """The indices of the images that fold ``number`` validates on, in the order in which it has them."""
        return np.sort(_split(self.images, self.folds, seed=self.seed)[number - 1][1])


def split_folds(images: LabelledImages, *, folds: int, fold: int, seed: int) -> TrainingData:
    """Fold ``fold`` of ``folds``, counted from 1: one part of the images held out to validate on, the others to train.

    For one ``seed`` each image is held out in exactly one fold, and each class has as many images in each part, give
    or take one (scikit-learn's ``StratifiedKFold``). The arrays are copies, normalised as those to train on are.

    Raises:
        ValueError: there is no such fold.
        DataError: too few images for one of each class in each part.
    """
    if folds < 2 or not 1 <= fold <= folds:
        raise ValueError(f"2 <= folds and 1 <= fold <= folds must hold, but got fold {fold} of {folds}")
    check_folds(images, folds=folds)
    train, validation = _split(images, folds, seed=seed)[fold - 1]
    return divide_images(images, train=train, validation=validation)


def _split(images: LabelledImages, folds: int, *, seed: int) -> list[tuple[npt.NDArray[np.int64], ...]]:
    """Each fold's indices to train on and to validate on."""
    from sklearn.model_selection import StratifiedKFold  # half a second, for which trials without folds shall not wait

    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return list(splitter.split(images.labels, images.labels))


def check_folds(images: LabelledImages, *, folds: int) -> None:
    """Makes sure that there is an image of each class for each part.

    Raises:
        DataError: there is not.
    """
    counts = np.unique(images.labels, return_counts=True)[1]
    if not len(counts) or counts.min() < folds:
        raise DataError(
            f"{len(images)} training images cannot be split into {folds} folds: there are only "
            f"{counts.min() if len(counts) else 0} of one class, and each fold needs one of each"
        )


def fold_seed(seed: int, fold: int) -> int:
    """The seed of a training that has ``seed``, in fold ``fold`` of it."""
    return derive_seed(seed, _FOLD, fold)
