"""The training of one network in K folds: K trainings, one after the other, as one that can be continued."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Protocol

from torch import nn

from fmnist_models.epoch import Epoch
from fmnist_models.folds import FoldedImages, fold_seed
from fmnist_models.training import Training, TrainingPlan


class _OneFold(Protocol):
    @property
    def model(self) -> nn.Module: ...

    def epochs(self) -> Iterator[Epoch]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class FoldTraining:
    """As ``Training``, on one fold after the other, each with a seed of its own (``fold_seed``).

    Its epochs are numbered through: epoch e of fold f is number (f - 1) · ``num_epochs`` + e. Of the images and the
    models, only those of the fold at work are kept.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        data: FoldedImages,
        *,
        num_epochs: int | None = None,
        make: Callable[..., _OneFold] = Training,
        **options: Any,
    ) -> None:
        """``num_epochs``: after how many of the plan's epochs each fold ends, all if left out.
        ``make(plan, data, **options)``: makes the training of a fold; ``options`` are those of ``Training``."""
        self.plan = plan
        self.num_epochs = num_epochs or plan.num_epochs
        self.history: list[Epoch] = []
        self._data = data
        self._make = make
        self._options = options
        self._fold = 0
        self._training: _OneFold | None = None

    @property
    def model(self) -> nn.Module:
        """That of the fold at work, the first one at the beginning."""
        return self._training_of(max(1, self._fold)).model

    def epochs(self) -> Iterator[Epoch]:
        """Trains on from where it stands to the last fold's last epoch, yielding each epoch when it is done.

        Raises:
            DivergedError: a loss is not finite.
        """
        for fold in range(len(self.history) // self.num_epochs + 1, self._data.folds + 1):
            left = (fold * self.num_epochs) - len(self.history)
            for epoch in islice(self._training_of(fold).epochs(), left):
                self.history.append(dataclasses.replace(epoch, epoch=self._first_epoch(fold) + epoch.epoch - 1))
                yield self.history[-1]

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue; of a fold that is complete, no more than its epochs are."""
        is_between = len(self.history) % self.num_epochs == 0
        return {
            "plan": dataclasses.asdict(self.plan),
            "split": self._split,
            "history": [dataclasses.asdict(epoch) for epoch in self.history],
            "training": None if is_between or self._training is None else self._training.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where ``state`` was saved.

        Raises:
            ValueError: ``state`` comes from a training with another plan, or with other folds.
        """
        if not self.plan.is_same(state["plan"]) or list(state["split"]) != self._split:
            raise ValueError("the checkpoint belongs to another training, or to other folds")
        history = [Epoch(**epoch) for epoch in state["history"]]
        if state["training"] is not None:
            self._training_of(len(history) // self.num_epochs + 1).load_state_dict(state["training"])
        self.history = history

    @property
    def _split(self) -> list[int]:
        return [self._data.folds, self._data.seed, len(self._data.images), self.num_epochs]

    def _first_epoch(self, fold: int) -> int:
        return (fold - 1) * self.num_epochs + 1

    def _training_of(self, fold: int) -> _OneFold:
        if self._training is None or fold != self._fold:
            self._training = None  # its images go before those of the next one come
            plan = dataclasses.replace(self.plan, seed=fold_seed(self.plan.seed, fold))
            self._training, self._fold = self._make(plan, self._data.fold(fold), **self._options), fold
        return self._training
