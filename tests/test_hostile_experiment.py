"""A stranger's experiment, made to harm: every command opens it, nothing in it runs, and one message says why not."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from made_experiment import FAILED, make_experiment

from fmnist_models.checkpoint import load_checkpoint, save_checkpoint, save_weights
from fmnist_models.data import TrainingData
from fmnist_models.errors import UserError
from fmnist_models.saved_model import load_model
from fmnist_models.training import Training, TrainingPlan
from search.cli import main
from search.configuration.config import parse_config
from search.records.experiment import Experiment
from search.records.results import read_trials

NAME = "theirs"
CONFIG = {
    "dataset": "synthetic",
    "train_size": 100,
    "test_size": 10,
    "space": {"model": "customnet", "lr": {"float": [1e-4, 1e-1], "log": True}},
    "max_trials": 3,
    "max_epochs": 2,
    "pruner": "none",
}
LOOKING = (
    *(("trials", NAME), ("trials", NAME, "--json"), ("trials", "show", NAME, "0")),
    ("trials", "diff", NAME, "0", "2"),
)
READING = (
    *(("experiments", "compare", NAME, NAME), ("report", NAME, "--output", "page.html"), ("importance", NAME)),
    *(("export", NAME, "--format", "safetensors"), ("tensorboard", NAME)),
)
WORKING = (("evaluate", NAME), ("evaluate", NAME, "--trial", "2"), ("search", "resume", NAME))
BEST = "trials/00000/best.safetensors"
LAST = "trials/00000/last.pt"
# What a search writes but no command needs.
FOR_PEOPLE = (
    *("versions.json", "trials.csv", "search.log", ".lock", "best/model.safetensors", "best/config.json", ".ray/x.pkl"),
    *(
        "evaluation.json",
        "predictions.csv",
        "per_class.csv",
        "confusion_matrix.csv",
        "confusion_matrix.png",
        "trials/00000/epochs.csv",
    ),
    *("trials/00000/error.txt", "trials/00002/evaluation.json", LAST),
)
TEN_GIBIBYTES = 10 * 2**30


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture(scope="module")
def sound(synthetic_data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished search: two trials complete, with real checkpoints, and one failed."""
    config = parse_config(CONFIG, where="test")
    experiment = make_experiment(tmp_path_factory.mktemp("sound") / NAME, config, [[0.5, 0.75], FAILED, [0.5, 0.625]])
    plan = TrainingPlan(network="customnet", hyperparameters={}, num_epochs=2, seed=0)
    training = Training(plan, synthetic_data, device=torch.device("cpu"))
    for number in (0, 2):
        save_weights(experiment.trial(number).best, training.model.state_dict())
        save_checkpoint(experiment.trial(number).last, training.state_dict())
    return experiment.path


