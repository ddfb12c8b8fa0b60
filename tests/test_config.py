from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fmnist_models.hyperparameters import domains
from fmnist_models.networks import NETWORKS
from fmnist_models.recipe import Recipe
from search.configuration.config import PRESETS, SearchConfig, load_config, parse_config
from search.configuration.dimensions import Fixed, FloatRange
from search.errors import ConfigError
from search.yaml_file import parse_yaml, read_yaml

SPACE = {"model": "customnet"}
HYPERPARAMETERS = [
    *Recipe.__dataclass_fields__,
    *(name for network in NETWORKS.values() for name in domains(network.hyperparameters)),
]


def error_of(raw: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(raw, where="my.yaml")
    return str(caught.value)


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "my.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_loads_and_survives_being_written_and_read(preset: str) -> None:
    config, name = load_config(preset=preset)
    assert name == preset
    assert parse_config(parse_yaml(config.to_yaml(), where="again"), where="again") == config


@pytest.mark.parametrize("weights", ["1e-4", "none", "1_000", "yes", "ä b.pt", "~", "2001-01-01", "#x", "a: b"])
def test_a_path_that_looks_like_something_else_survives_being_written_and_read(weights: str) -> None:
    config = parse_config({"space": {"model": "resnet18", "weights": weights}}, where="test")
    assert parse_config(parse_yaml(config.to_yaml(), where="again"), where="again") == config


@settings(deadline=None)
@given(
    time_budget_s=st.none() | st.floats(1e-9, 1e12),
    validation_fraction=st.floats(1e-9, 0.999),
    lr=st.floats(1e-7, 10.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_numbers_survive_being_written_and_read(
    time_budget_s: float | None, validation_fraction: float, lr: float, seed: int
) -> None:
    raw = {"time_budget_s": time_budget_s, "validation_fraction": validation_fraction, "seed": seed}
    config = parse_config({"space": {"model": "customnet", "lr": lr}, **raw}, where="test")
    assert parse_config(parse_yaml(config.to_yaml(), where="again"), where="again") == config


def test_a_file_gives_a_config_and_its_name(tmp_path: Path) -> None:
    path = written(tmp_path, "space: {model: customnet, lr: 1e-4}\nmax_trials: 7\n")
    config, name = load_config(path)
    assert (config.max_trials, config.space.dimensions["lr"], name) == (7, Fixed(1e-4), "my")


@pytest.mark.parametrize(("text", "number"), [("1e-4", 1e-4), ("-3E2", -300.0), ("1.5e3", 1500.0), ("1e+2", 100.0)])
def test_scientific_notation_is_a_number(text: str, number: float) -> None:
    value = parse_yaml(text, where="test")
    assert isinstance(value, float)
    assert value == number


def test_overrides_reach_inside_and_the_last_one_wins() -> None:
    overrides = [
        "max_trials=3",
        "max_trials = 4",
        "time_budget_s=1e2",
        "space.lr=1e-3",
        "space.dropout={float: [0, 0.2]}",
        "space.weights=a=b.pt",
    ]
    config, _ = load_config(preset="quickstart", overrides=overrides)
    space = config.space.dimensions
    assert (config.max_trials, config.time_budget_s) == (4, 100.0)
    assert (space["lr"], space["dropout"], space["weights"]) == (Fixed(1e-3), FloatRange(0, 0.2), Fixed("a=b.pt"))
    assert "schedule" in space, "what is not overridden stays"


@pytest.mark.parametrize(
    ("override", "address"),
    [
        ("study_storage='sqlite:////tmp/st #1.db'", "sqlite:////tmp/st #1.db"),
        ('study_storage="sqlite:////tmp/st: 1.db "', "sqlite:////tmp/st: 1.db "),
        ("study_storage=sqlite:////tmp/st#1.db", "sqlite:////tmp/st#1.db"),
        ("study_storage=sqlite:////tmp/100%.db", "sqlite:////tmp/100%.db"),
        ("study_storage = sqlite:////tmp/st.db", "sqlite:////tmp/st.db"),
    ],
)
def test_an_override_keeps_every_character_of_an_address(override: str, address: str) -> None:
    config, _ = load_config(overrides=[override])
    assert config.study_storage == address
    assert parse_config(parse_yaml(config.to_yaml(), where="again"), where="again").study_storage == address


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("max_trials", ["'max_trials'", "key=value"]),
        ("=3", ["'=3'", "key=value"]),
        ("space..lr=3", ["'space..lr=3'", "key=value"]),
        (".=3", ["'.=3'", "key=value"]),
        ("max_trials.x=3", ["'max_trials.x=3'", "max_trials holds no keys"]),
        ("space.lr.float.low=3", ["float"]),
        ("space.lr={float: [1", ["space.lr", "not YAML"]),
        ("max_trials=", ["max_trials", "None"]),
        ("trials=3", ["'trials'", "max_trials"]),
        ("space=3", ["space must map", "3"]),
        ("study_storage=sqlite:////tmp/st #1.db", ["--set study_storage", "#", "quote the value"]),
        ("max_trials=5 # many", ["--set max_trials", "#"]),
        ("dataset=#synthetic", ["--set dataset", "#"]),
        ("mlflow={tracking_uri: http://h #x\n}", ["--set mlflow", "#"]),
        ("study_storage=sqlite:////tmp/st.db ", ["--set study_storage", "ends with blanks"]),
        ("study_storage=sqlite:////tmp/st: 1.db", ["study_storage"]),
        ("study_storage=sqlite:////tmp/st.db?mode=ro", ["study_storage", "'?'"]),
    ],
)
def test_a_malformed_override_is_refused_by_name(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[override])
    assert [word for word in words if word not in str(caught.value)] == []


def test_an_override_of_a_file_that_maps_nothing_blames_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must map keys to values"):
        load_config(written(tmp_path, "[1, 2]"), overrides=["max_trials=3"])


def test_a_file_and_a_preset_together_and_an_unknown_preset_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not both"):
        load_config(written(tmp_path, "space: {model: customnet}"), preset="full")
    with pytest.raises(ConfigError, match="'fast'; valid: quickstart, paper-customnet, paper-resnet18, full"):
        load_config(preset="fast")


def test_an_unknown_key_lists_the_valid_ones() -> None:
    message = error_of({"space": SPACE, "epochs": 3})
    assert "my.yaml" in message
    assert "'epochs'" in message
    assert [key for key in SearchConfig.model_fields if key not in message] == []


def test_several_wrong_keys_are_all_named_in_one_message() -> None:
    wrong = {"space": {"model": "vgg"}, "epochs": 3, "max_trials": -1, "metric": "test_accuracy", "seed": "x"}
    message = error_of(wrong)
    words = ["'vgg'", "'epochs'", "max_trials", "-1", "metric", "'test_accuracy'", "seed", "'x'"]
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("max_trials", 0, ["0", "1"]),
        ("max_trials", "5", ["'5'", "integer"]),
        ("max_trials", 5.0, ["5.0", "integer"]),
        ("max_trials", True, ["True", "integer"]),
        ("max_trials", None, ["None", "integer"]),
        ("max_epochs", [3], ["[3]", "integer"]),
        ("train_size", 99, ["99", "100"]),
        ("train_size", 60_001, ["60001", "60000"]),
        ("test_size", 9, ["9", "10"]),
        ("validation_fraction", 0, ["0", "greater than 0"]),
        ("validation_fraction", 1, ["1", "less than 1"]),
        ("validation_fraction", math.nan, ["nan", "finite"]),
        ("time_budget_s", math.inf, ["inf", "finite"]),
        ("time_budget_s", -1, ["-1", "greater than 0"]),
        ("time_budget_s", True, ["True", "number"]),
        ("cpus_per_trial", 0, ["0", "greater than 0"]),
        ("cpus_per_trial", "2", ["'2'", "number"]),
        ("cpus_per_trial", True, ["True", "number"]),
        ("gpus_per_trial", -0.5, ["-0.5", "0"]),
        ("gpus_per_trial", math.nan, ["nan", "finite"]),
        ("gpus_per_trial", True, ["True", "number"]),
        ("gpus_per_trial", 1.5, ["whole", "1.5"]),
        ("gpus_per_trial", 10**400, ["number"]),
        ("min_epochs", 11, ["max_epochs", "11 > 10"]),
        ("reduction_factor", 1, ["1", "2"]),
        ("workers_per_trial", 0, ["0", "1"]),
        ("max_concurrent_trials", 0, ["0", "1"]),
        ("metric", "accuracy", ["'val_accuracy'", "'val_loss'", "'accuracy'"]),
        ("sampler", "grid", ["'tpe'", "'random'", "'grid'"]),
        ("pruner", False, ["'halving'", "False"]),
        ("precision", 16, ["'bf16'", "16"]),
        ("dataset", "mnist", ["'synthetic'", "'mnist'"]),
        ("seed", -1, ["-1", "0"]),
        ("seed", 2**32, [str(2**32), str(2**32 - 1)]),
    ],
    ids=lambda part: str(part)[:20],
)
def test_a_wrong_value_is_refused_with_key_value_and_what_is_valid(key: str, value: Any, words: list[str]) -> None:
    message = error_of({"space": SPACE, key: value})
    assert [word for word in ["my.yaml", key, *words] if word not in message] == []


