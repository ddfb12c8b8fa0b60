"""Whatever a file holds, its reader gives what it should or raises one of the errors that it names."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from epochs import make_epoch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from made_experiment import FAILED, make_experiment

from fmnist_models.checkpoint import load_checkpoint, load_weights, save_checkpoint, save_weights
from fmnist_models.data import CLASS_NAMES, Normalisation
from fmnist_models.errors import CheckpointError, FileError, SavedModelError
from fmnist_models.networks import build_network
from fmnist_models.saved_model import ModelConfig, load_model
from search.configuration.config import SearchConfig, load_config, parse_config
from search.errors import ConfigError, ExperimentError
from search.records.epochs_file import parse_epochs
from search.records.experiment import Experiment
from search.records.record import best_trial, read_study, repair_journal
from search.records.results import read_settings, read_trials
from search.review.display import plain_rows, trials_table
from search.study.search_study import SearchStudy
from search.yaml_file import dump_yaml, parse_yaml

CONFIG: dict[str, Any] = {
    "dataset": "synthetic",
    "metric": "val_accuracy",
    "space": {
        "model": {"choice": ["customnet", "resnet18"]},
        "lr": {"float": [1e-4, 1e-1], "log": True},
        "shift": {"int": [0, 14], "step": 2},
        "dropout": {"float": [0.0, 0.6], "step": 0.1},
        "unfreeze": {"subset": ["layer3", "layer4"]},
        "optimizer": "adamw",
    },
    "max_trials": 3,
    "max_epochs": 2,
    "pruner": "none",
}
fast = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

texts = st.text(max_size=8) | st.sampled_from(
    ["model", "lr", "choice", "float", "resnet18", "\ud800", "\x1b[2J", "1e5"]
)
numbers = st.integers() | st.floats() | st.sampled_from([10**30, 10**400, -1, 2**31, 2**63, 2**64])
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=8
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything in nested lists and mappings but the whole."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, part in parts for place in ((*path, key), *places(part, (*path, key)))]


@st.composite
def altered(draw: st.DrawFn, original: Any, *, spared: Collection[str] = ()) -> Any:
    """The original with one to three of its parts, but those spared, replaced, removed, renamed or put into a list."""
    copy = json.loads(json.dumps(original))
    for _ in range(draw(st.integers(1, 3))):
        there = [place for place in places(copy) if place[-1] not in spared]
        if not there:
            break
        *path, key = draw(st.sampled_from(there))
        parent = copy
        for part in path:
            parent = parent[part]
        match draw(st.sampled_from(("replace", "remove", "wrap", "rename"))):
            case "replace":
                parent[key] = draw(values)
            case "remove":
                del parent[key]
            case "wrap":
                parent[key] = [parent[key]]
            case "rename" if isinstance(parent, dict):
                parent[draw(texts)] = parent.pop(key)
    return copy


@st.composite
def altered_bytes(draw: st.DrawFn, original: bytes) -> bytes:
    """The original with a piece of it replaced, removed or doubled."""
    start = draw(st.integers(0, len(original)))
    stop = draw(st.integers(start, min(len(original), start + 64)))
    piece = draw(st.sampled_from((b"", original[start:stop] * 2)) | st.binary(max_size=16))
    return original[:start] + piece + original[stop:]


# Configurations


@fast
@given(raw=values | altered(CONFIG))
@example(raw={**CONFIG, "max_trials": 10**400})
@example(raw={**CONFIG, "space": {"model": "customnet", "lr": 10**400}})
@example(raw={**CONFIG, "space": {"model": "customnet", "lr": {"float": [0, 10**400]}}})
@example(raw={**CONFIG, "space": {"model": "customnet", "lr": {"float": [1e-300, 1], "step": 1e-300}}})
def test_a_configuration_is_whole_or_a_config_error(raw: Any) -> None:
    with contextlib.suppress(ConfigError):
        config = parse_config(raw, where="fuzz")
        assert parse_config(parse_yaml(config.to_yaml(), where="fuzz"), where="fuzz") == config


@fast
@given(raw=altered(CONFIG))
def test_a_configuration_is_read_from_a_file_or_a_config_error(raw: Any, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(raw), encoding="utf-8", errors="surrogateescape")
    with contextlib.suppress(ConfigError):
        config, name = load_config(path)
        assert (type(config), name) == (SearchConfig, "config")


@fast
@given(content=st.binary(max_size=200) | altered_bytes(dump_yaml(CONFIG).encode()))
def test_any_bytes_are_a_configuration_or_a_config_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with contextlib.suppress(ConfigError):
        load_config(path)


YAML_WORDS = (
    *"[]{},:?-|>&*!%@`'\"#~ \n\t=",
    *("&a ", "*a", "<<: ", "---\n", "2020-01-01", "0x", "0b", "1:30", ".inf"),
    *(f"!!{tag} " for tag in ("python/name:os.system", "int", "float", "set", "timestamp", "binary", "omap", "bool")),
)
yaml_words = st.lists(st.sampled_from(YAML_WORDS), max_size=20).map("".join)


@settings(fast, max_examples=400)
@given(text=st.text(max_size=60) | yaml_words)
@example(text="=")
@example(text="!!timestamp x")
@example(text="0x" + "f" * 10_000)
@example(text="!!int _")
@example(text="!!bool x")
@example(text="a: &a [*a]")
def test_text_is_yaml_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        repr(parse_yaml(text, where="fuzz"))


@fast
@given(
    override=st.text(max_size=30)
    | st.builds("{}={}".format, st.sampled_from(["space.lr", "seed", "a.b.c"]), yaml_words)
)
@example(override="space=[]")
@example(override="space.model.choice=3")
@example(override=".=")
def test_an_override_is_taken_or_a_config_error(override: str) -> None:
    with contextlib.suppress(ConfigError):
        load_config(preset="quickstart", overrides=[override])


# Journals

ADDRESS = ("op_code", "worker_id", "study_id", "trial_id")
"""What decides where an operation of a journal goes."""


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The operations of a real study's journal."""
    config = parse_config(CONFIG, where="test")
    made = make_experiment(tmp_path_factory.mktemp("lines") / "x", config, [[0.5, 0.75], FAILED, [0.5]])
    return [json.loads(line) for line in made.journal.read_text().splitlines()]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """An experiment whose journal is written anew each time."""
    made = Experiment(tmp_path_factory.mktemp("scratch") / "x")
    made.create()
    made.config.write_text(dump_yaml(CONFIG))
    return made


