"""Searching hyperparameters: what to try, running it on a Ray cluster, and what came out.

``configuration`` says what to try, ``study`` decides, ``running`` trains, ``workflows`` is what a command does from its
start to its end; ``records`` are the files, and ``review``, ``report`` and ``integrations`` show them, without Ray or
torch. ``load_experiment`` opens a finished or running experiment in Python:

    >>> from search import load_experiment
    >>> load_experiment("quickstart").trials  # doctest: +SKIP

Import anything else from its module: this one imports nothing, so that reading results stays fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.review.loaded import LoadedExperiment

__all__ = ["load_experiment"]


def load_experiment(reference: str | Path, *, directory: str | Path | None = None) -> LoadedExperiment:
    """The experiment of that name, path or address on object storage, to read from.

    It has ``trials`` (a pandas data frame), ``best``, ``evaluation``, ``study`` (of Optuna) and ``load_model()`` (of
    torch). ``directory``: the folder of experiments that a name is looked up in; ``$FMNIST_EXPERIMENTS_DIR``, else
    ``./experiments``, if left out.

    Raises:
        search.errors.ExperimentError: there is none (names those there are), or its folder holds links.
    """
    from search.review.loaded import load_experiment as load

    return load(reference, directory=directory)
