from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binomtest

from fmnist_models.data import CLASS_NAMES
from fmnist_models.epoch import DIRECTIONS, is_better
from fmnist_models.figures import save_confusion_matrix
from fmnist_models.metrics import ClassScores, score, wilson_interval

Pairs = list[tuple[int, int]]


def naive_confusion(pairs: Pairs, *, num_classes: int) -> list[list[int]]:
    """Counts by true and predicted class, one pair after the other."""
    counts = [[0] * num_classes for _ in range(num_classes)]
    for true in range(num_classes):
        for predicted in range(num_classes):
            for pair in pairs:
                counts[true][predicted] += pair == (true, predicted)
    return counts


def naive_scores(confusion: list[list[int]], wanted: int) -> tuple[float, float, float, int]:
    """Precision, recall, F1 and support of one class."""
    hits = confusion[wanted][wanted]
    predicted = sum(row[wanted] for row in confusion)
    support = sum(confusion[wanted])
    precision = hits / predicted if predicted else 0.0
    recall = hits / support if support else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return precision, recall, f1, support


def values(scores: ClassScores) -> tuple[float, float, float, int]:
    return scores.precision, scores.recall, scores.f1, scores.support


num_classes_and_pairs = st.integers(2, 10).flatmap(
    lambda n: st.tuples(
        st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), min_size=1, max_size=60)
    )
)


@settings(deadline=None, max_examples=150)
@given(num_classes_and_pairs)
def test_scores_are_those_of_naive_counting(case: tuple[int, Pairs]) -> None:
    num_classes, pairs = case
    labels, predicted = np.array(pairs, dtype=np.int64).T
    found = score(labels, predicted, class_names=CLASS_NAMES[:num_classes])

    confusion = naive_confusion(pairs, num_classes=num_classes)
    classes = [naive_scores(confusion, wanted) for wanted in range(num_classes)]
    supports = [support for *_, support in classes]
    assert [list(row) for row in found.confusion] == confusion
    assert found.num_images == len(pairs)
    assert found.accuracy == sum(true == guess for true, guess in pairs) / len(pairs)
    assert [one.name for one in found.classes] == list(CLASS_NAMES[:num_classes])
    for one, expected in zip(found.classes, classes, strict=True):
        assert values(one) == pytest.approx(expected)
    there = [one for one, support in zip(classes, supports, strict=True) if support]
    macro = [sum(one[i] for one in there) / len(there) for i in range(3)]
    weighted = [
        sum(one[i] * support for one, support in zip(classes, supports, strict=True)) / len(pairs) for i in range(3)
    ]
    assert values(found.macro) == pytest.approx((*macro, len(pairs)))
    assert values(found.weighted) == pytest.approx((*weighted, len(pairs)))
    assert (found.accuracy_low, found.accuracy_high) == wilson_interval(
        sum(true == guess for true, guess in pairs), len(pairs)
    )


def test_a_class_that_is_never_predicted_has_precision_0_without_a_warning() -> None:
    labels = np.array([0, 1, 2, 2])
    found = score(labels, np.zeros_like(labels), class_names=("a", "b", "c"))
    assert [one.precision for one in found.classes] == [0.25, 0.0, 0.0]
    assert [one.support for one in found.classes] == [1, 1, 2]


def test_a_class_without_images_is_left_out_of_the_macro_average_which_says_so() -> None:
    labels = np.array([0, 0, 1, 1])
    perfect = score(labels, labels, class_names=("a", "b", "c"))
    assert values(perfect.macro) == (1.0, 1.0, 1.0, 4)
    assert perfect.macro.name == "macro average of the 2 classes with images"
    assert score(labels, labels, class_names=("a", "b")).macro.name == "macro average"
    wrong = score(labels, np.array([0, 2, 1, 1]), class_names=("a", "b", "c"))
    assert wrong.macro.recall == 0.75, "what was taken for it counts against the class that it is"


@settings(deadline=None)
@given(st.integers(1, 20_000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_wilson_interval_is_scipys(case: tuple[int, int]) -> None:
    successes, trials = case
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_interval_holds_the_proportion_even_at_its_ends() -> None:
    for trials in range(1, 60):
        for successes in range(trials + 1):
            low, high = wilson_interval(successes, trials)
            assert 0 <= low <= successes / trials <= high <= 1, (successes, trials)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 5), (6, 5), (-3, -2)])
def test_an_impossible_proportion_is_refused_with_its_numbers(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match=f"got successes={successes}, trials={trials}"):
        wilson_interval(successes, trials)


def test_better_is_more_accuracy_and_less_loss_and_never_the_same() -> None:
    assert DIRECTIONS == {"val_accuracy": "maximize", "val_loss": "minimize"}
    for metric, better, worse in (("val_accuracy", 0.9, 0.8), ("val_loss", 0.1, 0.2)):
        assert is_better(better, worse, metric=metric)
        assert not is_better(worse, better, metric=metric)
        assert not is_better(better, better, metric=metric)
        assert is_better(worse, None, metric=metric)
        assert not is_better(float("nan"), worse, metric=metric)


def test_confusion_matrix_is_a_picture_with_a_dark_diagonal(tmp_path: Path) -> None:
    confusion = np.full((10, 10), 3) + np.diag([973] * 10)
    confusion[4] = 0  # a class without images
    path = tmp_path / "confusion.png"
    save_confusion_matrix(confusion.tolist(), class_names=CLASS_NAMES, title="Test set", path=path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 800
        red = np.asarray(picture.convert("RGB"))[..., 0].astype(int)
    # Nine of the ten cells on the diagonal, and the top of the colour bar, are of the colour map's darkest blue.
    assert 0.03 < (red == 8).mean() < 0.12
    assert (red > 240).mean() > 0.5


def test_confusion_matrix_colours_each_row_by_its_own_shares(tmp_path: Path) -> None:
    """A hundred times the images of one class change the numbers in its row, not the colours."""
    pictures = []
    for factor in (1, 100):
        path = tmp_path / f"{factor}.png"
        confusion = np.array([[1 * factor, 1 * factor], [0, 7]])
        save_confusion_matrix(confusion.tolist(), class_names=("a", "b"), title="", path=path)
        with Image.open(path) as picture:
            pictures.append(np.asarray(picture.convert("RGB")).astype(int))
    different = (pictures[0] != pictures[1]).any(2).mean()
    assert 0 < different < 0.01
