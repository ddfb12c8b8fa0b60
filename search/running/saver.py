"""What a trial leaves on disk: the checkpoint it continues from, the table of its epochs, the weights that count."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fmnist_models.checkpoint import load_metadata, save_checkpoint, save_weights
from fmnist_models.epoch import is_better
from fmnist_models.files import write_aside
from fmnist_models.fold_training import FoldTraining
from search.records.epochs_file import format_epochs
from search.records.experiment import TrialFiles
from search.running.trainable import Trainable

_EPOCH = "epoch"


class Saver:
    """Saves a trial after each of its epochs, before anyone is told of it.

    The epoch that counts is the best or, where the number of epochs is given, the last; none of a trial with folds,
    which has no model that is all of it. Its weights are in the last checkpoint as long as no epoch comes after it, and
    get a file of their own just before one does, or at the trial's end: not after each epoch that is better than those
    before it. The file says of which epoch it is.
    """

    def __init__(
        self, files: TrialFiles, *, dataset: str, metric: str, max_epochs: int, num_epochs: int | None = None
    ) -> None:
        """``num_epochs``: the number that is given, at most ``max_epochs``."""
        self._files = files
        self._dataset = dataset
        self._metric = metric
        self._num_epochs = num_epochs
        self._end = max_epochs if num_epochs is None else num_epochs
        self._unsaved: tuple[dict[str, Tensor], int] | None = None

    def save(self, training: Trainable) -> None:
        """Saves the trial as it is after its newest epoch.

        Raises:
            OSError, ExperimentError: it cannot be saved.
        """
        files, counts = self._files, self._counts(training)
        written = [files.last, files.epochs]
        if self._unsaved is not None and not counts:
            self._save_best(*self._unsaved)
            files.send(files.best)
            self._unsaved = None
        save_checkpoint(files.last, training.state_dict())
        if counts and len(training.history) == self._end:
            self._save_best(training.model.state_dict(), len(training.history))
            written.insert(1, files.best)
        elif counts:
            self._unsaved = _copy(training.model.state_dict()), len(training.history)
        self._write_table(training)
        files.send(*written)

    def complete(self, training: Trainable) -> None:
        """Saves what follows from a checkpoint that was read, which a crash may have left unwritten beside it.

        Raises:
            OSError, ExperimentError: it cannot be saved.
        """
        self._write_table(training)
        written = [self._files.epochs]
        if self._counts(training):
            self._save_best(training.model.state_dict(), len(training.history))
            written.insert(0, self._files.best)
        self._files.send(*written)

    def _counts(self, training: Trainable) -> bool:
        """Whether the newest epoch is the one that counts so far."""
        if isinstance(training, FoldTraining):
            return False
        if self._num_epochs is not None:
            return len(training.history) == self._num_epochs
        *before, newest = (epoch.metric(self._metric) for epoch in training.history)
        return all(is_better(newest, value, metric=self._metric) for value in before)

    def _save_best(self, weights: Mapping[str, Tensor], epoch: int) -> None:
        save_weights(self._files.best, weights, metadata={_EPOCH: str(epoch)})

    def _write_table(self, training: Trainable) -> None:
        size = training.num_epochs if isinstance(training, FoldTraining) else None
        write_aside(self._files.epochs, format_epochs(training.history, dataset=self._dataset, fold_epochs=size))


def saved_epoch(weights: Path) -> int | None:
    """After which epoch a trial had these weights; ``None`` if the file, of an older version, does not say.

    Raises:
        CheckpointError: they cannot be read.
    """
    told = load_metadata(weights).get(_EPOCH, "")
    return int(told) if told.isdecimal() and len(told) < 10 else None


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, and not of what trains on."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}