def read_everything(experiment: Experiment) -> None:
    trials = read_study(experiment).get_trials(deepcopy=False)
    best_trial(trials, "val_accuracy")
    table = read_trials(experiment)
    assert len(table) == len(trials)
    json.dumps(plain_rows(table), allow_nan=False).encode()
    table.to_csv().encode()
    trials_table(table, title="fuzz", metric="val_accuracy")


@st.composite
def altered_journal(draw: st.DrawFn, lines: list[Any]) -> str:
    """Operations left out, altered, and said again at the end."""
    left_out = draw(st.sets(st.sampled_from(range(len(lines))), max_size=4))
    operations = [line for number, line in enumerate(lines) if number not in left_out]
    for number in draw(st.lists(st.sampled_from(range(len(operations))), min_size=1, max_size=3)):
        spared = draw(st.sampled_from([(), ADDRESS]))
        operations[number] = draw(altered(operations[number], spared=spared))
    operations += draw(st.lists(st.sampled_from(lines), max_size=2))
    return "".join(json.dumps(operation) + "\n" for operation in operations)


@settings(fast, max_examples=300)
@given(data=st.data())
def test_a_journal_of_altered_operations_is_read_or_an_experiment_error(
    lines: list[Any], scratch: Experiment, data: st.DataObject
) -> None:
    scratch.journal.write_text(data.draw(altered_journal(lines)))
    with contextlib.suppress(ExperimentError):
        read_everything(scratch)


