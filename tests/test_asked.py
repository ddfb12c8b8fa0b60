"""Why a trial lacks a hyperparameter: the condition that is told is the one by which it was not asked for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_space import draw_trials, spaces

from fmnist_models.hyperparameters import conditions, domains
from fmnist_models.networks import NETWORKS
from fmnist_models.recipe import Recipe
from search.configuration.space import Space
from search.configuration.space_file import dump_space, parse_space
from search.review.asked import CONDITIONS, OWNERS, STAGES, asked_if, describe_asked


def test_the_tables_are_what_the_networks_and_the_recipe_declare() -> None:
    names = {name for network in NETWORKS.values() for name in domains(network.hyperparameters)}
    owners = {name: {n.name for n in NETWORKS.values() if name in domains(n.hyperparameters)} for name in names}
    assert {name: set(networks) for name, networks in OWNERS.items()} == owners
    assert dict(STAGES) == {n.name: n.stage_names for n in NETWORKS.values() if n.stage_names}
    declared: dict[str, Any] = dict(conditions(Recipe))
    for network in NETWORKS.values():
        for name, condition in conditions(network.hyperparameters).items():
            assert declared.setdefault(name, condition) == condition, "one condition for all networks"
    assert dict(CONDITIONS) == declared


SPACE = {
    "model": {"choice": ["customnet", "resnet18", "resnet34", "lstm"]},
    "optimizer": {"choice": ["adamw", "sgd"]},
    "momentum": {"float": [0.1, 0.9]},
    "lr": {"float": [1e-4, 1e-1]},
    "input_size": {"choice": [28, 227]},
    "stem": {"choice": ["original", "small"]},
    "weights": {"choice": ["none", "imagenet", "my.pt"]},
    "stem_init": {"choice": ["random", "sum"]},
    "unfreeze": {"subset": ["layer3", "layer4"]},
}


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (["momentum"], "momentum only with optimizer=sgd"),
        (["unfreeze.layer3", "unfreeze.layer4"], "unfreeze.layer3, unfreeze.layer4 only with model=resnet18|resnet34"),
        (["stem"], "stem only with model=resnet18|resnet34 and input_size=28"),
        (["stem_init"], "stem_init only with model=resnet18 and weights=imagenet|my.pt and stem=original"),
        (["lr", "momentum", "weights"], "momentum only with optimizer=sgd; weights only with model=resnet18"),
        (["lr", "nothing"], ""),
    ],
)
def test_the_condition_is_told_in_words(parameters: list[str], words: str) -> None:
    assert describe_asked(parameters, SPACE) == words
    parse_space(SPACE)


def test_what_the_space_fixes_is_no_condition() -> None:
    assert describe_asked(["momentum"], SPACE | {"optimizer": "sgd"}) == ""
    assert describe_asked(["unfreeze.layer4"], SPACE | {"model": "resnet18"}) == ""


@settings(deadline=None, max_examples=60)
@given(space=spaces() | st.just(parse_space(SPACE)), seed=st.integers(0, 1000))
def test_a_trial_has_a_parameter_exactly_if_its_condition_holds(space: Space, seed: int) -> None:
    drawn = draw_trials(space, num_trials=12, seed=seed)
    raw = dump_space(space)
    for parameter in {name for _, trial in drawn for name in trial.params}:
        condition = asked_if(parameter, raw)
        for values, trial in drawn:
            holds = all(values.get(name) in allowed for name, allowed in condition.items())
            assert (parameter in trial.params) == holds, (parameter, condition)
