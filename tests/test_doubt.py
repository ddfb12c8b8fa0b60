"""How much a classifier says of its own doubt: calibrated probabilities, and pictures unlike the training images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional
from unlike_garments import (
    Draw,
    disc,
    gaussian_noise,
    half_plane,
    handwritten_digit,
    lines,
    noise,
    printed_digit,
    read,
    square,
    triangle,
)

from fmnist_models.data import load_images, split_training
from fmnist_models.temperature import fit_temperature
from fmnist_models.training_distance import TrainingDistance, distances, measure_distance

LEAST_FLAGGED: dict[Draw, float] = {
    noise: 0.95,
    gaussian_noise: 0.95,
    handwritten_digit: 0.7,
    printed_digit: 0.9,
    disc: 0.9,
    square: 0.9,
    triangle: 0.9,
    lines: 0.9,
    half_plane: 0.9,
}


@pytest.fixture(scope="module")
def distance(fashion_mnist_root: Path) -> TrainingDistance:
    """That of the first 5,000 images."""
    images = load_images("fashion-mnist", "train", root=fashion_mnist_root, size=5000)
    data = split_training(images, validation_fraction=0.1, seed=0)
    return measure_distance(data.train.images, data.validation.images)


def flagged(distance: TrainingDistance, images: npt.NDArray[np.uint8]) -> float:
    return float((distances(distance, images) > distance.threshold).mean())


@pytest.mark.parametrize("draw", LEAST_FLAGGED, ids=lambda draw: draw.__name__)
def test_noise_digits_and_shapes_are_flagged(draw: Draw, distance: TrainingDistance) -> None:
    share = flagged(distance, read(draw))
    print(f"{draw.__name__}: {share:.0%}")
    assert share >= LEAST_FLAGGED[draw]


def test_inverted_and_shuffled_garments_are_flagged(distance: TrainingDistance, fashion_mnist_root: Path) -> None:
    images = load_images("fashion-mnist", "test", root=fashion_mnist_root, size=200).images
    rng = np.random.default_rng(0)
    shuffled = np.stack([rng.permutation(image.ravel()).reshape(28, 28) for image in images])
    assert flagged(distance, 255 - images) >= 0.95
    assert flagged(distance, shuffled) >= 0.95
    assert flagged(distance, np.zeros((1, 28, 28), np.uint8)) == 1


def test_about_one_in_twenty_new_garments_is_flagged(distance: TrainingDistance, fashion_mnist_root: Path) -> None:
    share = flagged(distance, load_images("fashion-mnist", "test", root=fashion_mnist_root).images)
    print(f"test images: {share:.1%}")
    assert 0.02 <= share <= 0.08


@pytest.mark.parametrize(("count", "most"), [(1, 0), (19, 0), (20, 1), (200, 10)])
def test_at_most_one_in_twenty_validation_images_is_above_the_threshold(count: int, most: int) -> None:
    images = load_images("synthetic", "train", root=Path("unused"), size=300 + count).images
    found = measure_distance(images[:300], images[300:])
    assert (distances(found, images[300:]) > found.threshold).sum() == most
    assert flagged(found, images[:300]) == 0


def test_a_distance_is_that_to_the_nearest_reference() -> None:
    images = load_images("synthetic", "train", root=Path("unused"), size=60).images
    found = measure_distance(images[:40], images[40:])
    ours = found.references.float().numpy()
    alone = measure_distance(images[40:], images[:40]).references.float().numpy()
    expected = np.sqrt(((alone[:, None] - ours[None]) ** 2).sum(2)).min(1)
    np.testing.assert_allclose(distances(found, images[40:]), expected, rtol=0.01)


@pytest.mark.parametrize("references", [torch.zeros(3, 147), torch.zeros(0, 147).half(), torch.zeros(3, 7).half()])
def test_references_of_another_kind_are_refused(references: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"references must be finite float16 \(R, 147\)"):
        TrainingDistance(references, threshold=1.0)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_of_drawn_labels_is_found(temperature: float) -> None:
    torch.manual_seed(0)
    scores = 4 * torch.randn(4000, 10)
    labels = torch.multinomial((scores / temperature).softmax(1), 1).squeeze(1)
    found = fit_temperature(scores, labels)
    assert found == pytest.approx(temperature, rel=0.1)
    best, grid = functional.cross_entropy(scores / found, labels), np.geomspace(0.1, 10, 50)
    assert all(functional.cross_entropy(scores / float(other), labels) > best - 1e-3 for other in grid)


def test_few_correct_answers_do_not_make_a_model_sure() -> None:
    scores, labels = 3 * torch.eye(10), torch.arange(10)
    assert (scores / fit_temperature(scores, labels)).softmax(1).max() < 0.97
