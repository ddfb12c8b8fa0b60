"""`~` means a home folder wherever a person names a path: in an option, an environment variable or a file."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml
from command import fmnist as run_fmnist
from made_experiment import make_experiment
from typer.models import ParameterInfo

from cluster.errors import ClusterError
from cluster.folder import clusters_dir
from cluster.target import find_dashboard
from fmnist_models.data import data_root
from fmnist_models.errors import PathError, WeightsError
from fmnist_models.feature_cache import default_cache
from fmnist_models.networks.resnet18 import ResNet18Hyperparameters, build_resnet18
from fmnist_models.paths import cache_folder, expand_home
from fmnist_models.weights import load_pretrained
from search.cli import app
from search.cli.options import expanded
from search.cli.submitting import place
from search.configuration.config import load_config, parse_config
from search.configuration.enqueue import read_queue
from search.errors import ConfigError
from search.records.address import STUDY_STORAGE_VARIABLE, check_trust
from search.records.experiment import Experiment, experiments_dir, find_experiment
from search.records.store import Store
from search.running.preparation import with_full_paths

CONFIG = {"dataset": "synthetic", "space": {"model": "customnet"}, "max_trials": 1, "max_epochs": 1, "pruner": "none"}
NOBODY = "~no-such-user/x"
TEXTS = {
    # Options and arguments of text that are or may hold a path, all expanded where they are read: tested below.
    "paths": {
        "experiments_dir",
        "experiment",
        "experiments",
        "subject",
        "warm_start",
        "beside",
        "weights",
        "overrides",
    },
    # A path of the cluster's, expanded if that is this machine: tested below.
    "of the cluster": {"data_dir"},
    "no paths": {
        *("preset", "name", "names", "address", "cluster", "job_id", "tracking_uri", "mlflow_experiment", "host"),
        *("states", "where", "sort", "columns", "format_", "format_name", "table", "model"),
    },
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder; the current folder is another one, which must stay as it is."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    for name in ("XDG_CACHE_HOME", "FMNIST_DATA_DIR", "FMNIST_EXPERIMENTS_DIR", "FMNIST_CLUSTERS_DIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


def commands(typer_app: typer.Typer) -> Iterator[Callable[..., Any]]:
    callback = typer_app.registered_callback
    if callback is not None and callback.callback is not None:
        yield callback.callback
    for command in typer_app.registered_commands:
        assert command.callback is not None
        yield command.callback
    for group in typer_app.registered_groups:
        assert group.typer_instance is not None
        yield from commands(group.typer_instance)


def parameters() -> Iterator[tuple[str, str, set[type], ParameterInfo | None]]:
    """Command, name, types (of a list's items) and what typer is told of every option and argument."""
    for command in commands(app):
        for name, hint in typing.get_type_hints(command, include_extras=True).items():
            if name == "return":
                continue
            base, *more = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else [hint]
            types = {kind for part in (base, *typing.get_args(base)) for kind in (part, *typing.get_args(part))}
            info = next((item for item in more if isinstance(item, ParameterInfo)), None)
            yield command.__name__, name, types, info


def test_every_path_of_every_command_is_expanded() -> None:
    found = [(command, name, info) for command, name, types, info in parameters() if Path in types]
    assert len(found) >= 15
    for command, name, info in found:
        assert info is not None
        assert info.callback is expanded, f"{name} of {command}: callback=expanded is missing"


def test_every_text_of_every_command_is_known_to_be_a_path_or_none() -> None:
    known = set().union(*TEXTS.values())
    for command, name, types, _ in parameters():
        assert str not in types or name in known, f"{name} of {command}: is it a path? Say so in TEXTS, and test it"


def test_a_leading_tilde_is_a_home_folder_and_nothing_else_is(home: Path) -> None:
    import pwd

    assert expand_home("~") == home
    assert expand_home("~/a b/~") == home / "a b" / "~"
    assert expand_home(Path("~/x")) == home / "x"
    root = pwd.getpwuid(0)
    assert expand_home(f"~{root.pw_name}/x") == Path(root.pw_dir, "x")
    for text in ("./~", "a/~/b", "/~", "x~"):
        assert expand_home(text) == Path(text)
    with pytest.raises(PathError, match=r"~no-such-user/x: the home folder of ~no-such-user is unknown; valid: a full"):
        expand_home(NOBODY)


def test_options_expand_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "fleet.yaml").write_text(run_fmnist(capsys, "cluster", "render", "--example")[1])
    assert run_fmnist(capsys, "cluster", "render", "~/fleet.yaml", "--output=~/fleet")[0] == 0
    assert (home / "fleet" / "Dockerfile").is_file()
    code, _, err = run_fmnist(capsys, "predict", "x", "~/a.png", "~/b.png")
    assert code == 2
    assert all(str(home / name) in err for name in ("a.png", "b.png"))
    code, _, err = run_fmnist(capsys, "cluster", "render", NOBODY)
    assert (code, err.count("\n")) == (2, 1)
    assert "~no-such-user" in err
    assert list(Path.cwd().iterdir()) == []


