"""`--enqueue FILE`: chosen configurations, checked against the space and tried first."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers import RandomSampler
from test_space import draw_trials, spaces

from search.configuration.dimensions import Choice, Dimension, Fixed, FloatRange, IntRange, Subset
from search.configuration.enqueue import read_queue
from search.configuration.parameters import is_same, to_parameters
from search.configuration.space import Space
from search.configuration.space_file import parse_space
from search.errors import ConfigError
from search.yaml_file import dump_yaml

SPACE = parse_space(
    {
        "model": {"choice": ["customnet", "resnet18"]},
        "optimizer": {"choice": ["adamw", "sgd"]},
        "lr": {"float": [1e-4, 1e-1], "log": True},
        "momentum": {"float": [0.1, 0.9]},
        "batch_size": {"choice": [32, 64]},
        "flip": {"choice": [True, False]},
        "shift": {"int": [0, 4], "step": 2},
        "label_smoothing": {"float": [0.0, 0.6], "step": 0.1},
        "erase": 0.25,
        "weights": {"choice": ["none", "imagenet"]},
        "stem_init": {"choice": ["random", "sum"]},
        "unfreeze": {"subset": ["layer3", "layer4"]},
    }
)


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    return tmp_path / "queue.yaml"


def read(queue: Path, text: str, space: Space = SPACE) -> tuple[dict[str, Any], ...]:
    queue.write_text(text, encoding="utf-8")
    return read_queue(queue, space)


def test_configurations_become_the_parameters_of_the_study(queue: Path) -> None:
    text = """
- {model: resnet18, lr: 1e-3, unfreeze: [layer4, fc], weights: imagenet, stem_init: sum}
- model: customnet
  optimizer: sgd
  momentum: 0.5
  batch_size: 32
  flip: true
  shift: 2
  erase: 0.25
