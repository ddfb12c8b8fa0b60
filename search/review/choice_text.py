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
"""COMPLETE or PRUNED trials that Optuna's TPE sampler wants to see before it learns from them."""
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
        told.append(f"{complete}, so the winner had few competitors.")
    is_by_tpe = settings.get("sampler") == "tpe" and not experiment.warm_start.exists()
    if is_by_tpe and _is_random(winner, settings, trials):
        drawn = [trial for trial in trials if _ENQUEUED not in trial.user_attrs]
        num_learned = sum(not _is_random(trial, settings, trials) for trial in drawn)
        if num_learned:
            later = "the only trial" if num_learned == 1 else f"all {num_learned} trials"
            told.append(
                f"The winner, trial {winner.number}, is one of the {len(drawn) - num_learned} random draws at the "
                f"start; it beat {later} that TPE suggested afterwards."
            )
    return told


def _is_random(trial: FrozenTrial, settings: Mapping[str, Any], trials: Sequence[FrozenTrial]) -> bool:
    """Whether TPE drew the trial at random, as it saw too few results: with ``deterministic`` those up to number
    k - ``max_concurrent_trials``, else those that had ended when the trial began."""
    if _ENQUEUED in trial.user_attrs:
        return False
    window = settings.get("max_concurrent_trials") if settings.get("deterministic") else None
    num_seen = 0
    for other in trials:
        if other.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            continue
        if window is not None:
            num_seen += other.number <= trial.number - window
        elif other.datetime_complete is not None and trial.datetime_start is not None:
            num_seen += other.datetime_complete <= trial.datetime_start
    return num_seen < NUM_RANDOM
