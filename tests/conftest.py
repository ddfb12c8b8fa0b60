"""What several test files share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from postgres import _server, postgresql, postgresql_address, sqlite_address, study_storage  # noqa: F401 (fixtures)

from fmnist_models.data import TrainingData, data_root, is_fashion_mnist_on_disk, load_images, split_training


@pytest.fixture(scope="session", autouse=True)
def _sigint_as_usual() -> None:
    """Tests interrupt processes that they start, which inherit it where SIGINT is ignored: in a shell's background."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Bit-identical results need one thread, and the machine has few."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What frozen stages made of images in an earlier run would hide what makes them now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def fashion_mnist_root() -> Path:
    """The folder that holds the real images."""
    root = data_root()
    if not is_fashion_mnist_on_disk(root):
        pytest.skip("Fashion-MNIST is not on disk: run `fmnist data prepare`, or set FMNIST_DATA_DIR")
    return root


@pytest.fixture(scope="session")
def synthetic_data() -> TrainingData:
    """600 training and 200 validation garments drawn in code."""
    images = load_images("synthetic", "train", root=Path("unused"), size=800)
    return split_training(images, validation_fraction=0.25, seed=0)
