"""`--warm-start OTHER_EXPERIMENT`: what another search found seeds the sampler of a new one."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from epochs import make_epoch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from made_experiment import FAILED, make_experiment
from optuna.trial import FrozenTrial, TrialState
from test_space import spaces

from fmnist_models.hyperparameters import conditions, defaults
from fmnist_models.networks import NETWORKS
from fmnist_models.recipe import Recipe
from search.configuration.config import SearchConfig, parse_config
from search.configuration.dimensions import Choice, Dimension, Fixed, FloatRange, IntRange, Subset
from search.configuration.space import Space
from search.configuration.space_file import dump_space
from search.errors import ConfigError, ExperimentError
from search.records.experiment import Experiment
from search.records.record import read_study
from search.study.search_study import SearchStudy
from search.study.warm_start import WarmStart, dump_warm_start, parse_warm_start, read_warm_start

NUM_EPOCHS = 3
SPACE: dict[str, Any] = {
    "model": {"choice": ["customnet", "resnet18"]},
    "optimizer": {"choice": ["adamw", "sgd"]},
    "lr": {"float": [1e-3, 1e-1], "log": True},
    "momentum": {"float": [0.1, 0.8]},
    "label_smoothing": {"float": [0.0, 0.2], "step": 0.1},
    "dropout": {"float": [0.0, 0.7], "step": 0.1},
    "weights": {"choice": ["none", "imagenet"]},
    "stem_init": {"choice": ["random", "sum"]},
    "unfreeze": {"subset": ["layer3", "layer4"]},
}
LR_MIDDLE = 1e-2


def make_config(space: Mapping[str, Any] = SPACE, **changes: Any) -> SearchConfig:
    settings = {
        "space": space,
        "max_trials": 24,
        "max_epochs": NUM_EPOCHS,
        "sampler": "random",
        "pruner": "median",
        "min_epochs": 1,
    }
    return parse_config(settings | changes, where="test")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """24 trials: 22 complete or pruned ones of both networks, one that failed and one that runs."""
    qualities = [(number * 7 % 20) / 20 for number in range(22)]
    curves = [[quality, quality + 0.01, quality] for quality in qualities]
    return make_experiment(tmp_path_factory.mktemp("other") / "first", make_config(), [*curves, FAILED, [0.99]])


def finished(experiment: Experiment) -> list[FrozenTrial]:
    trials = read_study(experiment).get_trials()
    return [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]


def approximately(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: pytest.approx(value, rel=1e-9) if type(value) in (int, float) else value for name, value in values.items()
    }


def content(trial: FrozenTrial) -> tuple[Any, ...]:
    """All of a trial but when it was made."""
    types = {name: type(value) for name, value in trial.params.items()}
    return trial.state, trial.params, types, trial.distributions, trial.values, trial.intermediate_values


def check(
    other: Experiment, config: SearchConfig, fits: Callable[[dict[str, Any]], bool], *, before: SearchConfig
) -> WarmStart:
    """The warm start, which must consist of the trials whose hyperparameters fit, with what was measured of them."""
    warm = read_warm_start(other, config)
    all_of_them = finished(other)
    expected = [trial for trial in all_of_them if fits(before.space.suggest(trial))]
    assert warm.num_skipped == len(all_of_them) - len(expected)
    for trial, old in zip(warm.trials, expected, strict=True):
        assert config.space.suggest(trial) == approximately(before.space.suggest(old))
        assert trial.state == old.state
        assert trial.value == (old.value if old.state == TrialState.COMPLETE else None)
        assert trial.intermediate_values == (old.intermediate_values if old.state == TrialState.PRUNED else {})
    return warm


def test_all_finished_trials_seed_a_search_of_the_same_space(other: Experiment) -> None:
    warm = check(other, make_config(), lambda values: True, before=make_config())
    assert (len(warm.trials), warm.num_skipped, warm.notes) == (22, 0, ())
    assert warm.source == str(other.path)
    assert {trial.state for trial in warm.trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert [trial.params for trial in warm.trials] == [trial.params for trial in finished(other)]
    assert [trial.distributions for trial in warm.trials] == [trial.distributions for trial in finished(other)]


def test_of_two_networks_those_of_the_one_are_taken(other: Experiment) -> None:
    config = make_config({**SPACE, "model": "resnet18"})
    warm = check(other, config, lambda values: values["model"] == "resnet18", before=make_config())
    assert 0 < len(warm.trials) < 22
    assert all("model" not in trial.params for trial in warm.trials)
    assert all({"unfreeze.layer3", "unfreeze.layer4", "dropout"} <= set(trial.params) for trial in warm.trials)


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({"lr": {"float": [1e-4, 1.0], "log": True}}, lambda v: True),
        ({"lr": {"float": [1e-3, LR_MIDDLE], "log": True}}, lambda v: v["lr"] <= LR_MIDDLE),
        ({"lr": {"float": [1e-3, 1e-1]}}, lambda v: True),
        ({"label_smoothing": {"float": [0.0, 0.4], "step": 0.2}}, lambda v: v["label_smoothing"] in (0, 0.2)),
        ({"label_smoothing": 0.1}, lambda v: v["label_smoothing"] == 0.1),
        ({"label_smoothing": None}, lambda v: v["label_smoothing"] == 0),
        ({"dropout": {"float": [0.0, 0.6], "step": 0.1}}, lambda v: v["dropout"] < 0.65),
        ({"dropout": None}, lambda v: v["dropout"] == {"customnet": 0.5, "resnet18": 0.0}[v["model"]]),
        ({"optimizer": "sgd"}, lambda v: v["optimizer"] == "sgd"),
        ({"optimizer": None, "momentum": None}, lambda v: v["optimizer"] == "adamw"),
        ({"momentum": {"float": [0.1, 0.4]}}, lambda v: v["optimizer"] == "adamw" or v["momentum"] <= 0.4),
        ({"momentum": 0.95}, lambda v: v["optimizer"] == "adamw"),
        ({"stem_init": "sum"}, lambda v: v.get("weights") != "imagenet" or v["stem_init"] == "sum"),
        ({"weights": "none", "stem_init": None}, lambda v: v.get("weights") != "imagenet"),
        ({"weights": {"choice": ["imagenet", "none"]}}, lambda v: True),
        ({"unfreeze": {"subset": ["layer4"]}}, lambda v: "layer3" not in v.get("unfreeze", ())),
        ({"unfreeze": {"subset": ["layer4", "stem", "layer3"]}}, lambda v: True),
        ({"unfreeze": ["layer4"]}, lambda v: v.get("unfreeze", ("layer4", "fc")) == ("layer4", "fc")),
        ({"unfreeze": None}, lambda v: "unfreeze" not in v),
        ({"weight_decay": {"float": [1e-4, 1e-1], "log": True}}, lambda v: True),
        (
            {"shift": {"int": [0, 4]}, "flip": {"choice": [True, False]}, "batch_size": {"choice": [32, 64]}},
            lambda v: True,
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_trial_is_taken_if_the_new_space_has_all_its_hyperparameters(
    other: Experiment, changes: dict[str, Any], fits: Callable[[dict[str, Any]], bool]
) -> None:
    space = {name: dimension for name, dimension in (SPACE | changes).items() if dimension is not None}
    config = make_config(space)
    warm = check(other, config, fits, before=make_config())
    again = parse_warm_start(dump_warm_start(warm), where="w", config=config)
    assert list(map(content, again.trials)) == list(map(content, warm.trials))


def test_what_the_new_space_alone_names_is_a_parameter_with_the_old_default(other: Experiment) -> None:
    warm = read_warm_start(other, make_config({**SPACE, "batch_size": {"int": [16, 256], "log": True}}))
    assert {trial.params["batch_size"] for trial in warm.trials} == {Recipe.batch_size}


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({**SPACE, "erase": 0.5}, ["none of its 22", "erase=0", "lr="]),
        ({**SPACE, "weight_decay": {"float": [0.1, 0.2]}}, ["none of its 22", "weight_decay=0.01"]),
    ],
    ids=["fixed", "range"],
)
def test_an_experiment_of_which_nothing_fits_is_refused(
    other: Experiment, space: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_warm_start(other, make_config(space))
    assert [word for word in [str(other.path), *words] if word not in str(caught.value)] == []


def test_another_metric_is_refused(other: Experiment) -> None:
    with pytest.raises(ConfigError, match=r"val_accuracy was measured there, .* val_loss; valid"):
        read_warm_start(other, make_config(metric="val_loss"))


@pytest.mark.parametrize("curves", [[], [FAILED], [[0.5]]], ids=["none", "failed", "running"])
def test_an_experiment_without_finished_trials_is_refused(tmp_path: Path, curves: list[Any]) -> None:
    with pytest.raises(ConfigError, match=f"{tmp_path.name}.*no finished trial"):
        read_warm_start(make_experiment(tmp_path / "x", make_config(), curves), make_config())


def test_what_shifts_all_values_gets_a_note_and_nothing_else_does(tmp_path: Path) -> None:
    before = make_config(train_size=2000, dataset="synthetic", seed=1, max_trials=3, pruner="none", precision="fp32")
    made = make_experiment(tmp_path / "x", before, [[0.5] * NUM_EPOCHS])
    now = make_config(
        max_epochs=9,
        validation_fraction=0.2,
        max_trials=100,
        max_concurrent_trials=4,
        keep_checkpoints=9,
        confirm={"top": 2, "seeds": 1},
        mlflow={"tracking_uri": "http://localhost:5000"},
        feature_cache_gb=1.0,
        max_cluster_share=0.5,
        accelerator_type="A100",
        node_labels={"zone": "b"},
        time_budget_s=60.0,
        trial_timeout_s=60.0,
        max_restarts=1,
        max_disk_gb=9.0,
        min_epochs=2,
    )
    assert sorted(read_warm_start(made, now).notes) == [
        "warm start: dataset was synthetic there, fashion-mnist here",
        "warm start: max_epochs was 3 there, 9 here",
        "warm start: precision was fp32 there, auto here",
        "warm start: train_size was 2000 there, all here",
        "warm start: validation_fraction was 0.1 there, 0.2 here",
    ]
    assert read_warm_start(made, before).notes == ()


def test_a_source_that_is_damaged_is_refused_by_the_name_of_its_file(tmp_path: Path) -> None:
    def make(name: str) -> Experiment:
        return make_experiment(tmp_path / name, make_config(pruner="none"), [[0.5] * NUM_EPOCHS])

    (no_config := make("a")).config.unlink()
    with pytest.raises(ConfigError, match=r"a/config\.yaml"):
        read_warm_start(no_config, make_config())
    (torn := make("b")).journal.write_text("torn\n")
    with pytest.raises(ExperimentError, match=r"b/study\.journal"):
        read_warm_start(torn, make_config())
    (foreign := make("c")).config.write_text(make_config(SPACE | {"lr": {"float": [1.0, 2.0]}}).to_yaml())
    with pytest.raises(ExperimentError, match=r"c/study\.journal does not belong to .*c/config\.yaml"):
        read_warm_start(foreign, make_config())


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_starts_with_what_another_found(tmp_path: Path, other: Experiment, sampler: str) -> None:
    """Its first suggestion is another than without, even a random one, which would repeat the other's; the study holds
    its own trials alone."""
    config = make_config(sampler=sampler, max_trials=2, pruner="none")
    first = []
    for name, trials in (("cold", ()), ("warm", read_warm_start(other, config).trials)):
        made = Experiment(tmp_path / name)
        made.create()
        study = SearchStudy.open(made, config, warm=trials)
        assignment = study.next_assignment()
        assert assignment is not None
        assert assignment.number == 0
        study.report(0, make_epoch(1, 0.5))
        first.append(assignment.hyperparameters)
        assert len(read_study(made).get_trials()) == 1
    assert first[0] != first[1]


@st.composite
def two_spaces(draw: st.DrawFn) -> tuple[Space, Space]:
    """A space, and one that differs from it in some dimensions."""
    before, other = draw(spaces()), draw(spaces())
    dimensions = dict(before.dimensions)
    for name in list(before.dimensions):
        what = draw(st.sampled_from(["keep", "keep", "drop", "exchange"]))
        if what == "drop" and name != "model":
            del dimensions[name]
        elif what == "exchange" and name in other.dimensions:
            dimensions[name] = other.dimensions[name]
    try:
        return before, Space(dimensions)
    except ConfigError:
        return reject()


def has(dimension: Dimension, value: Any) -> bool:
    match dimension:
        case Fixed(fixed):
            return set(value) | {"fc"} == {*fixed, "fc"} if isinstance(fixed, tuple) else equal(value, fixed)
        case Choice(options):
            return any(equal(value, option) for option in options)
        case Subset(items):
            return set(value) <= {*items, "fc"}
        case FloatRange(low, high, _, step) | IntRange(low, high, _, step):
            on_grid = step is None or math.isclose((value - low) / step, round((value - low) / step), abs_tol=1e-8)
            return on_grid and low * (1 - 1e-9) <= value <= high * (1 + 1e-9)


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9)
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def has_all(space: Space, values: dict[str, Any]) -> bool:
    """Whether a trial of the space can have these hyperparameters, said once more in other words."""
    if not has(space.dimensions["model"], values["model"]):
        return False
    network = NETWORKS[values["model"]]
    for kind in (network.hyperparameters, Recipe):
        for name, default in defaults(kind).items():
            condition = conditions(kind).get(name)
            is_asked = name in space.dimensions and (condition is None or condition.holds(values))
            if is_asked and name == "unfreeze":
                is_asked = {s for subset in space.dimensions[name].values() for s in subset} <= set(network.stage_names)
            if not (has(space.dimensions[name], values[name]) if is_asked else equal(values[name], default)):
                return False
    return True


@settings(deadline=None, max_examples=25)
@given(pair=two_spaces(), seed=st.integers(0, 100), metric=st.sampled_from(["val_accuracy", "val_loss"]))
def test_from_any_space_to_any_other(
    tmp_path_factory: pytest.TempPathFactory, pair: tuple[Space, Space], seed: int, metric: str
) -> None:
    before, now = (
        make_config(dump_space(space), seed=seed, metric=metric, pruner="none", max_epochs=1) for space in pair
    )
    other = make_experiment(tmp_path_factory.mktemp("any") / "x", before, [[0.5], [0.25], [0.75], [0.1]])
    values = [before.space.suggest(trial) for trial in finished(other)]
    if not any(has_all(now.space, each) for each in values):
        with pytest.raises(ConfigError, match="none of its 4 finished trials"):
            read_warm_start(other, now)
        return
    warm = check(other, now, lambda each: has_all(now.space, each), before=before)
    optuna.create_study().add_trials(warm.trials)
    again = parse_warm_start(dump_warm_start(warm), where="w", config=now)
    assert list(map(content, again.trials)) == list(map(content, warm.trials))


any_float = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=60)
@given(
    lrs=st.lists(st.floats(1e-3, 1e-1), min_size=1, max_size=4),
    curves=st.lists(any_float | st.dictionaries(st.integers(1, 10_000), any_float, min_size=1), min_size=4, max_size=4),
    num_skipped=st.integers(0, 10**6),
    texts=st.tuples(st.text(), st.lists(st.text()).map(tuple)),
)
def test_a_warm_start_survives_being_written_and_read(
    lrs: list[float], curves: list[Any], num_skipped: int, texts: tuple[str, tuple[str, ...]]
) -> None:
    config = make_config({"model": "customnet", "lr": SPACE["lr"]})
    distribution = optuna.distributions.FloatDistribution(1e-3, 1e-1, log=True)
    trials = tuple(
        optuna.trial.create_trial(
            state=TrialState.PRUNED if isinstance(curve, dict) else TrialState.COMPLETE,
            params={"lr": lr},
            distributions={"lr": distribution},
            value=None if isinstance(curve, dict) else curve,
            intermediate_values=curve if isinstance(curve, dict) else None,
        )
        for lr, curve in zip(lrs, curves, strict=False)
    )
    warm = WarmStart(trials, num_skipped, *texts)
    again = parse_warm_start(dump_warm_start(warm), where="w", config=config)
    assert dataclasses.replace(again, trials=()) == dataclasses.replace(warm, trials=())
    assert list(map(content, again.trials)) == list(map(content, warm.trials))


TRIAL = {"state": "complete", "params": {"lr": 0.01, "model": "customnet"}, "value": 0.5}
PRUNED = {"state": "pruned", "params": {"lr": 0.01, "model": "customnet"}, "epochs": {"1": 0.5}}
FILE = {"source": "/x", "num_skipped": 0, "notes": [], "trials": [TRIAL, PRUNED]}


def _with(trial: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**FILE, "trials": [TRIAL, {**trial, **changes}]}


def test_the_file_of_these_tests_is_read() -> None:
    config = make_config({"model": {"choice": ["customnet", "resnet18"]}, "lr": SPACE["lr"]})
    warm = parse_warm_start(json.dumps(FILE), where="w", config=config)
    assert [trial.state for trial in warm.trials] == [TrialState.COMPLETE, TrialState.PRUNED]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not a warm start"),
        ("nothing", "not a warm start"),
        (json.dumps(FILE)[:-10], "not a warm start"),
        ("[" * 100_000, "not a warm start"),
        ("null", "not a warm start"),
        ([], "not a warm start"),
        ({}, "source"),
        ({**FILE, "more": 1}, "more"),
        ({**FILE, "source": 1}, "source"),
        ({**FILE, "num_skipped": -1}, "num_skipped"),
        ({**FILE, "num_skipped": True}, "num_skipped"),
        ({**FILE, "notes": "x"}, "notes"),
        ({**FILE, "trials": []}, "trials"),
        ({**FILE, "trials": {"0": TRIAL}}, "trials"),
        (_with(TRIAL, state="running"), "trials.1"),
        (_with(TRIAL, state=None), "trials.1"),
        (_with(TRIAL, value=None), "trials.1.complete.value"),
        (_with(TRIAL, value="0.5"), "trials.1.complete.value"),
        (_with(TRIAL, value=math.nan), "trials.1.complete.value"),
        (_with(TRIAL, value=math.inf), "trials.1.complete.value"),
        (_with(TRIAL, epochs={"1": 0.5}), "trials.1.complete.epochs"),
        (_with(PRUNED, epochs={}), "trials.1.pruned.epochs"),
        (_with(PRUNED, epochs={"0": 0.5}), "trials.1.pruned.epochs"),
        (_with(PRUNED, epochs={"first": 0.5}), "trials.1.pruned.epochs"),
        (_with(PRUNED, epochs={"1": math.nan}), "trials.1.pruned.epochs"),
        (_with(PRUNED, value=0.5), "trials.1.pruned.value"),
        (_with(TRIAL, params=None), "trials.1.complete.params"),
        (_with(TRIAL, params={"lr": [0.1]}), "trials.1.complete.params"),
        (_with(TRIAL, params={}), "another search: trials.1: .*model"),
        (_with(TRIAL, params={"model": "customnet"}), "another search: trials.1: .*lr"),
        (_with(TRIAL, params={"model": "vgg", "lr": 0.01}), "another search: trials.1: .*vgg"),
        (_with(TRIAL, params={"model": 0, "lr": 0.01}), "another search: trials.1"),
        (_with(TRIAL, params={"model": "customnet", "lr": 0.5}), "another search: trials.1: .*0.5"),
        (_with(TRIAL, params={"model": "customnet", "lr": 0}), "another search: trials.1"),
        (_with(TRIAL, params={"model": "customnet", "lr": "0.01"}), "another search: trials.1: .*lr"),
        (_with(TRIAL, params={"model": "customnet", "lr": True}), "another search: trials.1: .*lr"),
        (
            _with(TRIAL, params={"model": "customnet", "lr": 0.01, "momentum": 0.5}),
            "another search: trials.1: momentum",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_file_that_is_damaged_or_foreign_is_refused_by_its_name(content: Any, words: str) -> None:
    config = make_config({"model": {"choice": ["customnet", "resnet18"]}, "lr": SPACE["lr"]})
    text = content if isinstance(content, str) else json.dumps(content)
    with pytest.raises(ExperimentError, match=rf"warm_start\.json is .*{words}"):
        parse_warm_start(text, where="warm_start.json", config=config)


def test_what_is_too_long_is_neither_written_nor_read(other: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    warm = read_warm_start(other, make_config())
    text = dump_warm_start(warm)
    monkeypatch.setattr("search.study.warm_start.MAX_CHARS", len(text))
    assert dump_warm_start(parse_warm_start(text, where="w", config=make_config())) == text
    monkeypatch.setattr("search.study.warm_start.MAX_CHARS", len(text) - 1)
    with pytest.raises(ConfigError, match="characters; valid: at most"):
        dump_warm_start(warm)
    with pytest.raises(ExperimentError, match=r"w has .* characters; valid: at most"):
        parse_warm_start(text, where="w", config=make_config())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
names = st.sampled_from(["model", "lr", "unfreeze.layer4", "x"])
near_values = st.sampled_from(["customnet", "resnet18", 0.01, 1, True]) | json_values


@settings(deadline=None, max_examples=60)
@given(
    raw=json_values
    | st.builds(
        lambda state, params, value, epochs: _with(
            {"state": state, "params": params, "value": value, "epochs": epochs}
        ),
        st.sampled_from(["complete", "pruned", "x"]),
        st.dictionaries(names, near_values),
        json_values,
        st.dictionaries(st.sampled_from(["1", "2", "x"]), json_values),
    )
)
def test_whatever_a_file_holds_it_is_read_or_refused(raw: Any) -> None:
    with contextlib.suppress(ExperimentError):
        assert parse_warm_start(json.dumps(raw), where="w", config=make_config()).trials
