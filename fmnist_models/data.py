"""Images: Fashion-MNIST, or synthetic garments; subsets and the validation split."""

from __future__ import annotations

import gzip
import hashlib
import os
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from fmnist_models.classes import CLASS_NAMES as CLASS_NAMES
from fmnist_models.errors import DataError
from fmnist_models.paths import cache_folder, expand_home
from fmnist_models.synthetic import draw_garments

DATASETS = ("fashion-mnist", "synthetic")
DATA_DIR_VARIABLE = "FMNIST_DATA_DIR"
_RAW = Path("FashionMNIST", "raw")
# Name → MD5 sum, images first, as torchvision.datasets.FashionMNIST has them; loading that takes two seconds.
_ARCHIVES = {
    "train": {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    },
    "test": {
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
}
_MD5 = _ARCHIVES["train"] | _ARCHIVES["test"]
_FASHION_MNIST_TRAINING = 60_000
_SYNTHETIC_SIZES = {"train": 6_000, "test": 1_000}
_SYNTHETIC_SEEDS = {"train": 0, "test": 1}

Part = Literal["train", "test"]


@dataclass(frozen=True)
class LabelledImages:
    """``images`` ``(N, 28, 28)`` uint8, 0 is background; ``labels`` ``(N,)`` int64 in 0…9."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int | None) -> LabelledImages:
        """The first ``count`` of them, all if ``None``.

        Raises:
            DataError: there are fewer.
        """
        if count is not None and count > len(self):
            raise DataError(
                f"{count} images were asked for, but there are only {len(self)}; ask for at most {len(self)}"
            )
        return LabelledImages(self.images[:count], self.labels[:count])


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of the training images' pixels, scaled to 0…1."""

    mean: float
    std: float


@dataclass(frozen=True)
class TrainingData:
    """What a trial sees: images to train on and images to choose by, never the test set."""

    train: LabelledImages
    validation: LabelledImages
    normalisation: Normalisation


def data_root(explicit: Path | None = None) -> Path:
    """Where Fashion-MNIST is: ``explicit``, else ``$FMNIST_DATA_DIR``, else a cache folder under the user's home."""
    named = explicit or os.environ.get(DATA_DIR_VARIABLE)
    return expand_home(named) if named else cache_folder()


def load_images(dataset: str, part: Part, *, root: Path, size: int | None = None) -> LabelledImages:
    """The training or the test part of a data set, or its first ``size`` images.

    Fashion-MNIST is downloaded to ``root`` if it is not there; ``root`` may be read-only if it is. The synthetic
    set has 6,000 training and 1,000 test images unless ``size`` asks for another number.

    Raises:
        DataError: files damaged or missing and not downloadable, or fewer than ``size`` images.
        ValueError: no such data set.
    """
    if dataset not in DATASETS:
        raise ValueError(f"there is no data set {dataset!r}; valid: {', '.join(DATASETS)}")
    if dataset == "synthetic":
        return LabelledImages(*draw_garments(size or _SYNTHETIC_SIZES[part], seed=_SYNTHETIC_SEEDS[part]))
    prepare_fashion_mnist(root)
    return _read_fashion_mnist(root, part).first(size)


def count_training_images(dataset: str, size: int | None) -> int:
    """How many images `load_images` gives of the training part; looks at no file."""
    return size or (_SYNTHETIC_SIZES["train"] if dataset == "synthetic" else _FASHION_MNIST_TRAINING)


def split_training(images: LabelledImages, *, validation_fraction: float, seed: int) -> TrainingData:
    """Splits off a stratified validation part, the same for the same ``seed``.

    Raises:
        DataError: too few images for one of each class in both parts.
    """
    from sklearn.model_selection import train_test_split  # half a second, for which no trial shall wait

    try:
        kept, held_out = train_test_split(
            np.arange(len(images)), test_size=validation_fraction, stratify=images.labels, random_state=seed
        )
    except ValueError as error:
        raise DataError(
            f"{len(images)} training images cannot be split with validation_fraction {validation_fraction:g}: {error}"
        ) from error
    return divide_images(images, train=kept, validation=held_out)


def divide_images(
    images: LabelledImages, *, train: npt.NDArray[np.int64], validation: npt.NDArray[np.int64]
) -> TrainingData:
    """Copies of the images at these indices, in the order in which they lie, normalised as those to train on are."""
    kept, held_out = (
        LabelledImages(images.images[part], images.labels[part]) for part in (np.sort(train), np.sort(validation))
    )
    return TrainingData(kept, held_out, measure_normalisation(kept))


def join_parts(data: TrainingData) -> TrainingData:
    """All images to train on. Those to validate on are the same as before, and by then seen: what is measured on them
    is nothing to choose by."""
    train = LabelledImages(
        np.concatenate([data.train.images, data.validation.images]),
        np.concatenate([data.train.labels, data.validation.labels]),
    )
    return TrainingData(train, data.validation, measure_normalisation(train))


def measure_normalisation(images: LabelledImages) -> Normalisation:
    """That of these images; whatever their order, but for the last digits."""
    # At least one grey level: images of one colour have no deviation to divide by.
    return Normalisation(float(images.images.mean()) / 255, max(float(images.images.std()), 1.0) / 255)


def is_fashion_mnist_on_disk(root: Path) -> bool:
    """Whether all four archives are there; says nothing about their contents."""
    return all((root / _RAW / name).is_file() for name in _MD5)


def prepare_fashion_mnist(root: Path, *, timeout_s: float = 600.0) -> None:
    """Makes sure that the four archives are under ``root`` and are what they should be; downloads them if not there.

    Raises:
        DataError: an archive differs from its MD5 sum, or the download failed or took longer than ``timeout_s``.
    """
    if not is_fashion_mnist_on_disk(root):
        _download(root, timeout_s=timeout_s)
    for name, expected in _MD5.items():
        path = root / _RAW / name
        found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        if found != expected:
            raise DataError(
                f"{path} is not the Fashion-MNIST file it should be: expected MD5 {expected}, found {found} "
                f"({path.stat().st_size} bytes); delete it and run `fmnist data prepare`"
            )


def _download(root: Path, *, timeout_s: float) -> None:
    """Downloads into a folder aside and moves whole, checked files into place; files that are there already stay."""
    from torchvision.datasets import FashionMNIST

    target = root / _RAW
    try:
        target.mkdir(parents=True, exist_ok=True)
        staging = tempfile.TemporaryDirectory(dir=root, prefix=".download-", ignore_cleanup_errors=True)
    except OSError as error:
        raise DataError(
            f"Fashion-MNIST is not complete under {root}, and nothing can be written there ({error.strerror}); "
            f"name the folder that holds FashionMNIST/raw with --data-dir or ${DATA_DIR_VARIABLE}"
        ) from error
    failure: list[BaseException] = []

    def fetch() -> None:
        try:
            FashionMNIST(staging.name, download=True)
        except BaseException as error:
            failure.append(error)

    with staging:
        # torchvision offers no time limit; a daemon thread can be left behind when the time is up.
        thread = threading.Thread(target=fetch, daemon=True)
        thread.start()
        thread.join(timeout_s)
        if thread.is_alive() or failure:
            reason = f"took longer than {timeout_s:g} s" if thread.is_alive() else f"failed ({str(failure[0]).strip()})"
            raise DataError(
                f"Fashion-MNIST is not under {root} and its download {reason}; name the folder that holds "
                f"FashionMNIST/raw with --data-dir or ${DATA_DIR_VARIABLE}, or use `dataset: synthetic`"
            )
        for name in _MD5:
            if not (target / name).exists():
                os.replace(Path(staging.name) / _RAW / name, target / name)


def _read_fashion_mnist(root: Path, part: Part) -> LabelledImages:
    """From the archives, as ``prepare_fashion_mnist`` leaves them; unpacked files, which anybody may have altered, are
    never read."""

    def unpack(name: str, *, offset: int) -> npt.NDArray[np.uint8]:
        return np.frombuffer(gzip.decompress((root / _RAW / name).read_bytes()), np.uint8, offset=offset).copy()

    images, labels = _ARCHIVES[part]
    # The heads of IDX files: a magic number and each dimension, four bytes each.
    pictures = unpack(images, offset=16).reshape(-1, 28, 28)
    return LabelledImages(pictures, unpack(labels, offset=8).astype(np.int64))
