"""Pictures of an experiment's best trial for dashboards: which class it took for which, and where it was surest and
wrong. Neither Ray nor torch, but for the test images, which torchvision reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fmnist_models.errors import UserError, printable
from fmnist_models.figures import save_confusion_matrix, save_mistakes
from search.records.evaluation_file import Evaluation, read_evaluation
from search.records.experiment import Experiment
from search.records.predictions import read_predictions

_MAX_MISTAKES = 25
_MAX_IMAGES = 10_000  # of the test set


def draw_pictures(experiment: Experiment, folder: Path, *, data_dir: Path | None) -> Iterator[tuple[int, Path]]:
    """Writes the pictures into ``folder``, one after the other: the trial's number and the file. None if the
    experiment was not tested; that of the mistakes only if the test images are on this machine, in ``data_dir`` or
    where they usually are: nothing is downloaded.

    Raises:
        ExperimentError: the test result or the table of predictions is damaged.
    """
    test = read_evaluation(experiment.evaluation)
    if test is None:
        return
    names = [_shown(row.name) for row in test.scores.classes]
    on = f"trial {test.trial}, epoch {test.epoch}: {test.scores.num_images:,} {test.dataset} test images"
    confusion = folder / "confusion_matrix.png"
    save_confusion_matrix(test.scores.confusion, class_names=names, title=_shown(on), path=confusion)
    yield test.trial, confusion
    if experiment.evaluation.predictions.is_file():
        mistakes = folder / "most_confident_errors.png"
        if _draw_mistakes(experiment, test, mistakes, data_dir=data_dir, title=_shown(on)):
            yield test.trial, mistakes


def _draw_mistakes(experiment: Experiment, test: Evaluation, path: Path, *, data_dir: Path | None, title: str) -> bool:
    from fmnist_models.data import CLASS_NAMES, DATASETS, data_root, is_fashion_mnist_on_disk, load_images

    root = data_root(data_dir)
    if test.dataset not in DATASETS or (test.dataset == "fashion-mnist" and not is_fashion_mnist_on_disk(root)):
        return False
    predictions = read_predictions(experiment.evaluation.predictions, class_names=CLASS_NAMES)
    count = len(predictions.labels)
    if count > _MAX_IMAGES:
        return False
    try:
        images = load_images(test.dataset, "test", root=root, size=count)
    except UserError:
        return False
    wrong = np.flatnonzero(predictions.predicted != predictions.labels)
    if not np.array_equal(images.labels, predictions.labels) or not len(wrong):
        return False  # of other images, or none was wrong
    surest = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:_MAX_MISTAKES]
    captions = [
        f"{CLASS_NAMES[predictions.labels[number]]},\ntaken for {CLASS_NAMES[predictions.predicted[number]]}\n"
        f"({predictions.confidence[number]:.0%}), image {number}"
        for number in surest
    ]
    save_mistakes(images.images[surest], captions=captions, title=f"surest mistakes of {title}", path=path)
    return True


def _shown(text: str) -> str:
    return printable(text[:200]).replace("$", r"\$")  # between two of them matplotlib would read formulas