def test_experiments_are_found_and_made_there(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_experiment(home / "mine" / "one", parse_config(CONFIG, where="test"), [[0.5]])
    assert experiments_dir("~/mine") == home / "mine"
    assert find_experiment("~/mine/one", directory=experiments_dir()) == made
    for words in (("trials", "one", "--experiments-dir=~/mine"), ("trials", "~/mine/one"), ("report", "~/mine/one")):
        assert run_fmnist(capsys, *words)[0] == 0
    monkeypatch.setenv("FMNIST_EXPERIMENTS_DIR", "~/mine")
    assert run_fmnist(capsys, "trials", "one", "--format", "csv", "--output=~/out.csv")[0] == 0
    assert (home / "out.csv").is_file()
    (home / "c.yaml").write_text("space: {model: none}")
    code, _, err = run_fmnist(capsys, "crossval", "~/c.yaml")
    assert code == 2
    assert str(home / "c.yaml") in err
    assert f"there is no experiment '{NOBODY}'" in run_fmnist(capsys, "trials", NOBODY)[2]
    assert list(Path.cwd().iterdir()) == []


def test_variables_expand_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_root() == home / ".cache" / "fmnist-search"
    assert clusters_dir() == home / ".local" / "state" / "fmnist-search" / "clusters"
    for name, value in {
        "FMNIST_DATA_DIR": "~/data",
        "FMNIST_EXPERIMENTS_DIR": "~/experiments",
        "FMNIST_CLUSTERS_DIR": "~/clusters",
        "XDG_CACHE_HOME": "~/cache",
    }.items():
        monkeypatch.setenv(name, value)
    assert data_root() == home / "data"
    assert data_root(Path("~/other")) == home / "other"
    assert experiments_dir() == home / "experiments"
    assert clusters_dir() == home / "clusters"
    assert cache_folder() == home / "cache" / "fmnist-search"
    cache = default_cache(1)
    assert cache is not None
    assert cache.folder.is_relative_to(home / "cache")
    assert Store("s3://bucket").local.is_relative_to(home / "cache")
    monkeypatch.delenv("FMNIST_CLUSTERS_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", "~/state")
    assert clusters_dir() == home / "state" / "fmnist-search" / "clusters"
    monkeypatch.setenv("FMNIST_CLUSTERS_DIR", NOBODY)
    with pytest.raises(ClusterError, match="~no-such-user"):
        clusters_dir()


def test_the_file_of_a_token_expands_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "token").write_text("secret\n")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "~/token")
    assert "secret" in repr(vars(find_dashboard(cluster=None, address="http://127.0.0.1:8265")))


def test_a_job_on_this_machine_has_full_paths_and_one_elsewhere_refuses_a_home_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert place("~/e", "~/d", is_here=True) == (str(home / "e"), str(home / "d"))
    monkeypatch.setenv("FMNIST_EXPERIMENTS_DIR", "~/e")
    monkeypatch.setenv("FMNIST_DATA_DIR", "~/d")
    assert place(None, None, is_here=True) == (str(home / "e"), str(home / "d"))
    with pytest.raises(ClusterError, match="~/d: on another machine's cluster a full path is needed"):
        place("/e", "~/d", is_here=False)


def test_weights_expand_it_in_a_space_an_override_and_a_queue(home: Path, tmp_path: Path) -> None:
    torch.save(
        build_resnet18(ResNet18Hyperparameters()).state_dict() | {"conv1.weight": torch.zeros(64, 3, 7, 7)},
        home / "w.pt",
    )
    assert load_pretrained("~/w.pt") is not None
    config, _ = load_config(overrides=["space.model=resnet18", "space.weights={choice: [none, ~/w.pt]}"])
    space = with_full_paths(config.space)
    assert space.dimensions["weights"].values() == ("none", str(home / "w.pt"))
    (tmp_path / "queue.yaml").write_text(yaml.safe_dump([{"weights": "~/w.pt"}, {"weights": str(home / "w.pt")}]))
    first, second = read_queue(tmp_path / "queue.yaml", space)
    assert first == second == {"weights": str(home / "w.pt")}
    with pytest.raises(PathError, match="~no-such-user"):
        load_pretrained(NOBODY)
    with pytest.raises(WeightsError, match=str(home)):
        load_pretrained("~/none.pt")


def test_a_database_of_sqlite_expands_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_config({**CONFIG, "study_storage": "sqlite:///~/st.db"}, where="test")
    assert config.study_storage == f"sqlite:///{home}/st.db"
    monkeypatch.setenv(STUDY_STORAGE_VARIABLE, "sqlite:///~/st.db")
    check_trust(Experiment(home / "x"), config.study_storage, to_write=True)
    with pytest.raises(ConfigError, match="~no-such-user"):
        parse_config({**CONFIG, "study_storage": f"sqlite:///{NOBODY}"}, where="test")


def test_the_callback_is_called_with_what_typer_gives() -> None:
    assert list(inspect.signature(expanded).parameters) == ["paths"]
    assert expanded(None) is None
    assert expanded([Path("a"), Path("b")]) == [Path("a"), Path("b")]