@pytest.mark.parametrize("raw", [None, [], [1, 2], "text", 3, True])
def test_what_maps_nothing_is_no_config(raw: Any) -> None:
    assert "must map keys to values" in error_of(raw)


def test_a_space_is_needed() -> None:
    assert "space is missing" in error_of({})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("space: {model: [customnet", ["not YAML", "line 1"]),
        ("space: 1\nspace: 2\n", ["'space'", "twice"]),
        ("space: {lr: 1, lr: 2}", ["'lr'", "twice"]),
        ("a: b: c", ["not YAML"]),
        ("\t- a", ["not YAML"]),
        ("space: *nobody", ["nobody"]),
        (b"\x80\x81\xff", ["UTF-8"]),
        (b"PK\x03\x04\x00\x00", ["not YAML"]),
        ("[" * 5_000, ["not YAML"]),
    ],
    ids=lambda part: str(part)[:20],
)
def test_a_damaged_file_is_refused_by_its_name(tmp_path: Path, content: str | bytes, words: list[str]) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert [word for word in [str(path), *words] if word not in str(caught.value)] == []


@pytest.mark.parametrize("name", ["missing.yaml", "folder", "folder/missing/deep.yaml", "x" * 300])
def test_a_file_that_cannot_be_read_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / name)


@pytest.mark.parametrize("tag", ["python/object/apply:os.system", "python/object/new:os.system", "python/name:os"])
def test_a_file_executes_nothing(tmp_path: Path, tag: str) -> None:
    trace = tmp_path / "executed"
    with pytest.raises(ConfigError, match="not YAML"):
        load_config(written(tmp_path, f"space: !!{tag} ['touch {trace}']"))
    assert not trace.exists()