@fast
@given(data=st.data())
def test_a_search_continues_an_altered_journal_or_raises_an_experiment_error(
    lines: list[Any], scratch: Experiment, data: st.DataObject
) -> None:
    scratch.journal.write_text(data.draw(altered_journal(lines)))
    with contextlib.suppress(ExperimentError):
        study = SearchStudy.open(scratch, parse_config({**CONFIG, "max_trials": 4}, where="fuzz"))
        while (assignment := study.next_assignment()) is not None:
            study.report(assignment.number, make_epoch(2, 0.5))
        assert len(read_study(scratch).trials) >= 4


@fast
@given(data=st.data())
def test_a_journal_of_altered_bytes_is_read_or_an_experiment_error(
    lines: list[Any], scratch: Experiment, data: st.DataObject
) -> None:
    whole = "".join(json.dumps(line) + "\n" for line in lines).encode()
    scratch.journal.write_bytes(data.draw(altered_bytes(whole) | st.binary(max_size=50)))
    with contextlib.suppress(ExperimentError):
        repair_journal(scratch.journal)
        read_everything(scratch)


@fast
@given(raw=values | altered(CONFIG))
def test_settings_are_those_that_results_need_or_a_named_error(raw: Any, scratch: Experiment) -> None:
    before = scratch.config.read_text()
    try:
        scratch.config.write_text(json.dumps(raw))
        with contextlib.suppress(ConfigError, ExperimentError):
            found = read_settings(scratch)
            assert f"{found['dataset']} {found['max_trials']}"
            assert found["metric"] in ("val_accuracy", "val_loss")
    finally:
        scratch.config.write_text(before)


@fast
@given(
    content=altered_bytes(
        b"epoch,train_loss,train_accuracy,val_loss,val_accuracy,lr,epoch_s,dataset\n1,1,1,1,1,1,1,x\n"
    )
)
def test_a_table_of_epochs_is_read_or_a_value_error(content: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert all(epoch.epoch is not None for epoch in parse_epochs(content.decode(errors="replace")))


# Checkpoints and models


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model."""
    folder = tmp_path_factory.mktemp("model")
    save_weights(folder / "model.safetensors", build_network("customnet", {}).state_dict())
    return folder


SMALL = {"weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(3)}
CHECKPOINTS: dict[str, tuple[Callable[..., None], Callable[[Path], Any]]] = {
    "checkpoint": (save_checkpoint, load_checkpoint),
    "weights": (save_weights, load_weights),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
@fast
@given(data=st.data())
def test_altered_checkpoints_are_what_was_saved_or_a_checkpoint_error(
    kind: str, data: st.DataObject, tmp_path: Path
) -> None:
    save, load = CHECKPOINTS[kind]
    path = tmp_path / "checkpoint"
    save(path, SMALL)
    path.write_bytes(data.draw(altered_bytes(path.read_bytes())))
    with contextlib.suppress(CheckpointError):
        state = load(path)
        assert state.keys() == SMALL.keys()
        assert all(torch.equal(state[name], SMALL[name]) for name in SMALL)


MODEL_CONFIG = json.loads(
    ModelConfig(
        network="customnet",
        hyperparameters={"dropout": 0.4, "lr": 1e-3},
        normalisation=Normalisation(mean=0.25, std=0.5),
        class_names=CLASS_NAMES,
        dataset="synthetic",
    ).to_json()
)


@settings(fast, max_examples=100)
@given(raw=values | altered(MODEL_CONFIG))
@example(raw={**MODEL_CONFIG, "network": []})
@example(raw={**MODEL_CONFIG, "hyperparameters": None})
@example(raw={**MODEL_CONFIG, "normalisation": {"mean": 0, "std": 0}})
def test_an_altered_models_configuration_is_a_model_or_a_named_error(raw: Any, model_folder: Path) -> None:
    (model_folder / "config.json").write_text(json.dumps(raw))
    with contextlib.suppress(SavedModelError):
        _, config = load_model(model_folder)
        json.loads(config.to_json())


@fast
@given(content=altered_bytes(json.dumps(MODEL_CONFIG).encode()) | st.binary(max_size=50))
def test_altered_bytes_of_a_models_configuration_are_a_model_or_a_named_error(
    content: bytes, model_folder: Path
) -> None:
    (model_folder / "config.json").write_bytes(content)
    with contextlib.suppress(SavedModelError, FileError):
        load_model(model_folder)
