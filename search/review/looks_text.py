"""How often the test images were looked at, in words. Neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Sequence

from search.records.experiment import Experiment
from search.records.looks import Look


def describe_looks(looks: Sequence[Look] | str, experiment: Experiment) -> str:
    """One sentence about what ``find_looks`` gives; from the second look on it is a warning (see ``is_warning``)."""
    if isinstance(looks, str):
        return f"How often the test images have been looked at is not known: {looks}."
    if not looks:
        return "The test images have not been looked at."
    if not is_warning(looks):
        return "The test images have been looked at once."
    trials = len({look.trial for look in looks})
    models = "for the same trial" if trials == 1 else f"for {trials} trials"
    return (
        f"The test images have been looked at {len(looks)} times, {models}: the best of several test results "
        f"overestimates the model. {experiment.test_looks.name} lists every look."
    )


def is_warning(looks: Sequence[Look] | str) -> bool:
    """Whether there was more than one look, or nobody knows."""
    return isinstance(looks, str) or len(looks) > 1
