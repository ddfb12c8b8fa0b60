"""What a person can get wrong with a search."""

from __future__ import annotations

from fmnist_models.errors import UserError


class ConfigError(UserError, ValueError):
    """A search's configuration is wrong."""


class ExperimentError(UserError):
    """An experiment is not where it should be, or not in a state for what was asked."""


class DatabaseError(ExperimentError):
    """The database that an experiment's study is in cannot be used, or nobody said that it may be."""


class SelectionError(UserError, ValueError):
    """What was asked for is not among the results that there are."""
