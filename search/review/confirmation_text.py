"""A confirmation in words and as a table of text, for a terminal as for a page. Neither Ray nor torch."""

from __future__ import annotations

from search.records.confirmation import Confirmation, ConfirmedTrial

_SAME_IMAGES = "That shows the luck of seed and epoch, not that of the validation images, which are the same."
HEADER = ("trial", "search", "confirmed", "seeds", "optimism", "epochs")


def tabulate_confirmation(confirmation: Confirmation) -> list[tuple[str, ...]]:
    """One row a trial, best first, under ``HEADER``."""
    return [
        (
            str(one.trial),
            f"{one.search_value:.4f}",
            _describe_mean(one),
            _describe_seeds(one, confirmation.num_seeds),
            "" if one.optimism is None else f"{one.optimism:+.4f}",
            str(one.num_epochs),
        )
        for one in confirmation.trials
    ]


def describe_confirmation(confirmation: Confirmation) -> str:
    """What came of it, in a sentence or two."""
    num_trials = len(confirmation.trials)
    what = f"The best {num_trials}" if num_trials > 1 else "The best trial"
    if confirmation.num_missing:
        return (
            f"{what} of the search are to be trained again with {_seeds(confirmation.num_seeds)}: "
            f"{confirmation.num_missing} of {num_trials * confirmation.num_seeds} trainings are missing."
        )
    if confirmation.winner is None:
        return "Each of the best trials failed with some fresh seed, so none is confirmed."
    first = confirmation.trials[0]
    told = (
        f"Trial {first.trial} won with a {confirmation.metric} of {_describe_mean(first)} over "
        f"{_seeds(confirmation.num_seeds)}; the search had it at {first.search_value:.4f}, {_describe_optimism(first)}."
    )
    told = f"{told}{_describe_unbiased(confirmation)}"
    favourite = max(confirmation.trials, key=lambda one: one.optimism or 0.0)
    if favourite.trial == first.trial or not favourite.optimism or favourite.optimism <= 0:
        return f"{told} {_SAME_IMAGES}"
    wrong = f"The search was most wrong about trial {favourite.trial}: {_describe_optimism(favourite)}."
    return f"{told} {wrong} {_SAME_IMAGES}"


def _describe_unbiased(confirmation: Confirmation) -> str:
    """A sentence about the selection bias of the winner's mean; empty if there was a single candidate."""
    if confirmation.num_candidates == 1:
        return ""
    if confirmation.unbiased_mean is None:
        return " The winner's mean is likely too good. Set `confirm.seeds` to 2 or more to estimate by how much."
    return (
        f" Estimate without selection bias: {confirmation.unbiased_mean:.4f} (each seed scores the trial that the "
        "other seeds chose)."
    )


def describe_confirmed(one: ConfirmedTrial, confirmation: Confirmation) -> str:
    """What came of one of its trials, on one line."""
    if one.mean is None:
        return f"to be confirmed with {_seeds(confirmation.num_seeds)}"
    place = ", the winner" if one.trial == confirmation.winner else ""
    return (
        f"with fresh seeds ({_describe_seeds(one, confirmation.num_seeds)}): {confirmation.metric} "
        f"{_describe_mean(one)}; the search had it {_describe_optimism(one)}{place}"
    )


def _describe_mean(one: ConfirmedTrial) -> str:
    if one.mean is None:
        return ""
    return f"{one.mean:.4f}" if one.deviation is None else f"{one.mean:.4f} ± {one.deviation:.4f}"


def _describe_seeds(one: ConfirmedTrial, num_seeds: int) -> str:
    told = str(num_seeds) if len(one.values) == num_seeds else f"{len(one.values)} of {num_seeds}"
    return f"{told}, {one.num_failed} failed" if one.num_failed else told


def _describe_optimism(one: ConfirmedTrial) -> str:
    optimism = one.optimism or 0.0
    return f"{abs(optimism):.4f} too {'good' if optimism >= 0 else 'bad'}"


def _seeds(count: int) -> str:
    return f"{count} fresh seed{'' if count == 1 else 's'}"