@pytest.fixture
def theirs(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """A copy of it to be altered, which commands find by its name."""
    monkeypatch.setenv("FMNIST_EXPERIMENTS_DIR", str(tmp_path / "experiments"))
    monkeypatch.chdir(tmp_path)
    return Experiment(Path(shutil.copytree(sound, tmp_path / "experiments" / NAME)))


@pytest.fixture
def fmnist(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs the command in this process: its exit code and all it says; fails if it takes long or shows a traceback."""

    def run(*arguments: str) -> tuple[int, str]:
        start_s = time.monotonic()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["fmnist", *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
        captured = capsys.readouterr()
        assert time.monotonic() - start_s < 20
        assert "\x1b" not in captured.out + captured.err
        assert captured.err.count("error: ") == (ended.value.code == 2)
        return int(ended.value.code or 0), captured.out + captured.err

    return run


def put(experiment: Experiment, name: str, content: bytes | int) -> Path:
    """A file with this content, or, for a number, one of that size without any."""
    path = experiment.path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else b"")
    if isinstance(content, int):
        os.truncate(path, content)
    return path


@contextmanager
def little_memory() -> Iterator[None]:
    """Lets this process have half a gibibyte more than it has."""
    has_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (has_bytes + 2**29, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def add_to_journal(experiment: Experiment, *operations: Any) -> None:
    with experiment.journal.open("a") as file:
        file.writelines(json.dumps(operation) + "\n" for operation in operations)


def new_trial(**more: Any) -> dict[str, Any]:
    """A complete trial in one operation, as the journal has it."""
    began = "2025-01-01T00:00:00.000000+00:00"
    trial = {"op_code": 4, "worker_id": "w", "study_id": 0, "datetime_start": began, "datetime_complete": began}
    return {**trial, "state": 1, "value": 0.5, "values": None, "params": {}, "distributions": {}, **more}


def choice(value: str) -> str:
    return json.dumps({"name": "CategoricalDistribution", "attributes": {"choices": [value]}})


def test_a_sound_experiment_is_opened_by_every_command(theirs: Experiment, fmnist: Any) -> None:
    for command in (*LOOKING, ("experiments",), *WORKING):
        assert fmnist(*command)[0] == 0
    load_model(theirs.path / "best")


@pytest.mark.parametrize("attack", ["pickle", "sparse"])
def test_bombs_in_files_for_people_change_nothing(theirs: Experiment, fmnist: Any, tmp_path: Path, attack: str) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "marker")) if attack == "pickle" else TEN_GIBIBYTES
    with little_memory():
        for command in (*LOOKING, ("experiments",), *WORKING):
            for name in FOR_PEOPLE:
                put(theirs, name, bomb)
            assert fmnist(*command)[0] == 0
        for read in (lambda: load_checkpoint(put(theirs, LAST, bomb)), lambda: load_model(theirs.path / "best")):
            put(theirs, "best/config.json", bomb)
            with pytest.raises(UserError):
                read()
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("attack", ["pickle", "sparse", "tail"])
@pytest.mark.parametrize("name", ["config.yaml", "study.journal", "warm_start.json", BEST])
def test_a_bomb_in_a_file_that_is_needed_is_refused_by_its_name(
    theirs: Experiment, fmnist: Any, tmp_path: Path, name: str, attack: str
) -> None:
    if attack == "tail" and (theirs.path / name).exists():
        os.truncate(theirs.path / name, TEN_GIBIBYTES)
    else:
        put(theirs, name, pickle.dumps(Bomb(tmp_path / "marker")) if attack == "pickle" else TEN_GIBIBYTES)
    looking, working = {"warm_start.json": (0, 0), BEST: (0, 2)}.get(name, (2, 2))
    with little_memory():
        for command in LOOKING:
            assert fmnist(*command)[0] == looking
        assert fmnist("experiments")[0] == 0
        for command in (("evaluate", NAME), ("search", "resume", NAME)):
            code, said = fmnist(*command)
            assert code == (2 if command[0] == "search" else working)
            assert code == 0 or name in said.replace("\n", "")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "line",
    [
        "metric: !!python/object/apply:os.mkdir [marker]",
        "metric: !!python/object/new:os.mkdir [marker]",
        "metric: !!python/object/apply:subprocess.check_call [[mkdir, marker]]",
        "metric: !!python/name:os.mkdir",
        "metric: !!python/module:os",
        "!!python/object/apply:os.mkdir [marker]: 1",
        "- &a0 [x]\n" + "".join(f"- &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(9)),
        "a: &a [*a]",
        "max_trials: 0x" + "f" * 10_000,
        'metric: "\\e[2J[/red]\\ud800"',
        "metric: [val_accuracy]",
        "[" * 1_000,
    ],
    ids=lambda line: line[:50],
)  # fmt: skip
def test_a_configuration_that_constructs_or_explodes_is_refused(
    theirs: Experiment, fmnist: Any, tmp_path: Path, line: str
) -> None:
    theirs.config.write_text(line + "\n")
    with little_memory():
        for command in (*LOOKING, *WORKING):
            code, said = fmnist(*command)
            assert code == 2
            assert "config.yaml" in said.replace("\n", "")
        assert fmnist("experiments")[0] == 0
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "operation",
    [
        {"op_code": 99, "worker_id": "w"},
        {"op_code": 1, "worker_id": "w", "study_id": 0},
        {"op_code": 0, "worker_id": "w", "study_name": "another", "directions": [1]},
        ["op_code", 4],
        "cos\nmkdir\n(S'marker'\ntR.",
        new_trial(params={"lr": 1}),
        new_trial(params={"lr": 0}, distributions={"lr": '{"name": "os.mkdir", "attributes": {"path": "marker"}}'}),
        new_trial(value="best"),
        new_trial(intermediate_values={"1": "0.5"}),
        new_trial(user_attrs=[["reason", "x"]]),
        new_trial(datetime_start="yesterday"),
        new_trial(state=4, value=None, datetime_complete=None),  # waiting, which a search never leaves a trial
    ],
    ids=lambda operation: str(operation)[:70],
)
def test_a_journal_with_a_foreign_operation_is_refused(theirs: Experiment, fmnist: Any, operation: Any) -> None:
    add_to_journal(theirs, operation, new_trial())
    for command in (*LOOKING, *WORKING):
        code, said = fmnist(*command)
        assert code == 2
        assert "study.journal" in said.replace("\n", "")
    assert fmnist("experiments")[0] == 0


NASTY = (
    *(
        "\x1b[2J\x1b]0;owned\x07",
        "\x1b]8;;file:///etc/passwd\x1b\\here\x1b]8;;\x1b\\",
        "a\rb",
        "\u202edlrow",
        "\x9b31m",
    ),
    *("[red]red[/red]", "[/nothing]", "[link=file:///etc/passwd]here[/link]", ":bomb:", "<script>alert(1)</script>"),
    *("../../../outside", "=cmd|' /C calc'!A0", "a\nb", "\0", ""),
)


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_names_and_messages_are_shown_and_do_nothing(
    theirs: Experiment, fmnist: Any, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    notes = {"reason": text, "message": text}
    add_to_journal(
        theirs,
        new_trial(params={text: 0, "model": 0}, distributions={text: choice(text), "model": choice(text)}),
        new_trial(params={"trial": 0, "state": 0, "reason": 0}, distributions=dict.fromkeys(
            ("trial", "state", "reason"), choice(text)
        )),
        new_trial(state=3, value=None, user_attrs=notes),
    )  # fmt: skip
    code, said = fmnist("trials", NAME, "--all")
    assert code == 0
    if text.isprintable():
        assert f"{text}={text} model={text}" in said
        assert f"{text}: {text} ()" in said
    for more in (
        *(["show", NAME, "3"], ["show", NAME, "5"], ["diff", NAME, "0", "3"], [NAME, "--columns", "model,message"]),
        *([NAME, "--all", "--format", "csv"], [NAME, "--format", "markdown"], [NAME, "--format", "parquet"]),
        *([NAME, "--where", f"model={text}"], [NAME, "--sort", "model"]),
    ):
        to_file = ["--output", "trials.parquet"] if "parquet" in more else []
        assert fmnist("trials", *more, *to_file)[0] == 0
    code, said = fmnist("trials", NAME, "--json")
    assert code == 0
    shown = json.loads(said)["trials"]
    assert [row["trial"] for row in shown] == [0, 2, 3, 4, 1, 5]
    assert (shown[2]["model"], shown[5]["message"]) == (text, text)
    assert fmnist("experiments")[0] == 0
    read_trials(theirs).to_csv().encode()


@pytest.mark.parametrize("name", ["[red]red", "$\\frac$", "\x1b[2J", "\u202eb", "<b>", "-x", "a\nb"], ids=ascii)
def test_the_name_of_a_folder_is_shown_and_does_nothing(theirs: Experiment, fmnist: Any, name: str) -> None:
    folder = theirs.path.rename(theirs.path.with_name(name))
    for command in (("trials",), ("trials", "--json"), ("evaluate",), ("search", "resume")):
        assert fmnist(*command, f"./experiments/{name}")[0] == 0
    assert fmnist("experiments")[0] == 0
    code, said = fmnist("trials", "unknown")
    assert code == 2
    assert "valid: " in said
    (folder / "link").symlink_to("/etc")
    assert fmnist("trials", str(folder))[0] == 2


def test_a_trial_of_another_space_is_not_evaluated(theirs: Experiment, fmnist: Any) -> None:
    there = {"params": {"lr": 0}, "distributions": {"lr": choice("../../x")}, "intermediate_values": {"1": 1.0}}
    add_to_journal(theirs, new_trial(value=1.0, **there))
    shutil.copytree(theirs.trial(0).path, theirs.trial(3).path)
    for command in (("evaluate", NAME), ("evaluate", NAME, "--trial", "3"), ("search", "resume", NAME)):
        code, said = fmnist(*command)
        assert code == 2
        assert "trial 3" in said


def test_weights_of_another_network_are_not_evaluated(theirs: Experiment, fmnist: Any) -> None:
    save_weights(theirs.trial(0).best, {"fc.weight": torch.zeros(10, 5)})
    code, said = fmnist("evaluate", NAME)
    assert code == 2
    assert BEST in said.replace("\n", "")


ENTRIES = (
    *("config.yaml", "study.journal", "versions.json", "trials.csv", "search.log", ".lock", "evaluation.json", ".ray"),
    *("best", "best/config.json", "trials", "trials/00000", BEST, LAST, "trials/00000/epochs.csv", "notes"),
)


@pytest.mark.parametrize("name", ENTRIES)
def test_a_link_out_of_the_folder_is_refused_and_not_followed(
    theirs: Experiment, fmnist: Any, tmp_path: Path, name: str
) -> None:
    (theirs.path / "best").mkdir()
    (theirs.path / ".ray").mkdir()
    outside, entry = tmp_path / "outside", theirs.path / name
    if entry.exists():
        entry.rename(outside)
    else:
        outside.write_text("mine")
    entry.symlink_to(outside)
    before = snapshot(outside)
    Path("same.yaml").write_text(json.dumps(CONFIG))
    for command in (*LOOKING, *WORKING, ("search", "run", "same.yaml", "--name", NAME)):
        code, said = fmnist(*command)
        assert code == 2
        assert f"{entry} is a link" in said.replace("\n", "")
    fmnist("experiments")
    assert snapshot(outside) == before
    removed = fmnist("experiments", "remove", NAME, "--yes")[0] == 0
    assert removed == (not theirs.path.exists()) == (name != ".lock")
    assert snapshot(outside) == before


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, socket.socket(socket.AF_UNIX) as server:
        patch.chdir(path.parent)  # the path of a socket has a limit
        server.bind(path.name)


@pytest.mark.parametrize("make", [make_pipe, make_socket])
@pytest.mark.parametrize(
    "name", ["config.yaml", "versions.json", ".lock", "search.log", BEST, "trials/00000/epochs.csv"]
)
def test_a_pipe_and_a_socket_keep_nobody_waiting(
    theirs: Experiment, fmnist: Any, name: str, make: Callable[[Path], None]
) -> None:
    (theirs.path / name).unlink(missing_ok=True)
    make(theirs.path / name)
    for command in (*LOOKING, *READING, *WORKING):
        code, said = fmnist(*command)
        assert code == 2
        assert "special file" in said
    assert fmnist("experiments")[0] == 0


@pytest.mark.parametrize("name", ["config.yaml", "versions.json"])
def test_a_folder_in_the_place_of_a_file_is_refused_in_one_message(theirs: Experiment, fmnist: Any, name: str) -> None:
    (theirs.path / name).unlink(missing_ok=True)
    (theirs.path / name).mkdir()
    for command in (*LOOKING, *READING):
        fmnist(*command)  # which fails on a traceback, or on a second message
    assert fmnist("search", "resume", NAME)[0] == 2
    assert fmnist("experiments")[0] == 0


def test_a_link_to_an_experiment_and_the_lock_of_its_journal_are_no_harm(theirs: Experiment, fmnist: Any) -> None:
    (theirs.path.parent / "mine").symlink_to(theirs.path)
    theirs.journal.with_name("study.journal.lock").symlink_to(theirs.journal)
    assert fmnist("trials", "mine")[0] == 0
    assert fmnist("search", "resume", "mine")[0] == 0


@pytest.mark.parametrize("name", ["evaluation.json", "best/model.safetensors", "per_class.csv", "confusion_matrix.png"])
def test_a_folder_where_a_result_belongs_is_named(theirs: Experiment, fmnist: Any, name: str) -> None:
    (theirs.path / name).mkdir(parents=True)
    code, said = fmnist("evaluate", NAME)
    assert code == 2
    assert name in said.replace("\n", "")


def snapshot(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in [path, *path.rglob("*")] if file.is_file()}
