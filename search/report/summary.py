"""What was searched and what won, in two sentences."""

from __future__ import annotations

from collections import Counter

from search.records.fold_values import complete_folds, read_folds
from search.records.inventory import State
from search.records.record import STATE_NAMES, best_epoch
from search.records.results import compact_parameters
from search.report.evaluated import Evaluated
from search.report.material import Material
from search.report.wording import count, dataset, duration, network, parameters, text

_MODEL = "model"


def summarise(material: Material, evaluated: Evaluated | None) -> tuple[str, str]:
    """The two sentences."""
    return _searched(material), _won(material, evaluated)


def describe_state(material: Material) -> str:
    """Whether the search still runs, and when this was."""
    at = f"{material.written:%Y-%m-%d %H:%M:%S}"
    what = "cross-validation" if material.is_cross_validation else "search"
    progress = f"{material.num_ended:,} of {count(int(material.settings['max_trials']), 'trial')} had ended"
    if material.state == State.RUNNING:
        return f"This {what} was still running when this page was written, at {at}: {progress}."
    if material.state == State.INTERRUPTED:
        stopped = f"This {what} was not at its end, and not running on this machine, when this page was written"
        return f"{stopped}, at {at}: {progress}."
    return f"This {what} is finished. This page was written at {at}."


def _searched(material: Material) -> str:
    space = material.settings["space"]
    models = list(dict.fromkeys(str(trial.params[_MODEL]) for trial in material.trials if _MODEL in trial.params))
    models = models or [str(space.get(_MODEL, "a network"))]
    names = [name for name, value in space.items() if isinstance(value, dict)]
    size, epochs = material.setting("train_size"), material.setting("max_epochs")
    folds = read_folds(material.settings)
    images = f"the first {size:,} training images of {dataset(material.dataset)}" if size else dataset(material.dataset)
    states = Counter(STATE_NAMES[trial.state] for trial in material.trials)
    seconds = material.occupancy.search_s
    took = f" in {duration(seconds)}" if seconds else ""
    return (
        f"This search tried {count(len(material.trials), 'configuration')} of "
        f"{_listed([network(model) for model in models[:4]])} on {images}{took}"
        + (f", up to {count(epochs, 'epoch')} {f'in each of {folds} folds' if folds else 'each'}" if epochs else "")
        + (f", over {_listed([text(name, limit=40) for name in names[:12]])}" if names else "")
        + (": " if states else "")
        + ", ".join(f"{number:,} {state}" for state, number in sorted(states.items()))
        + "."
    )


def _won(material: Material, evaluated: Evaluated | None) -> str:
    best, confirmation = material.winner, material.confirmation
    if best is None:
        return "No trial is complete yet, so none has won."
    values = compact_parameters(best.params)
    model = network(values.pop(_MODEL, material.settings["space"].get(_MODEL, "a network")))
    given = f" with {parameters(values)}" if values else ""
    leads = "leads so far" if material.state == State.RUNNING else "won"
    folds = complete_folds(best)
    mean = f", the mean over {folds} folds" if folds else ""
    reached = f"{best.value:.4f} in epoch {best_epoch(best, material.metric)}{mean}"
    if confirmation is not None and confirmation.winner is not None:
        seeds = count(confirmation.num_seeds, "fresh seed")
        reached = f"{confirmation.trials[0].mean:.4f} over {seeds} in the mean (the search had found {best.value:.4f})"
        if confirmation.num_candidates > 1 and confirmation.unbiased_mean is not None:
            reached += f", {confirmation.unbiased_mean:.4f} without selection bias"
    sentence = f"Trial {best.number} {leads}: {model}{given} reached a {material.metric} of {reached}"
    if evaluated is None or evaluated.trial != best.number:
        return f"{sentence}; it has not been tested yet."
    return (
        f"{sentence}, and on {count(evaluated.num_images, 'test image')} that had no part in the choice it got "
        f"{evaluated.accuracy:.1%} right (95 % interval {evaluated.accuracy_low:.1%} to {evaluated.accuracy_high:.1%})."
    )


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
