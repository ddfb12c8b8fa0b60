from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial

from fmnist_models.hyperparameters import Domain, Interval, Options, StageSubset, conditions, defaults, domains
from fmnist_models.networks import NETWORKS
from fmnist_models.recipe import Recipe
from fmnist_models.training import TrainingPlan
from search.configuration.config import parse_config
from search.configuration.dimensions import Choice, Dimension, Fixed, FloatRange, IntRange, Subset
from search.configuration.space import Space
from search.configuration.space_file import dump_space, parse_space
from search.errors import ConfigError

STAGES = NETWORKS["resnet18"].stage_names


def as_written(value: float) -> float:
    """Three significant digits, as a person writes a bound."""
    return float(f"{value:.3g}")


def in_domain(domain: Interval) -> st.SearchStrategy[float]:
    return st.floats(domain.low, domain.high, allow_subnormal=False).map(as_written).filter(domain.contains)


@st.composite
def float_ranges(draw: st.DrawFn, domain: Interval) -> FloatRange:
    if draw(st.booleans()):
        unit = draw(st.sampled_from([10, 100, 1000]))
        first, last = math.ceil(domain.low * unit), math.floor(domain.high * unit)
        start = draw(st.integers(first, last - 1))
        step = draw(st.integers(1, last - start))
        stop = start + step * draw(st.integers(0, (last - start) // step))
        return FloatRange(start / unit, stop / unit, step=step / unit)
    low, high = sorted((draw(in_domain(domain)), draw(in_domain(domain))))
    return FloatRange(low, high, log=low > 0 and draw(st.booleans()))


@st.composite
def int_ranges(draw: st.DrawFn, domain: Interval) -> IntRange:
    low = draw(st.integers(math.ceil(domain.low), math.floor(domain.high) - 1))
    if low >= 1 and draw(st.booleans()):
        return IntRange(low, draw(st.integers(low, math.floor(domain.high))), log=True)
    step = draw(st.integers(1, math.floor(domain.high) - low))
    return IntRange(low, low + step * draw(st.integers(0, (math.floor(domain.high) - low) // step)), step=step)


def dimensions(domain: Domain) -> st.SearchStrategy[Dimension]:
    """Every kind of dimension that the domain allows."""
    if isinstance(domain, StageSubset):
        fixed = st.lists(st.sampled_from(domain.stages), unique=True).map(lambda items: Fixed(tuple(items)))
        drawn = st.lists(st.sampled_from(domain.stages[:-1]), unique=True, min_size=1)
        return fixed | drawn.map(lambda items: Subset(tuple(items)))
    if isinstance(domain, Options):
        values: st.SearchStrategy[Any] = st.sampled_from(domain.values)
        values = values | st.sampled_from(["a.pt", "/weights/b c.safetensors"]) if domain.open_ended else values
        ranges: st.SearchStrategy[Dimension] = st.nothing()
    else:
        values = st.integers(math.ceil(domain.low), math.floor(domain.high)) if domain.integer else in_domain(domain)
        ranges = int_ranges(domain) if domain.integer or domain.high >= 1 else st.nothing()
        ranges = ranges if domain.integer else ranges | float_ranges(domain)
    choices = st.lists(values, min_size=1, max_size=4, unique=True).map(lambda options: Choice(tuple(options)))
    return ranges | choices | values.map(Fixed)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    names = draw(st.lists(st.sampled_from(list(NETWORKS)), min_size=1, unique=True))
    chosen: dict[str, Dimension] = {"model": Choice(tuple(names)) if len(names) > 1 else Fixed(names[0])}
    kinds = [*(NETWORKS[name].hyperparameters for name in names), Recipe]
    for kind in kinds:
        for name, domain in domains(kind).items():
            if name not in chosen and draw(st.booleans()):
                chosen[name] = draw(dimensions(domain))
    for kind in kinds:  # when all is chosen that the networks share
        for name, condition in conditions(kind).items():
            for part in condition.parts():
                other = chosen.get(part.other, Fixed(defaults(kind)[part.other]))
                if name in chosen and not any(part.holds({part.other: value}) for value in other.values()):
                    del chosen[name]
    return Space(chosen)


def draw_trials(space: Space, *, num_trials: int, seed: int = 0) -> list[tuple[dict[str, Any], FrozenTrial]]:
    """Hyperparameters drawn at random, each with the finished trial that the study holds of them."""
    study = optuna.create_study(sampler=RandomSampler(seed=seed))
    drawn = []
    for _ in range(num_trials):
        trial = study.ask()
        drawn.append(space.suggest(trial))
        study.tell(trial, 0.5)
    return list(zip(drawn, study.get_trials(deepcopy=False), strict=True))


def lies_in(value: Any, dimension: Dimension) -> bool:
    match dimension:
        case FloatRange(low, high, _, step):
            on_grid = step is None or math.isclose((value - low) / step, round((value - low) / step), abs_tol=1e-6)
            return isinstance(value, float) and low <= value <= high and on_grid
        case IntRange(low, high, _, step):
            return type(value) is int and low <= value <= high and (value - low) % step == 0
        case Choice(options):
            return any(value == option and type(value) is type(option) for option in options)
        case Subset(items):
            return set(value) <= {*items, STAGES[-1]}
        case Fixed(fixed):
            return set(value) == {*fixed, STAGES[-1]} if isinstance(fixed, tuple) else bool(value == fixed)


@settings(deadline=None, max_examples=60)
@given(space=spaces())
def test_a_space_survives_being_written_and_read(space: Space) -> None:
    again = parse_space(dump_space(space))
    assert again == space
    assert repr(again) == repr(space), "1, 1.0 and True are equal, but not the same"


@settings(deadline=None, max_examples=60)
@given(space=spaces(), seed=st.integers(0, 1000))
def test_drawn_values_lie_inside_their_dimensions_and_make_a_training_plan(space: Space, seed: int) -> None:
    for values, trial in draw_trials(space, num_trials=3, seed=seed):
        network = NETWORKS[values["model"]]
        assert set(values) == {"model", *domains(network.hyperparameters), *domains(Recipe)}
        asked = {name.partition(".")[0] for name in trial.params}
        outside = {n: values[n] for n in asked if not lies_in(values[n], space.dimensions[n])}
        assert outside == {}
        rest = {name: value for name, value in values.items() if name != "model"}
        TrainingPlan(network=network.name, hyperparameters=rest, num_epochs=1, seed=0)


@settings(deadline=None, max_examples=60)
@given(space=spaces(), seed=st.integers(0, 1000))
def test_a_finished_trial_gives_the_same_hyperparameters_again(space: Space, seed: int) -> None:
    for values, trial in draw_trials(space, num_trials=3, seed=seed):
        assert space.suggest(trial) == values


@settings(deadline=None, max_examples=60)
@given(unfreeze=dimensions(StageSubset(STAGES)), seed=st.integers(0, 1000))
def test_unfrozen_stages_stand_in_the_networks_order_and_end_with_fc(unfreeze: Dimension, seed: int) -> None:
    space = Space({"model": Fixed("resnet18"), "unfreeze": unfreeze})
    for values, _ in draw_trials(space, num_trials=3, seed=seed):
        assert values["unfreeze"][-1] == "fc"
        assert values["unfreeze"] == tuple(sorted(set(values["unfreeze"]), key=STAGES.index))


@pytest.mark.parametrize(
    ("dimension", "grid"),
    [
        (IntRange(0, 2), [0, 1, 2]),
        (IntRange(1, 3, log=True), [1, 2, 3]),
        (IntRange(2, 14, step=4), [2, 6, 10, 14]),
        (IntRange(5, 5), [5]),
        (FloatRange(0.0, 0.3, step=0.1), [0.0, 0.1, 0.2, 0.3]),
        (FloatRange(0.1, 0.7, step=0.2), [0.1, 0.3, 0.5, 0.7]),
        (FloatRange(0.25, 0.25, step=0.1), [0.25]),
        (Choice((0.1, 3, "a", True)), [0.1, 3, "a", True]),
    ],
    ids=str,
)
def test_every_value_of_a_small_range_comes_out_both_bounds_included(dimension: Dimension, grid: list[Any]) -> None:
    study = optuna.create_study(sampler=RandomSampler(seed=1))
    drawn = {dimension.suggest(study.ask(), "x") for _ in range(120)}
    assert sorted(drawn, key=str) == pytest.approx(sorted(grid, key=str))


def test_what_only_some_trials_have_is_asked_of_those_alone() -> None:
    space = parse_space(
        {
            "model": {"choice": ["customnet", "resnet18"]},
            "optimizer": {"choice": ["adamw", "sgd"]},
            "momentum": {"float": [0.1, 0.8]},
            "weights": {"choice": ["none", "imagenet"]},
            "stem_init": {"choice": ["random", "sum"]},
            "unfreeze": {"subset": ["layer3", "layer4"]},
        }
    )
    seen: set[tuple[bool, bool, bool]] = set()
    for values, trial in draw_trials(space, num_trials=60):
        is_resnet, is_sgd = values["model"] == "resnet18", values["optimizer"] == "sgd"
        is_pretrained = values.get("weights") == "imagenet"
        expected = {"model", "optimizer"}
        expected |= {"weights", "unfreeze.layer3", "unfreeze.layer4"} if is_resnet else set()
        expected |= {"stem_init"} if is_pretrained else set()
        expected |= {"momentum"} if is_sgd else set()
        assert set(trial.params) == expected
        assert ("unfreeze" in values) == is_resnet
        assert is_sgd or values["momentum"] == Recipe.momentum
        if is_resnet:
            stages = [stage for stage in ("layer3", "layer4") if trial.params[f"unfreeze.{stage}"] is True]
            assert values["unfreeze"] == (*stages, "fc")
        seen.add((is_resnet, is_pretrained, is_sgd))
    assert len(seen) == 6, "every combination must have been drawn"


def test_one_search_ranges_over_every_network() -> None:
    space = parse_space(
        {
            "model": {"choice": list(NETWORKS)},
            "dropout": {"float": [0.0, 0.6]},
            "input_size": {"choice": [28, 227]},
            "stem": {"choice": ["original", "small"]},
        }
    )
    seen = set()
    for values, trial in draw_trials(space, num_trials=120):
        expected = {"model", "dropout"}
        expected |= {"input_size"} if values["model"] in ("resnet18", "resnet34", "alexnet11") else set()
        expected |= {"stem"} if "stem" in values and values["input_size"] == 28 else set()
        assert set(trial.params) == expected
        if values.get("input_size") == 227 and "stem" in values:
            assert values["stem"] == "original"
        seen.add(values["model"])
    assert seen == set(NETWORKS)


@pytest.mark.parametrize(
    ("unfreeze", "asked_of"),
    [
        ({"subset": ["layer3", "layer4"]}, ["resnet18", "resnet34"]),
        ({"subset": ["c1", "c3"]}, ["lenet5"]),
        ({"subset": ["conv1", "fc6"]}, ["alexnet11"]),
        (["stem"], ["resnet18", "resnet34"]),
        ([], ["resnet18", "resnet34", "lenet5", "alexnet11", "lstm"]),
    ],
    ids=str,
)
def test_stages_are_decided_for_the_networks_that_have_them_and_the_others_train_whole(
    unfreeze: Any, asked_of: list[str]
) -> None:
    space = parse_space({"model": {"choice": list(NETWORKS)}, "unfreeze": unfreeze})
    for values, trial in draw_trials(space, num_trials=60):
        network = NETWORKS[values["model"]]
        drawn = {name for name in trial.params if name.startswith("unfreeze.")}
        if network.name in asked_of:
            stages = unfreeze["subset"] if isinstance(unfreeze, dict) else []
            assert drawn == {f"unfreeze.{stage}" for stage in stages}
            expected = {stage for stage in stages if trial.params[f"unfreeze.{stage}"]}
            assert set(values["unfreeze"]) == {*(expected if stages else unfreeze), "fc"}
        else:
            assert drawn == set()
            assert values.get("unfreeze", ()) == network.stage_names


def test_a_small_stem_is_never_summed() -> None:
    space = {"model": "resnet18", "weights": "a.pth", "stem_init": {"choice": ["random", "sum"]}}
    for values, trial in draw_trials(parse_space(space | {"stem": {"choice": ["original", "small"]}}), num_trials=30):
        assert ("stem_init" in trial.params) == (values["stem"] == "original")
    with pytest.raises(ConfigError, match=r"space\.stem_init: .* weights is not none and stem is original"):
        parse_space(space | {"stem": "small"})


def test_fixed_values_are_not_parameters_and_what_is_left_out_has_its_default() -> None:
    [(values, trial)] = draw_trials(parse_space({"model": "resnet18", "lr": 0.5, "unfreeze": []}), num_trials=1)
    assert trial.params == {}
    assert (values["lr"], values["unfreeze"], values["batch_size"]) == (0.5, ("fc",), Recipe.batch_size)


@pytest.mark.parametrize("kind", [{"int": [0, 3]}, {"int": [1, 8], "log": True}, {"choice": [0, 0.5, 1]}, 2], ids=str)
def test_whole_numbers_are_fine_where_any_number_is(kind: Any) -> None:
    parse_space({"model": "customnet", "weight_decay": kind})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("lr", {"float": [0.1, 0.01]}, ["low <= high", "low=0.1, high=0.01"]),
        ("shift", {"int": [5, 2]}, ["low <= high", "low=5, high=2"]),
        ("lr", {"float": [0, 0.1], "log": True}, ["log needs low > 0", "low=0"]),
        ("weight_decay", {"float": [-1, 0.1], "log": True}, ["log needs low > 0", "low=-1"]),
        ("shift", {"int": [0, 8], "log": True}, ["log needs low >= 1", "low=0"]),
        ("lr", {"float": [0.1, 0.5], "log": True, "step": 0.1}, ["no step", "step=0.1"]),
        ("shift", {"int": [1, 8], "log": True, "step": 2}, ["no step", "step=2"]),
        ("erase", {"float": [0, 1], "step": 0.3}, ["whole number of steps", "step=0.3"]),
        ("erase", {"float": [0, 1], "step": 0.3333333}, ["steps", "step=0.333333"]),
        ("erase", {"float": [0, 1], "step": 1e9}, ["steps", "step=1e+09"]),
        ("erase", {"float": [0, 1], "step": math.inf}, ["step", "inf"]),
        ("erase", {"float": [0, 1], "step": math.nan}, ["step", "nan"]),
        ("erase", {"float": [0, 1], "step": 0}, ["step > 0", "step=0"]),
        ("erase", {"float": [0.1, 1], "step": 1e-320}, ["step"]),
        ("shift", {"int": [0, 8], "step": 3}, ["whole number of steps", "step=3"]),
        ("shift", {"int": [0, 8], "step": 0}, ["step=0"]),
        ("shift", {"int": [0, 8], "step": 2.0}, ["2.0 is not a whole number"]),
        ("lr", {"float": [0.1, math.inf]}, ["finite", "high=inf"]),
        ("lr", {"float": [0.1, 10**400]}, ["float"]),
        ("lr", {"float": [0.1]}, ["[low, high]", "[0.1]"]),
        ("lr", {"float": 0.1}, ["a list", "0.1"]),
        ("lr", {"float": ["1e-3", 0.1]}, ["'1e-3' is not a number"]),
        ("lr", {"float": [0.1, 1], "log": "yes"}, ["true or false", "'yes'"]),
        ("batch_size", {"choice": []}, ["at least one", "[]"]),
        ("batch_size", {"choice": [32, 64, 32]}, ["once", "[32, 64, 32]"]),
        ("erase", {"choice": [0, 0.0]}, ["once", "[0, 0.0]"]),
        ("optimizer", {"choice": [["sgd"]]}, ["single", "[['sgd']]"]),
        ("lr", {"uniform": [0, 1]}, ["unknown kind", "'uniform'", "{float: [low, high]"]),
        ("lr", {}, ["unknown kind", "{}"]),
        ("lr", {"float": [0.1, 1], "base": 2}, ["no option 'base'"]),
        ("batch_size", {"choice": [32], "log": True}, ["no option 'log'"]),
        ("model", "resnet50", ["'resnet50'", "customnet, resnet18"]),
        ("model", {"choice": ["customnet", 3]}, ["3", "customnet, resnet18"]),
        ("model", {"customnet"}, ["valid"]),
        ("learning_rate", 0.1, ["CustomNet", "ignore", "lr, momentum"]),
        ("unfreeze", ["layer4"], ["CustomNet", "ignore"]),
        ("lr", {"float": [1e-9, 0.1]}, ["1e-09", "from 1e-07 to 10"]),
        ("lr", {"float": [0.1, 11]}, ["11", "from 1e-07 to 10"]),
        ("batch_size", {"choice": [64, 1]}, ["1 is not valid", "from 2 to 8192"]),
        ("batch_size", True, ["True", "a whole number"]),
        ("shift", {"int": [True, 3]}, ["True is not a whole number"]),
        ("flip", 1, ["1 is not valid", "one of true, false"]),
        ("lr", True, ["True", "a number from"]),
        ("batch_size", {"float": [16, 64]}, ["16", "64", "a whole number from 2 to 8192"]),
        ("optimizer", {"int": [0, 1]}, ["0", "adamw, sgd"]),
        ("optimizer", {"subset": ["sgd"]}, ["sgd", "adamw, sgd"]),
        ("batch_size", 64.0, ["64.0", "a whole number"]),
        ("lr", None, ["missing", "None"]),
        ("lr", [0.1, 0.2], ["[0.1, 0.2]"]),
        ("lr", math.nan, ["nan", "a number from"]),
        ("momentum", 0.5, ["ignored", "optimizer is sgd"]),
    ],
    ids=lambda part: str(part)[:40],
)
def test_a_wrong_dimension_is_refused_with_key_value_and_what_is_valid(key: str, value: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_space({"model": "customnet", key: value})
    assert [word for word in [f"space.{key}", *words] if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"unfreeze": ["layer9"]}, ["space.unfreeze", "layer9", "stem, layer1"]),
        ({"unfreeze": {"subset": ["layer4", "layer9"]}}, ["space.unfreeze", "layer9", "stem, layer1"]),
        ({"unfreeze": {"subset": ["layer4", "layer4"]}}, ["space.unfreeze", "once", "layer4"]),
        ({"unfreeze": {"subset": []}}, ["space.unfreeze", "at least one"]),
        ({"unfreeze": {"subset": ["layer4", "fc"]}}, ["space.unfreeze", "fc"]),
        ({"unfreeze": {"choice": ["layer3", "layer4"]}}, ["space.unfreeze", "layer3", "a list of some of"]),
        ({"unfreeze": "layer4"}, ["space.unfreeze", "layer4", "a list of some of"]),
        ({"stem_init": "sum"}, ["space.stem_init", "ignored", "weights is not none"]),
        ({"stem_init": "sum", "weights": "none"}, ["space.stem_init", "ignored", "weights is not none"]),
        ({"weights": {"choice": ["none", ""]}}, ["space.weights", "''", "path"]),
        ({"input_size": 32}, ["space.input_size", "32", "28, 227"]),
        ({"input_size": {"int": [28, 227]}}, ["space.input_size", "28 … 227", "one of 28, 227"]),
        ({"input_size": 227, "stem": "small"}, ["space.stem", "ignored", "input_size is 28"]),
        ({"model": {"choice": ["resnet18", "lenet5"]}, "unfreeze": ["layer4", "c1"]}, ["space.unfreeze", "c1"]),
    ],
    ids=str,
)
def test_wrong_stages_and_weights_of_a_resnet_are_refused(space: dict[str, Any], words: list[str]) -> None:
    """A subset with `fc` would draw a parameter that changes nothing: the classifier always trains."""
    with pytest.raises(ConfigError) as caught:
        parse_space({"model": "resnet18", **space})
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("read", "raw", "words"),
    [
        (parse_space, {}, ["empty", "model", "customnet, resnet18"]),
        (parse_space, {"lr": 0.1}, ["space.model is missing", "customnet, resnet18"]),
        (lambda raw: parse_config({"space": raw}, where="test"), ["lr"], ["space must map", "['lr']"]),
        (lambda raw: parse_config({"space": raw}, where="test"), None, ["space must map", "None"]),
    ],
    ids=["empty", "no model", "list", "nothing"],
)
def test_what_is_no_space_at_all_is_refused(read: Callable[[Any], Any], raw: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(raw)
    assert [word for word in words if word not in str(caught.value)] == []
