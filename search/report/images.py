"""The images that a search was about, if they are on this machine; nothing is downloaded for a page.

Loads torchvision, and with it torch, when images are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fmnist_models.errors import UserError
from search.report.material import Material

_MAX_SYNTHETIC = 60_000


@dataclass(frozen=True)
class Images:
    """Those searched on: ``train`` and ``test`` images ``(N, 28, 28)`` uint8, and labels ``(N,)`` int64 in 0…9."""

    class_names: tuple[str, ...]
    train: npt.NDArray[np.uint8]
    train_labels: npt.NDArray[np.int64]
    test: npt.NDArray[np.uint8]
    test_labels: npt.NDArray[np.int64]


def load_searched_images(material: Material, *, data_dir: Path | None) -> Images | str:
    """The images of the configuration, or why they are not there.

    ``data_dir``: as in `fmnist_models.data.data_root`.
    """
    from fmnist_models.data import CLASS_NAMES, DATASETS, data_root, is_fashion_mnist_on_disk, load_images

    root = data_root(data_dir)
    if material.dataset not in DATASETS:
        return "The configuration names a data set that is not known here."
    if material.dataset == "fashion-mnist" and not is_fashion_mnist_on_disk(root):
        return f"Fashion-MNIST is not under {root}."
    sizes = [material.settings.get(key) for key in ("train_size", "test_size")]
    if not all(size is None or (type(size) is int and 0 < size <= _MAX_SYNTHETIC) for size in sizes):
        return "The configuration asks for numbers of images that there are not."
    try:
        train = load_images(material.dataset, "train", root=root, size=sizes[0])
        test = load_images(material.dataset, "test", root=root, size=sizes[1])
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"The images cannot be read: {error.strerror}."
    return Images(CLASS_NAMES, train.images, train.labels, test.images, test.labels)
