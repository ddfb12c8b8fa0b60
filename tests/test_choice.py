"""What is left of luck in a winner's value, and what is said of how it was chosen."""

from __future__ import annotations

import dataclasses
import inspect
import random
import statistics
from pathlib import Path

import pytest
from made_experiment import make_experiment
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial

from search.configuration.config import parse_config
from search.records.confirmation import Confirmation, ConfirmedTrial, judge_choice
from search.records.experiment import Experiment
from search.records.record import best_trial, list_trials
from search.review.choice_text import NUM_RANDOM, describe_choice
from search.review.confirmation_text import describe_confirmation

ACCURACY, LOSS = "val_accuracy", "val_loss"


def simulate(*, spread: float, num_trials: int = 5, num_seeds: int = 3, repeats: int = 4_000) -> tuple[float, float]:
    """By how much the winner's own mean, and the estimate, are better than the winner is: in the mean, in points of
    accuracy. A seed moves an accuracy by 0.45 points; trials differ by ``spread``."""
    rng = random.Random(0)
    own, estimated = [], []
    for _ in range(repeats):
        true = [0.9 + rng.gauss(0, spread) for _ in range(num_trials)]
        seeds = [rng.gauss(0, 0.002) for _ in range(num_seeds)]  # some are good for all
        values = [[level + seed + rng.gauss(0, 0.0045) for seed in seeds] for level in true]
        means = [statistics.fmean(one) for one in values]
        winner = means.index(max(means))
        judged = judge_choice(values, metric=ACCURACY)
        assert judged is not None
        own.append(means[winner] - true[winner])
        estimated.append(judged - true[winner])
    return 100 * statistics.fmean(own), 100 * statistics.fmean(estimated)


@pytest.mark.parametrize("spread", [0.0, 0.002, 0.005])
def test_the_winners_mean_is_too_good_and_seeds_without_a_part_in_the_choice_say_so(spread: float) -> None:
    own, estimated = simulate(spread=spread)
    assert own > 0.12
    assert abs(estimated) < 0.05
    if spread == 0:
        assert own > 0.28, "0.3 points, of which nothing was said"


def test_each_seed_judges_what_the_others_chose() -> None:
    first, second = [0.9, 0.5, 0.5], [0.6, 0.6, 0.6]
    # Without seed 1 the second is chosen, without seed 2 the first, without seed 3 the first.
    assert judge_choice([first, second], metric=ACCURACY) == pytest.approx((0.6 + 0.5 + 0.5) / 3)
    assert judge_choice([[-value for value in one] for one in (first, second)], metric=LOSS) == pytest.approx(-1.6 / 3)


def test_one_trial_was_not_chosen_and_one_seed_cannot_judge_its_own_choice() -> None:
    assert judge_choice([[0.5, 0.7]], metric=ACCURACY) == pytest.approx(0.6)
    assert judge_choice([[0.5], [0.7]], metric=ACCURACY) is None


def make_confirmation(*means: float, unbiased: float | None, num_seeds: int = 2) -> Confirmation:
    trials = tuple(
        ConfirmedTrial(
            trial=number,
            search_value=mean,
            num_epochs=1,
            values=(mean,) * num_seeds,
            num_failed=0,
            mean=mean,
            deviation=0.0,
            optimism=0.0,
        )
        for number, mean in enumerate(means)
    )
    return Confirmation(
        metric=ACCURACY, num_seeds=num_seeds, num_missing=0, winner=0, trials=trials, unbiased_mean=unbiased
    )


def test_the_estimate_stands_beside_the_winners_mean() -> None:
    told = describe_confirmation(make_confirmation(0.9, 0.8, unbiased=0.8712))
    assert "Estimate without selection bias: 0.8712 (each seed scores the trial that the other seeds chose)." in told
    assert "Set `confirm.seeds` to 2 or more" in describe_confirmation(
        make_confirmation(0.9, 0.8, unbiased=None, num_seeds=1)
    )
    assert "selection bias" not in describe_confirmation(make_confirmation(0.9, unbiased=0.9))


def test_a_winner_that_alone_has_all_seeds_had_no_rival_to_be_chosen_from() -> None:
    found = make_confirmation(0.9, 0.8, unbiased=0.9)
    lost = dataclasses.replace(found.trials[1], values=(0.8,), num_failed=1)
    told = describe_confirmation(dataclasses.replace(found, trials=(found.trials[0], lost)))
    assert "no part in the choice" not in told


def make_search(folder: Path, curves: list[list[float]], **changes: object) -> tuple[Experiment, dict[str, object]]:
    raw = {"dataset": "synthetic", "space": {"model": "customnet"}, "max_trials": len(curves), "max_epochs": 2}
    config = parse_config(raw | {"pruner": "none"} | changes, where="test")
    return make_experiment(folder, config, curves), config.model_dump()


def describe(experiment: Experiment, settings: dict[str, object], confirmation: Confirmation | None) -> list[str]:
    trials = list_trials(experiment)
    winner = best_trial(trials, ACCURACY)
    assert winner is not None
    return describe_choice(experiment, settings, trials, winner=winner, confirmation=confirmation)


def test_a_confirmation_with_fewer_candidates_than_wanted_is_told(tmp_path: Path) -> None:
    found = make_search(tmp_path / "a", [[0.5, 0.6]] + [[0.5]] * 11, confirm={"top": 5, "seeds": 2})
    [told] = describe(*found, make_confirmation(0.9, unbiased=0.9))[:1]
    assert told == "1 of 12 trials is complete; the confirmation had 1 candidate instead of 5."
    assert "few competitors" in describe(*make_search(tmp_path / "b", [[0.5, 0.6]] + [[0.5]] * 11), None)[0]


def test_a_winner_of_the_random_draws_is_told_as_far_as_the_sampler_drew_others(tmp_path: Path) -> None:
    curves = [[0.5, 0.6 + 0.01 * (number == 3)] for number in range(12)]
    [told] = describe(*make_search(tmp_path / "a", curves), None)
    assert told.startswith("The winner, trial 3, is one of the 10 random draws at the start; it beat all 2 trials")
    assert describe(*make_search(tmp_path / "b", curves, sampler="random"), None) == []
    assert describe(*make_search(tmp_path / "c", curves[:10]), None) == []
    assert describe(*make_search(tmp_path / "d", [[0.5, 0.5]] * 11 + [[0.9, 0.9]]), None) == []


def test_with_many_slots_tpe_draws_more_trials_at_random(tmp_path: Path) -> None:
    """With ``deterministic`` and eight slots, trial 16 still sees no more than nine results."""
    curves = [[0.5, 0.6 + 0.01 * (number == 16)] for number in range(20)]
    several = {"deterministic": True, "max_concurrent_trials": 8}
    [told] = describe(*make_search(tmp_path / "a", curves, **several), None)
    assert told.startswith("The winner, trial 16, is one of the 17 random draws at the start; it beat all 3 trials")
    assert describe(*make_search(tmp_path / "b", curves), None) == []
    assert describe(*make_search(tmp_path / "c", curves[:17], **several), None) == []


def test_optunas_sampler_draws_so_many_at_random() -> None:
    assert inspect.signature(TPESampler).parameters["n_startup_trials"].default == NUM_RANDOM


def test_a_chosen_configuration_is_no_random_draw(tmp_path: Path) -> None:
    experiment, settings = make_search(tmp_path / "a", [[0.5, 0.6]] * 12)
    chosen = create_trial(state=TrialState.COMPLETE, value=0.9, user_attrs={"enqueued": 0})
    trials = list_trials(experiment)
    assert describe_choice(experiment, settings, trials, winner=chosen, confirmation=None) == []
