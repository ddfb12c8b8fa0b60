"""How a published table was made: how many images, for how many epochs, with which recipe."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fmnist_models.data import LabelledImages, Normalisation, TrainingData
from fmnist_models.epoch import Epoch
from search.errors import ConfigError

_SMALLEST = 100  # images of either part, so that each class is among them
_WATCHED = 100


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """``patience``: epochs without a lower validation loss after which training ends; never if ``None``.

    ``validation_fraction``: the share of the training images, their last, that is held out for that; none if 0.
    ``standardise``: pixels with mean 0 and deviation 1 over the training images, else in 0…1.
    """

    train_size: int
    test_size: int
    num_epochs: int
    recipe: Mapping[str, Any]
    patience: int | None = None
    validation_fraction: float = 0.0
    standardise: bool = True
    scale: float = field(default=1.0)

    def scaled(self, scale: float) -> Protocol:
        """The same with this share of the images, the epochs and the patience, rounded up.

        Raises:
            ConfigError: ``scale`` is not above 0 and up to 1.
        """
        if not 0 < scale <= 1:
            raise ConfigError(f"--scale must be above 0 and at most 1, but got {scale:g}")
        if scale == 1:
            return self
        return dataclasses.replace(
            self,
            train_size=max(_SMALLEST, math.ceil(scale * self.train_size)),
            test_size=max(_SMALLEST, math.ceil(scale * self.test_size)),
            num_epochs=math.ceil(scale * self.num_epochs),
            patience=None if self.patience is None else math.ceil(scale * self.patience),
            scale=scale,
        )

    def split(self, images: LabelledImages) -> TrainingData:
        """What a training gets. Without a held-out part, the first images stand in for one; nothing is chosen by it."""
        held_out = round(self.validation_fraction * len(images))
        kept = len(images) - held_out
        train = images.first(kept)
        if held_out:
            validation = LabelledImages(images.images[kept:], images.labels[kept:])
        else:
            validation = images.first(min(_WATCHED, len(images)))
        if not self.standardise:
            return TrainingData(train, validation, Normalisation(0.0, 1.0))
        mean, deviation = float(train.images.mean()) / 255, float(train.images.std()) / 255
        return TrainingData(train, validation, Normalisation(mean, deviation))

    def is_over(self, history: Sequence[Epoch]) -> bool:
        """Whether a training with these epochs has ended."""
        if len(history) >= self.num_epochs:
            return True
        if self.patience is None or not history:
            return False
        losses = [epoch.val_loss for epoch in history]
        return len(losses) - 1 - losses.index(min(losses)) >= self.patience