def test_a_config_is_frozen() -> None:
    config = parse_config({"space": SPACE}, where="test")
    with pytest.raises(ValidationError):
        config.max_trials = 5
    with pytest.raises(AttributeError):
        config.space.dimensions = {}  # type: ignore[misc]


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
words = st.sampled_from(["customnet", "resnet18", "sgd", "none", "layer4", "auto", "fc"])
values = st.recursive(
    scalars | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4),
    max_leaves=8,
)
ranges = st.dictionaries(
    st.sampled_from(["float", "int", "choice", "subset", "log", "step"]),
    st.lists(scalars | words, max_size=3) | values,
    max_size=3,
)
raw_spaces = st.fixed_dictionaries(
    {"model": st.sampled_from(["customnet", "resnet18"]) | ranges | values},
    optional=dict.fromkeys(HYPERPARAMETERS, ranges | values),
)
raw_configs = st.fixed_dictionaries(
    {"space": raw_spaces | values},
    optional=dict.fromkeys([key for key in SearchConfig.model_fields if key != "space"], values),
)


@settings(deadline=None, max_examples=150)
@given(raw=raw_configs | values)
@example(raw={"space": {"model": "customnet", "lr": {"float": [-1.7e308, 1.7e308], "step": 1}}})
@example(raw={"space": {"model": "customnet", "lr": {"float": [0.1, 1], "step": math.inf}}})
@example(raw={"space": {"model": "customnet", "lr": {"float": [10**400, 10**401]}}})
@example(raw={"space": {"model": {"customnet"}}})
@example(raw={"space": SPACE, "cpus_per_trial": 10**400})
def test_whatever_a_file_holds_is_a_config_or_a_config_error(raw: Any) -> None:
    try:
        config = parse_config(raw, where="fuzz")
    except ConfigError:
        return
    assert parse_config(parse_yaml(config.to_yaml(), where="again"), where="again") == config


@settings(deadline=None, max_examples=150)
@given(content=st.binary(max_size=60) | st.text(max_size=60) | st.text("!:{}[]-&*<>?|%@'\"#,.0e1~ \nabc", max_size=40))
@example(content="!!map [a]")
@example(content="!!set [a]")
@example(content="!!bool maybe")
@example(content="!!int ''")
@example(content="!!float ''")
@example(content="!!timestamp soon")
@example(content="2001-13-01")
@example(content="? [a]\n: b")
@example(content="&a [*a]")
def test_whatever_bytes_a_file_holds_it_is_read_or_a_config_error(
    content: bytes | str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(errors="surrogatepass"))
    with contextlib.suppress(ConfigError):
        read_yaml(path)
