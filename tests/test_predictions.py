from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmnist_models.data import CLASS_NAMES
from search.errors import ExperimentError
from search.records.predictions import Predictions, format_predictions, read_predictions


def made(num_images: int, seed: int) -> Predictions:
    rng = np.random.default_rng(seed)
    scores = rng.normal(scale=5, size=(num_images, 10))
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    return Predictions(rng.integers(0, 10, num_images), probabilities.astype(np.float32))


@given(num_images=st.integers(1, 300), seed=st.integers(0, 99))
def test_a_table_of_predictions_reads_as_it_was(num_images: int, seed: int) -> None:
    written = made(num_images, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "predictions.csv")
        path.write_text(format_predictions(written, class_names=CLASS_NAMES, dataset="synthetic"))
        read = read_predictions(path, class_names=CLASS_NAMES)
    np.testing.assert_array_equal(read.labels, written.labels)
    np.testing.assert_array_equal(read.predicted, written.predicted)
    np.testing.assert_allclose(read.probabilities, written.probabilities, rtol=1e-5, atol=1e-30)
    assert (read.probabilities.dtype, read.labels.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("image,", "picture,", "no table of predictions"),
        ("Trouser,Pullover", "Pullover,Trouser,Trouser", "no table of predictions"),
        ("\n1,", "\n7,", "images 0, 1"),
        (",synthetic", ",1,synthetic", "no table of predictions"),
        ("0.", "7.", "add up to 1"),
    ],
)
def test_a_damaged_table_is_an_error_that_names_the_file(old: str, new: str, message: str, tmp_path: Path) -> None:
    path, text = (
        tmp_path / "predictions.csv",
        format_predictions(made(5, 0), class_names=CLASS_NAMES, dataset="synthetic"),
    )
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ExperimentError, match=message) as caught:
        read_predictions(path, class_names=CLASS_NAMES)
    assert str(path) in str(caught.value)


def test_a_missing_table_is_an_error_that_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="fmnist evaluate"):
        read_predictions(tmp_path / "predictions.csv", class_names=CLASS_NAMES)
