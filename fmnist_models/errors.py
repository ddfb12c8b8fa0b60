"""What a person can put right. Light to import, so that a command line can name them without loading torch."""

from __future__ import annotations


class UserError(Exception):
    """Something is wrong that a person can put right; the message says what, where and what would be valid."""


class DataError(UserError):
    """Images are missing or damaged."""


class WeightsError(UserError):
    """Pretrained weights are missing or do not belong to the network."""


class CheckpointError(UserError):
    """A checkpoint cannot be read."""
