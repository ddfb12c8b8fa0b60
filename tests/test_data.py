import gc
import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.datasets import FashionMNIST

from fmnist_models.data import (
    CLASS_NAMES,
    LabelledImages,
    data_root,
    is_fashion_mnist_on_disk,
    load_images,
    prepare_fashion_mnist,
    split_training,
)
from fmnist_models.errors import DataError

MD5 = dict(FashionMNIST.resources)
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = MD5


@pytest.fixture(scope="module")
def real_train(fashion_mnist_root: Path) -> LabelledImages:
    return load_images("fashion-mnist", "train", root=fashion_mnist_root)


@pytest.fixture(scope="module")
def real_test(fashion_mnist_root: Path) -> LabelledImages:
    return load_images("fashion-mnist", "test", root=fashion_mnist_root)


@pytest.fixture
def linked_root(fashion_mnist_root: Path, tmp_path: Path) -> Path:
    """A folder of its own whose four archives are links to the real ones."""
    raw = tmp_path / "linked" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name in MD5:
        (raw / name).symlink_to(fashion_mnist_root.absolute() / "FashionMNIST" / "raw" / name)
    return tmp_path / "linked"


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


# Reading


@pytest.mark.parametrize(("part", "count"), [("real_train", 60_000), ("real_test", 10_000)])
def test_fashion_mnist_is_complete_and_balanced(part: str, count: int, request: pytest.FixtureRequest) -> None:
    data: LabelledImages = request.getfixturevalue(part)
    assert data.images.shape == (count, 28, 28)
    assert data.images.dtype == np.uint8
    assert data.labels.shape == (count,)
    assert data.labels.dtype == np.int64
    assert np.bincount(data.labels).tolist() == [count // 10] * 10
    assert len(data) == count
    assert len(CLASS_NAMES) == 10


def test_labels_name_what_the_images_show(real_train: LabelledImages) -> None:
    """Trousers leave the image's lower middle black between the legs, bags are wider than trousers."""
    lit = {name: (real_train.images[real_train.labels == i] > 40).mean(0) for i, name in enumerate(CLASS_NAMES)}
    assert lit["Trouser"][20:26, 13:15].mean() < 0.6 < lit["Trouser"][20:26, 9:12].mean()
    assert lit["Bag"].any(0).sum() >= lit["Trouser"].any(0).sum()
    assert lit["Bag"][15:22, 2:26].mean() > 0.8 > lit["Trouser"][15:22, 2:26].mean()


def test_size_takes_the_first_images(
    real_train: LabelledImages, real_test: LabelledImages, fashion_mnist_root: Path
) -> None:
    for part, full in (("train", real_train), ("test", real_test)):
        some = load_images("fashion-mnist", part, root=fashion_mnist_root, size=123)
        np.testing.assert_array_equal(some.images, full.images[:123])
        np.testing.assert_array_equal(some.labels, full.labels[:123])


def test_more_images_than_there_are_is_an_error_with_both_numbers(fashion_mnist_root: Path) -> None:
    with pytest.raises(DataError, match=r"10001 images were asked for, but there are only 10000"):
        load_images("fashion-mnist", "test", root=fashion_mnist_root, size=10_001)


def test_reading_leaves_a_read_only_folder_as_it_was(fashion_mnist_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(fashion_mnist_root / "FashionMNIST" / "raw", root / "FashionMNIST" / "raw")
    folders = [root, root / "FashionMNIST", root / "FashionMNIST" / "raw"]
    for folder in folders:
        folder.chmod(0o555)
    try:
        # For root, chmod forbids nothing; but a folder's time of change shows even a file that came and went.
        before = [(p, p.stat().st_mtime_ns) for p in [root, *sorted(root.rglob("*"))]]
        assert len(load_images("fashion-mnist", "test", root=root)) == 10_000
        assert [(p, p.stat().st_mtime_ns) for p in [root, *sorted(root.rglob("*"))]] == before
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_unpacked_files_beside_the_archives_are_never_read(linked_root: Path, real_test: LabelledImages) -> None:
    for name in MD5:
        (linked_root / "FashionMNIST" / "raw" / name.removesuffix(".gz")).write_bytes(b"not what it seems")
    np.testing.assert_array_equal(load_images("fashion-mnist", "test", root=linked_root).images, real_test.images)


def test_data_root_is_the_explicit_folder_else_the_variable_else_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FMNIST_DATA_DIR", str(tmp_path / "variable"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert data_root(tmp_path / "explicit") == tmp_path / "explicit"
    assert data_root() == tmp_path / "variable"
    monkeypatch.setenv("FMNIST_DATA_DIR", "")
    assert data_root() == tmp_path / "cache" / "fmnist-search"
    monkeypatch.delenv("FMNIST_DATA_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data_root() == tmp_path / "home" / ".cache" / "fmnist-search"
    assert list(tmp_path.iterdir()) == []


# Damage


def truncated(raw: Path) -> str:
    replace(raw / TEST_IMAGES, (raw / TEST_IMAGES).read_bytes()[:-1])
    return TEST_IMAGES


def altered(raw: Path) -> str:
    content = bytearray((raw / TRAIN_LABELS).read_bytes())
    content[len(content) // 2] ^= 1
    replace(raw / TRAIN_LABELS, bytes(content))
    return TRAIN_LABELS


def swapped(raw: Path) -> str:
    replace(raw / TEST_LABELS, (raw / TRAIN_LABELS).read_bytes())
    return TEST_LABELS


@pytest.mark.parametrize("damage", [truncated, altered, swapped])
def test_a_damaged_archive_is_named_with_both_sums_and_a_way_out(
    damage: Callable[[Path], str], linked_root: Path
) -> None:
    raw = linked_root / "FashionMNIST" / "raw"
    name = damage(raw)
    found = hashlib.md5((raw / name).read_bytes()).hexdigest()
    assert found != MD5[name]
    with pytest.raises(DataError) as caught:
        load_images("fashion-mnist", "test", root=linked_root)
    for part in (str(raw / name), MD5[name], found, "delete it", "fmnist data prepare"):
        assert part in str(caught.value)


# Downloading


@contextmanager
def served(handler: Callable[..., BaseHTTPRequestHandler], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real server on this machine in the place of torchvision's mirrors."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class Archives(SimpleHTTPRequestHandler):
    """Serves the files of a folder."""

    def log_message(self, *arguments: object) -> None:
        pass


class Nothing(BaseHTTPRequestHandler):
    """Has no file."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *arguments: object) -> None:
        pass


def left_behind(root: Path) -> list[Path]:
    """Files, and folders for files that are on their way."""
    return [path for path in root.rglob("*") if path.is_file() or path.name.startswith(".")]


def test_missing_archives_are_downloaded_and_nothing_else_is_left(
    fashion_mnist_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real_test: LabelledImages
) -> None:
    root = tmp_path / "not" / "there" / "yet"
    with served(partial(Archives, directory=str(fashion_mnist_root / "FashionMNIST" / "raw")), monkeypatch):
        images = load_images("fashion-mnist", "test", root=root).images
    np.testing.assert_array_equal(images, real_test.images)
    assert sorted(left_behind(root)) == sorted(root / "FashionMNIST" / "raw" / name for name in MD5)
    assert is_fashion_mnist_on_disk(root)


def test_a_download_keeps_the_archives_that_are_there(
    fashion_mnist_root: Path, linked_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = linked_root / "FashionMNIST" / "raw"
    (raw / TEST_LABELS).unlink()
    assert not is_fashion_mnist_on_disk(linked_root)
    with served(partial(Archives, directory=str(fashion_mnist_root / "FashionMNIST" / "raw")), monkeypatch):
        prepare_fashion_mnist(linked_root)
    assert {path.name: path.is_symlink() for path in raw.iterdir()} == {name: name != TEST_LABELS for name in MD5}


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # torchvision drops the 404 unread
def test_a_server_without_the_files_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(Nothing, monkeypatch), pytest.raises(DataError, match=r"(?s)download failed .*404") as caught:
        prepare_fashion_mnist(tmp_path)
    message = str(caught.value)
    del caught
    gc.collect()  # so that the warning comes here, not in another test
    for part in (str(tmp_path), "--data-dir", "FMNIST_DATA_DIR", "dataset: synthetic"):
        assert part in message
    assert "\n)" not in message
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("sent_first", [None, 40_000], ids=["before it answers", "in the middle of a file"])
def test_a_server_that_hangs_is_an_error_after_the_time_limit_and_leaves_nothing(
    sent_first: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, requests = threading.Event(), []

    class Hanging(Nothing):
        def do_GET(self) -> None:
            requests.append(self.path)
            if sent_first is None:
                go_on.wait(30)
            with suppress(ConnectionError):
                self.send_response(200)
                self.send_header("Content-Length", "80000")
                self.end_headers()
                self.wfile.write(bytes(sent_first or 0))
                go_on.wait(30)
                self.wfile.write(bytes(80_000 - (sent_first or 0)))

    threads = set(threading.enumerate())
    with served(Hanging, monkeypatch):
        try:
            start_s = time.perf_counter()
            with pytest.raises(DataError, match="download took longer than 1 s"):
                prepare_fashion_mnist(tmp_path, timeout_s=1)
            assert time.perf_counter() - start_s < 5
            # torchvision asks once for redirects and once for the file.
            assert len(requests) == (1 if sent_first is None else 2)
            assert left_behind(tmp_path) == []
        finally:
            go_on.set()
        # The abandoned download comes to an end of its own and brings nothing back.
        for thread in set(threading.enumerate()) - threads:
            if "fetch" in thread.name:
                thread.join(10)
                assert not thread.is_alive()
    assert left_behind(tmp_path) == []


def test_a_root_that_cannot_be_written_is_an_error_that_says_where_to_point(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match=r"nothing can be written there.*--data-dir"):
        prepare_fashion_mnist(tmp_path / "file" / "data")


# Synthetic images


def test_synthetic_training_and_test_images_differ() -> None:
    train = load_images("synthetic", "train", root=Path("unused"))
    test = load_images("synthetic", "test", root=Path("unused"))
    assert (len(train), len(test)) == (6_000, 1_000)
    assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in test.images}
    assert not Path("unused").exists()


def test_synthetic_size_is_the_number_of_images() -> None:
    assert len(load_images("synthetic", "train", root=Path("unused"), size=7_001)) == 7_001


# Splitting


def numbered(counts: list[int]) -> LabelledImages:
    """Images of so many of each class, in mixed order, whose first two pixels hold the image's number."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts), dtype=np.int64), counts))
    images = np.zeros((len(labels), 28, 28), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.divmod(np.arange(len(labels)), 256)
    return LabelledImages(images, labels)


def numbers(data: LabelledImages) -> list[int]:
    return (data.images[:, 0, 0].astype(int) * 256 + data.images[:, 0, 1]).tolist()


class_counts = st.lists(st.integers(5, 40), min_size=10, max_size=10)


@settings(deadline=None, max_examples=60)
@given(counts=class_counts, fraction=st.floats(0.25, 0.75), seed=st.integers(0, 2**32 - 1))
def test_split_is_disjoint_complete_and_stratified(counts: list[int], fraction: float, seed: int) -> None:
    images = numbered(counts)
    data = split_training(images, validation_fraction=fraction, seed=seed)
    assert sorted(numbers(data.train) + numbers(data.validation)) == list(range(len(images)))
    for part in (data.train, data.validation):
        np.testing.assert_array_equal(part.labels, images.labels[numbers(part)])
    assert abs(len(data.validation) - fraction * len(images)) <= 1
    shares = np.array(counts) * len(data.validation) / len(images)
    assert np.abs(np.bincount(data.validation.labels, minlength=10) - shares).max() < 1 + 1e-9


@settings(deadline=None, max_examples=30)
@given(counts=class_counts, seed=st.integers(0, 2**32 - 1))
def test_split_is_the_same_for_the_same_seed_and_another_for_another(counts: list[int], seed: int) -> None:
    images = numbered(counts)
    first, again, other = (
        numbers(split_training(images, validation_fraction=0.5, seed=s).validation) for s in (seed, seed, seed ^ 1)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("counts", "fraction"), [([2] * 10, 0.1), ([2] * 10, 0.9), ([10] * 9 + [1], 0.5), ([10] * 10, 0.0), ([0] * 10, 0.5)]
)
def test_too_few_images_to_split_is_an_error_with_the_numbers(counts: list[int], fraction: float) -> None:
    with pytest.raises(
        DataError, match=f"{sum(counts)} training images cannot be split with validation_fraction {fraction:g}"
    ):
        split_training(numbered(counts), validation_fraction=fraction, seed=0)


def test_normalisation_is_that_of_the_training_images_alone(real_train: LabelledImages) -> None:
    data = split_training(real_train.first(2_000), validation_fraction=0.5, seed=3)
    pixels = data.train.images.astype(np.float64) / 255
    assert data.normalisation.mean == pytest.approx(np.mean(pixels), rel=1e-12)
    assert data.normalisation.std == pytest.approx(np.std(pixels), rel=1e-12)
    assert data.normalisation.mean != pytest.approx(np.mean(data.validation.images) / 255, rel=1e-6)


def test_images_of_one_colour_have_a_deviation_to_divide_by() -> None:
    grey = LabelledImages(np.full((40, 28, 28), 7, np.uint8), np.arange(40, dtype=np.int64) % 10)
    normalisation = split_training(grey, validation_fraction=0.5, seed=0).normalisation
    assert normalisation.mean == pytest.approx(7 / 255)
    assert normalisation.std == pytest.approx(1 / 255)
