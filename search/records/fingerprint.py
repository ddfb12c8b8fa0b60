"""One line by which two people see that their searches are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from optuna.trial import FrozenTrial


def fingerprint(trials: Iterable[FrozenTrial]) -> str:
    """SHA-256, in hexadecimal, of all that a repeatable search repeats: its trials' numbers, states, parameters and
    values, those of every epoch among them; times and messages have no part in it."""
    rows = [
        [trial.number, trial.state.name, trial.params, trial.values, sorted(trial.intermediate_values.items())]
        for trial in trials
    ]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
