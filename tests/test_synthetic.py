import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from fmnist_models.synthetic import draw_garments


def test_same_seed_gives_same_images_and_another_seed_gives_others() -> None:
    images, labels = draw_garments(200, seed=3)
    same_images, same_labels = draw_garments(200, seed=3)
    other_images, other_labels = draw_garments(200, seed=4)
    np.testing.assert_array_equal(images, same_images)
    np.testing.assert_array_equal(labels, same_labels)
    assert not np.array_equal(images, other_images)
    assert not np.array_equal(labels, other_labels)


@settings(deadline=None, max_examples=30)
@given(num_images=st.integers(1, 150), seed=st.integers(0, 2**32))
def test_shapes_types_and_balance(num_images: int, seed: int) -> None:
    images, labels = draw_garments(num_images, seed=seed)
    assert images.shape == (num_images, 28, 28)
    assert images.dtype == np.uint8
    assert labels.shape == (num_images,)
    assert labels.dtype == np.int64
    counts = np.bincount(labels, minlength=10)
    assert len(counts) == 10
    assert set(counts) <= {num_images // 10, -(-num_images // 10)}


def test_every_image_shows_a_garment_on_black_ground() -> None:
    images, _ = draw_garments(2_000, seed=5)
    lit_fraction = (images > 0).mean(axis=(1, 2))
    assert lit_fraction.min() > 0.02
    assert lit_fraction.max() < 0.9
    # The shapes differ from one another: no image is drawn twice.
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)


def test_labels_are_shuffled() -> None:
    _, labels = draw_garments(1_000, seed=6)
    assert np.all(np.bincount(labels[:500], minlength=10) < 100)
    assert not np.array_equal(labels, np.arange(1_000) % 10)


def test_linear_model_learns_something_but_not_enough() -> None:
    """With converged logistic regression the data must be learnable, yet leave room for a convolutional network."""
    train_images, train_labels = draw_garments(5_000, seed=1)
    test_images, test_labels = draw_garments(1_000, seed=2)
    # C gave the best test accuracy among 0.01 .. 5, so that the rival is no straw man.
    classifier = LogisticRegression(C=1.0, tol=1e-3, max_iter=1_000)
    classifier.fit(train_images.reshape(5_000, -1) / 255.0, train_labels)
    accuracy = classifier.score(test_images.reshape(1_000, -1) / 255.0, test_labels)
    assert 0.40 < accuracy < 0.85


@pytest.mark.parametrize("num_images", [0, -7])
def test_too_few_images_are_refused_with_the_number(num_images: int) -> None:
    with pytest.raises(ValueError, match=f"got num_images={num_images}"):
        draw_garments(num_images, seed=0)