- {lr: 0.1}
- {unfreeze: []}
- {erase: 0.25}
"""
    assert read(queue, text) == (
        {
            "model": "resnet18",
            "lr": 1e-3,
            "unfreeze.layer3": False,
            "unfreeze.layer4": True,
            "weights": "imagenet",
            "stem_init": "sum",
        },
        {"model": "customnet", "optimizer": "sgd", "momentum": 0.5, "batch_size": 32, "flip": True, "shift": 2},
        {"lr": 0.1},
        {"unfreeze.layer3": False, "unfreeze.layer4": False},
        {},
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["must hold a list", "None"]),
        ("[]", ["must hold a list", "[]"]),
        ("lr: 0.1", ["must hold a list", "'lr'"]),
        ("[unclosed", ["is not YAML"]),
        ("[{lr: 0.1, lr: 0.2}]", ["is not YAML", "twice"]),
        ("[!!python/object:os.system {}]", ["is not YAML"]),
        ("[{lr: 0.1}, 3]", ["configuration 2", "must map", "3"]),
        ("[{lr: 0.1}, {}]", ["configuration 2", "must map", "{}"]),
        ("[{lr: 0.1}, {rate: 0.1}]", ["configuration 2", "'rate'", "valid: model, optimizer, lr"]),
        ("[{1: 2}]", ["configuration 1", "1", "valid: model"]),
        ("[{dropout: 0.1}]", ["'dropout'", "valid: model"]),
        ("[{lr: 0.2}]", ["configuration 1", "lr: 0.2", "valid: 0.0001 … 0.1, log"]),
        ("[{lr: fast}]", ["lr: 'fast'", "0.0001"]),
        ("[{lr: }]", ["lr: None", "0.0001"]),
        ("[{lr: true}]", ["lr: True", "0.0001"]),
        ("[{lr: .nan}]", ["lr: nan", "0.0001"]),
        ("[{lr: .inf}]", ["lr: inf", "0.0001"]),
        ("[{lr: 1000000}]", ["lr: 1000", "0.0001"]),
        ("[{lr: [0.1]}]", ["lr: [0.1]", "0.0001"]),
        ("[{lr: 2020-01-01}]", ["line 1", "is a date in YAML"]),
        ("[{lr: 0.1}]\n[{batch_size: 040}]", ["is not YAML"]),
        ("- lr: 0.1\n- batch_size: 040\n", ["line 2: - batch_size: 040: 040 is octal in YAML", "write 32 or 40"]),
        ("[{model: vgg}]", ["model: 'vgg'", "customnet | resnet18"]),
        ("[{model: [customnet]}]", ["model: ['customnet']", "customnet | resnet18"]),
        ("[{batch_size: 48}]", ["batch_size: 48", "32 | 64"]),
        ("[{flip: 1}]", ["flip: 1", "True | False"]),
        ("[{shift: 1}]", ["shift: 1", "0 … 4, step 2"]),
        ("[{shift: 6}]", ["shift: 6", "0 … 4, step 2"]),
        ("[{shift: 2.5}]", ["shift: 2.5", "0 … 4, step 2"]),
        ("[{label_smoothing: 0.25}]", ["label_smoothing: 0.25", "0 … 0.6, step 0.1"]),
        ("[{erase: 0.5}]", ["erase: 0.5", "valid: 0.25"]),
        ("[{unfreeze: layer4}]", ["unfreeze: 'layer4'", "layer3, layer4"]),
        ("[{unfreeze: [layer1]}]", ["unfreeze: ['layer1']", "layer3, layer4"]),
        ("[{unfreeze: [layer4, layer4]}]", ["unfreeze", "layer3, layer4"]),
        ("[{unfreeze: [4]}]", ["unfreeze: [4]", "layer3, layer4"]),
        ("[{unfreeze: {layer4: true}}]", ["unfreeze", "layer3, layer4"]),
        (
            "[{optimizer: adamw, momentum: 0.5}]",
            ["momentum: it would be ignored", "optimizer is sgd"],
        ),
        ("[{model: customnet, unfreeze: []}]", ["unfreeze: CustomNet would ignore it", "valid: model, optimizer, lr"]),
        (
            "[{model: resnet18, weights: none, stem_init: sum}]",
            ["stem_init: it would be ignored", "weights is not none"],
        ),
        (
            "[{weights: none, stem_init: sum}]",
            ["weights: CustomNet would ignore it", "stem_init: it would be ignored"],
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_is_wrong_is_refused_with_where_and_what_would_be_valid(queue: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(queue, text)
    assert [word for word in ["queue.yaml", *words] if word not in str(caught.value)] == []


def test_a_missing_file_is_refused(queue: Path) -> None:
    with pytest.raises(ConfigError, match=r"queue\.yaml cannot be read"):
        read_queue(queue, SPACE)


@pytest.mark.parametrize(
    ("changes", "text", "fine"),
    [
        ({}, "[{momentum: 0.5}]", True),
        ({"optimizer": "sgd"}, "[{momentum: 0.5}]", True),
        ({"optimizer": "sgd"}, "[{optimizer: sgd, momentum: 0.5}]", True),
        ({"model": "resnet18"}, "[{stem_init: sum}]", True),
        ({"model": "resnet18", "weights": "imagenet"}, "[{stem_init: sum}]", True),
        ({"model": "resnet18"}, "[{unfreeze: [layer3]}]", True),
        ({}, "[{stem_init: sum, momentum: 0.5}]", True),
        ({}, "[{stem_init: sum, momentum: 0.5, optimizer: adamw}]", False),
        ({}, "[{stem_init: sum, weights: none}]", False),
    ],
    ids=str,
)
def test_what_some_trial_could_use_is_allowed(queue: Path, changes: dict[str, Any], text: str, fine: bool) -> None:
    space = Space({**SPACE.dimensions, **{name: Fixed(value) for name, value in changes.items()}})
    if fine:
        assert len(read(queue, text, space)) == 1
    else:
        with pytest.raises(ConfigError, match="ignore"):
            read(queue, text, space)


@pytest.mark.parametrize("unfreeze", [(), ("layer4",), ("layer4", "fc"), ("fc", "layer4")], ids=str)
def test_the_classifier_may_be_named_or_not_in_a_fixed_list_too(queue: Path, unfreeze: tuple[str, ...]) -> None:
    space = Space({"model": Fixed("resnet18"), "unfreeze": Fixed(unfreeze), "lr": FloatRange(0.1, 0.2)})
    for stages in (sorted({*unfreeze, "fc"}), [stage for stage in unfreeze if stage != "fc"]):
        assert read(queue, dump_yaml([{"unfreeze": stages, "lr": 0.1}]), space) == ({"lr": 0.1},)
    with pytest.raises(ConfigError, match="unfreeze"):
        read(queue, "[{unfreeze: [stem]}]", space)


@settings(deadline=None, max_examples=60)
@given(space=spaces(), seed=st.integers(0, 1000))
def test_every_configuration_of_a_space_can_be_chosen(
    tmp_path_factory: pytest.TempPathFactory, space: Space, seed: int
) -> None:
    """Written by hand as its hyperparameters, read as the parameters of the trial that has them, and then drawn."""
    queue = tmp_path_factory.mktemp("queue") / "queue.yaml"
    drawn = draw_trials(space, num_trials=3, seed=seed)
    asked = [{name.partition(".")[0] for name in trial.params} | {"model"} for _, trial in drawn]
    written = [{name: values[name] for name in names} for (values, _), names in zip(drawn, asked, strict=True)]
    as_lists = [{n: list(v) if isinstance(v, tuple) else v for n, v in values.items()} for values in written]
    chosen = read(queue, dump_yaml(as_lists), space)
    written_params = [space.as_written(trial.params) for _, trial in drawn]
    assert list(chosen) == written_params
    types = [{name: type(value) for name, value in params.items()} for params in chosen]
    assert types == [{name: type(value) for name, value in trial.params.items()} for _, trial in drawn]
    study = optuna.create_study(sampler=RandomSampler(seed=seed + 1))
    for params in chosen:
        study.enqueue_trial(params)
    expected = [
        {name: params.get(name, value) for name, value in values.items()}
        for (values, _), params in zip(drawn, written_params, strict=True)
    ]
    assert [space.suggest(study.ask()) for _ in chosen] == expected


@pytest.mark.parametrize(
    ("dimension", "value", "expected"),
    [
        (FloatRange(0.0, 0.6, step=0.1), 0.1 * 6, 0.6),
        (FloatRange(0.0, 0.7, step=0.1), 0.1 * 6, 0.6),
        (FloatRange(1e-4, 1e-1, log=True), 1e-1, 1e-1),
        (FloatRange(0.0, 2.0), 2, 2.0),
        (IntRange(0, 4), 2.0, 2),
        (IntRange(1, 1024, log=True), 1024, 1024),
        (Choice((0, 0.5)), 0.0, 0),
        (Choice((0.1, 3, "a", True)), True, True),
    ],
    ids=str,
)
def test_a_value_becomes_the_one_that_the_dimension_draws(dimension: Dimension, value: Any, expected: Any) -> None:
    """Optuna draws 0.6000000000000001 from a range up to 0.7, and refuses it in one up to 0.6."""
    assert repr(to_parameters(dimension, "x", value)) == repr({"x": expected})


@pytest.mark.parametrize(
    ("dimension", "value"),
    [
        (FloatRange(0.0, 1.0), 1.0001),
        (FloatRange(0.0, 1.0), -1e-12),
        (FloatRange(0.0, 1.0), math.nan),
        (FloatRange(0.0, 1.0), False),
        (FloatRange(0.0, 1.0), "0.5"),
        (IntRange(0, 4), 10**400),
        (IntRange(0, 4), 1.5),
        (Choice((1, 2)), True),
        (Choice((1, 2)), "1"),
        (Choice((True, False)), 0),
        (Choice(("none", "a")), None),
        (Subset(("stem",)), ("stem", "layer1")),
        (Fixed(0.5), 0.6),
        (Fixed("none"), None),
        (Fixed(True), 1),
    ],
    ids=str,
)
def test_a_value_that_a_dimension_does_not_hold_is_refused(dimension: Dimension, value: Any) -> None:
    with pytest.raises(ValueError, match="is not valid; valid: "):
        to_parameters(dimension, "x", value)


@given(
    one=st.floats(allow_nan=False, allow_infinity=False, width=32),
    other=st.floats(allow_nan=False, allow_infinity=False),
)
def test_two_numbers_are_the_same_if_they_differ_by_rounding_alone(one: float, other: float) -> None:
    assert is_same(one, one)
    assert is_same(one, one * (1 + 1e-12))
    assert is_same(one, other) == is_same(other, one) == (abs(one - other) <= 1e-9 * max(abs(one), abs(other)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(list(SPACE.dimensions)), inner),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60)
@given(raw=json_values | st.lists(st.dictionaries(st.sampled_from(list(SPACE.dimensions)), json_values, min_size=1)))
def test_whatever_a_file_holds_it_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, raw: Any) -> None:
    queue = tmp_path_factory.getbasetemp() / "any.yaml"
    queue.write_text(json.dumps(raw), encoding="utf-8")
    with contextlib.suppress(ConfigError):
        assert isinstance(read_queue(queue, SPACE), tuple)
