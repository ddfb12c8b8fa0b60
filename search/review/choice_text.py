"""What a person should know of how a winner came to be one, in words. Neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from search.records.confirmation import Confirmation, find_winner_or_best, read_confirm
from search.records.experiment import Experiment
from search.records.record import list_trials
from search.records.results import read_settings

if TYPE_CHECKING:
    from search.records.evaluation_file import Evaluation

NUM_RANDOM = 10
"""Trials that Optuna's TPE sampler draws at random before it learns from any."""
_ENQUEUED = "enqueued"  # user attribute of a trial whose configuration was chosen
_FEW = 3


def read_remarks(experiment: Experiment, evaluation: Evaluation) -> list[str]:
    """What ``describe_choice`` says of the trial that was tested, if it is the winner.

    Raises:
        ConfigError: the configuration is missing or not YAML.
        ExperimentError: the configuration or a study is damaged.
    """
    settings, trials = read_settings(experiment), list_trials(experiment)
    winner = find_winner_or_best(experiment, settings, trials)
    if winner is None or winner.number != evaluation.trial:
        return []
    return describe_choice(experiment, settings, trials, winner=winner, confirmation=evaluation.confirmation)


def describe_choice(
    experiment: Experiment,
    settings: Mapping[str, Any],
    trials: Sequence[FrozenTrial],
    *,
    winner: FrozenTrial,
    confirmation: Confirmation | None,
) -> list[str]:
    """Sentences about a choice among few, and about a winner that was not searched for but met by chance; none where
    neither is so."""
    told = []
    num_complete = sum(trial.state == TrialState.COMPLETE for trial in trials)
    complete = f"{num_complete} of {len(trials)} trials {'is' if num_complete == 1 else 'are'} complete"
    wanted = read_confirm(settings)
    if confirmation is not None and wanted is not None and len(confirmation.trials) < wanted[0]:
        count = len(confirmation.trials)
        candidates = f"{count} candidate{'' if count == 1 else 's'}"
        told.append(f"{complete}; the confirmation had {candidates} instead of {wanted[0]}.")
    elif num_complete < min(_FEW, len(trials)):
        told.append(f"{complete}, so the winner was chosen among few.")
    is_drawn = settings.get("sampler") == "tpe" and _ENQUEUED not in winner.user_attrs
    if is_drawn and winner.number < NUM_RANDOM < len(trials) and not experiment.warm_start.exists():
        told.append(
            f"The winner, trial {winner.number}, is one of the first {NUM_RANDOM} random draws; of the "
            f"{len(trials) - NUM_RANDOM} trials that the sampler drew from what it had learned, none won."
        )
    return told
