"""Epochs made up for tests."""

from __future__ import annotations

from fmnist_models.epoch import Epoch


def make_epoch(number: int, accuracy: float) -> Epoch:
    """An epoch whose losses follow from its accuracy."""
    return Epoch(
        epoch=number,
        train_loss=1 - accuracy,
        train_accuracy=accuracy,
        val_loss=1 - accuracy,
        val_accuracy=accuracy,
        lr=0.1,
        epoch_s=1.0,
    )
