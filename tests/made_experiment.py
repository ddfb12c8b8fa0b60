"""Experiments made up for tests: real folders, locks and studies, whose trials report what they are told to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from epochs import make_epoch

from search.configuration.config import SearchConfig
from search.records.experiment import Experiment
from search.records.lock import hold_experiment
from search.records.record import Failure, Reason
from search.running.continuation import begin_run
from search.study.search_study import SearchStudy

FAILED = None


def make_experiment(path: Path, config: SearchConfig, curves: Iterable[Sequence[float] | None]) -> Experiment:
    """One trial for each curve of validation accuracies; one that is cut short is left running, ``FAILED`` fails."""
    experiment = Experiment(path, config.study_storage)
    with hold_experiment(experiment):
        begin_run(experiment, config)
        study = SearchStudy.open(experiment, config)
        for curve in curves:
            assignment = study.next_assignment()
            assert assignment is not None
            for epoch, accuracy in enumerate(curve or (), start=1):
                if study.report(assignment.number, make_epoch(epoch, accuracy)).is_finished():
                    break
            if curve is FAILED:
                study.fail(assignment.number, Failure(Reason.CODE, "KeyError: 'x'"))
    return experiment
