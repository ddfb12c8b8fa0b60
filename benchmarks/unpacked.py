"""Fashion-MNIST as torchvision's own users have it: unpacked once, before any clock runs."""

from __future__ import annotations

from pathlib import Path

from torchvision.datasets import FashionMNIST

from fmnist_models.data import data_root, prepare_fashion_mnist


def unpack_images(folder: Path) -> Path:
    """A folder below ``folder`` that holds the archives, as links, and beside them what is in them."""
    root, unpacked = data_root(), folder / "images"
    prepare_fashion_mnist(root)
    raw = unpacked / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, _ in FashionMNIST.resources:
        (raw / name).symlink_to((root / "FashionMNIST" / "raw" / name).absolute())
    FashionMNIST(str(unpacked), download=True)
    return unpacked
