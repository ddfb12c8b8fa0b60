"""`fmnist experiments`: listing a folder's experiments, and removing some."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from made_experiment import make_experiment

from cluster.errors import ClusterError
from cluster.folder import cluster_folder
from search.cli import main
from search.configuration.config import SearchConfig, parse_config
from search.errors import ExperimentError
from search.records.experiment import Experiment
from search.records.inventory import State, find_holder, list_experiments, summarise
from search.records.lock import hold_experiment, lock_experiment
from search.records.removal import find_removable, remove_experiments

REPOSITORY = Path(__file__).parent.parent
NUM_EPOCHS = 2
Make: TypeAlias = Callable[[Path], Experiment]
HOLD = """
import sys
from pathlib import Path
from search.records.experiment import Experiment
from search.records.lock import lock_experiment
with lock_experiment(Experiment(Path(sys.argv[1]))):
    print("holding", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of experiments; not made yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FMNIST_EXPERIMENTS_DIR", str(tmp_path / "experiments"))
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path / "experiments"


def make_config(**changes: Any) -> SearchConfig:
    space = {"model": "customnet", "lr": {"float": [1e-4, 1e-1], "log": True}}
    settings = {"space": space, "dataset": "synthetic", "max_trials": 2, "max_epochs": NUM_EPOCHS, "pruner": "none"}
    return parse_config(settings | changes, where="test")


@pytest.fixture(scope="module")
def make_finished(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes an experiment in which both of two trials are complete."""
    made = make_experiment(tmp_path_factory.mktemp("made") / "x", make_config(), [[0.5, 0.75], [0.5, 0.625]])
    return lambda path: Experiment(shutil.copytree(made.path, path))


def make_interrupted(path: Path) -> Experiment:
    return make_experiment(path, make_config(max_trials=3), [[0.25, 0.5], [0.75]])


def fmnist(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Runs the command in this process; gives its exit code, standard output and standard error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fmnist", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    code, out, _ = fmnist(capsys, "experiments", "--json")
    assert code == 0
    return {row["name"]: row for row in json.loads(out)["experiments"]}


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with when it was changed and what it holds."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@contextlib.contextmanager
def held_by_another(experiment: Experiment) -> Iterator[subprocess.Popen[str]]:
    """Another process holds the experiment; it may be killed inside."""
    command = [sys.executable, "-c", HOLD, str(experiment.path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holding\n"
        yield holder
        holder.kill()


@contextlib.contextmanager
def typed(text: str) -> Iterator[None]:
    """Standard input is a terminal at which somebody has typed this."""
    keyboard, terminal = pty.openpty()
    os.write(keyboard, text.encode())
    with os.fdopen(terminal, encoding="utf-8") as stdin, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        yield
    os.close(keyboard)


def test_the_list_tells_what_each_experiment_is(
    folder: Path, capsys: pytest.CaptureFixture[str], make_finished: Make
) -> None:
    make_finished(folder / "done")
    make_interrupted(folder / "cut")
    make_experiment(folder / "by-loss", make_config(metric="val_loss", max_trials=1), [[0.5, 0.75]])
    (make_finished(folder / "torn").journal).write_text("no journal\n")
    held = make_finished(folder / "held")
    with lock_experiment(held):
        rows = listed(capsys)
    assert [(name, row["state"], row["trials"], row["max_trials"]) for name, row in rows.items()] == [
        ("by-loss", "finished", 1, 1),
        ("cut", "interrupted", 1, 3),
        ("done", "finished", 2, 2),
        ("held", "running", 2, 2),
        ("torn", "damaged", None, None),
    ]
    assert {name: (row["metric"], row["best_value"]) for name, row in rows.items()} == {
        "by-loss": ("val_loss", 0.25),
        "cut": ("val_accuracy", 0.5),
        "done": ("val_accuracy", 0.75),
        "held": ("val_accuracy", 0.75),
        "torn": (None, None),
    }
    assert {name for name, row in rows.items() if row["dataset"] == "synthetic"} == set(rows) - {"torn"}
    assert "study.journal" in rows["torn"]["message"]
    assert {name for name, row in rows.items() if row["holder"] is not None} == {"held"}
    assert f"process {os.getpid()} on" in rows["held"]["holder"]


def test_the_table_shows_the_same_to_a_person(
    folder: Path, capsys: pytest.CaptureFixture[str], make_finished: Make
) -> None:
    make_finished(folder / "done")
    make_finished(folder / "gone").journal.unlink()
    code, out, err = fmnist(capsys, "experiments")
    assert (code, err) == (0, "")
    header, done, gone, message = out.splitlines()
    assert header.split() == ["experiment", "state", "trials", "best", "changed", "size"]
    assert done.split()[:6] == ["done", "finished", "2/2", "0.7500", "synthetic", "val_accuracy"]
    assert gone.split()[:2] == ["gone", "damaged"]
    assert message.startswith("gone: ")
    assert "study.journal" in message


def test_size_is_what_the_disk_holds_and_changed_when_the_last_file_was(folder: Path, make_finished: Make) -> None:
    experiment = make_finished(folder / "x")
    before = summarise(experiment).size_bytes
    (experiment.path / "deep" / "er").mkdir(parents=True)
    (experiment.path / "deep" / "er" / "weights").write_bytes(os.urandom(1_000_000))
    with (experiment.path / "sparse").open("wb") as file:
        file.truncate(10 * 10**9)
    newest_s = 2_000_000_000
    os.utime(experiment.path / "deep" / "er" / "weights", (0, newest_s))
    summary = summarise(experiment)
    assert 1_000_000 <= summary.size_bytes - before < 1_100_000
    assert summary.changed is not None
    assert summary.changed.timestamp() == newest_s


@pytest.mark.parametrize("arguments", [[], ["--json"]], ids=["table", "json"])
def test_listing_makes_and_changes_no_file(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], make_finished: Make
) -> None:
    make_finished(folder / "done").lock.unlink()
    make_interrupted(folder / "cut")
    make_finished(folder / "gone").journal.unlink()
    with lock_experiment(make_finished(folder / "held")):
        before = snapshot(folder)
        assert fmnist(capsys, "experiments", *arguments)[0] == 0
        assert snapshot(folder) == before


def test_looking_at_a_lock_does_not_take_it_away(folder: Path) -> None:
    experiment = make_interrupted(folder / "x")
    with held_by_another(experiment) as holder:
        for _ in range(3):
            told = find_holder(experiment)
            assert told is not None
            assert f"process {holder.pid} on" in told
        with pytest.raises(ExperimentError, match=str(holder.pid)), lock_experiment(experiment):
            pass
        assert summarise(experiment).state == State.RUNNING
        holder.kill()
        holder.wait()
        assert find_holder(experiment) is None, "the lock of a process that was killed"
        assert summarise(experiment).state == State.INTERRUPTED
    with lock_experiment(experiment):
        assert find_holder(experiment) is not None


def _replace(name: str, content: bytes) -> Callable[[Experiment], None]:
    def damage(experiment: Experiment) -> None:
        (experiment.path / name).write_bytes(content)

    return damage


def _change_config(**changes: Any) -> Callable[[Experiment], None]:
    def damage(experiment: Experiment) -> None:
        experiment.config.write_text(json.dumps({**make_config().model_dump(), **changes}))

    return damage


def _named_pipe(experiment: Experiment) -> None:
    experiment.lock.unlink()
    os.mkfifo(experiment.lock)
    experiment.journal.unlink()


def _linked_lock(experiment: Experiment) -> None:
    experiment.lock.unlink()
    experiment.lock.symlink_to(experiment.config)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda experiment: experiment.config.unlink(), "config.yaml"),
        (lambda experiment: experiment.journal.unlink(), "study.journal"),
        (_replace("config.yaml", b"space: [unclosed"), "config.yaml is not YAML"),
        (_replace("config.yaml", b"\xff\xfe\x00"), "config.yaml"),
        (_replace("config.yaml", b"[1, 2]"), "config.yaml is not a search's configuration"),
        (_replace("study.journal", b""), "study.journal should hold one study"),
        (_replace("study.journal", os.urandom(4096)), "study.journal"),
        (_replace("study.journal", b'{"op_code": 99}\n'), "study.journal"),
        (_replace("study.journal", b"[" * 100_000 + b"\n"), "study.journal"),
        (_change_config(max_trials="many"), "config.yaml is not a search's configuration"),
        (_change_config(dataset=["x"]), "config.yaml is not a search's configuration"),
        (_change_config(metric={}), "config.yaml"),
        (_named_pipe, "special file"),
        (_linked_lock, ".lock"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_that_is_damaged_says_why_and_does_not_stop_the_list(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Experiment], None],
    words: str,
    make_finished: Make,
) -> None:
    damage(make_finished(folder / "a"))
    make_finished(folder / "b")
    rows = listed(capsys)
    assert [row["state"] for row in rows.values()] == ["damaged", "finished"]
    assert words in rows["a"]["message"]
    code, out, _ = fmnist(capsys, "experiments")
    assert code == 0
    assert "damaged" in out


def test_names_are_shown_as_they_are_and_control_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], make_finished: Make
) -> None:
    names = {
        "[bold]x": "[bold]x",
        "a\nb": r"a\nb",
        "a\r\x07b": r"a\r\x07b",
        "a\x1b[31mb": r"a\x1b[31mb",
        "b\udcff": r"b\udcff",
        "ü 日本": "ü 日本",
        "\u202etxt": r"\u202etxt",
    }
    for name in names:
        make_finished(folder / name)
    code, out, _ = fmnist(capsys, "experiments")
    assert code == 0
    assert [row.partition("  ")[0] for row in out.split("\n")[1:-1]] == list(names.values())
    assert all(character.isprintable() for row in out.split("\n") for character in row)
    assert list(listed(capsys)) == list(names)
    code, out, _ = fmnist(capsys, "experiments", "remove", *names, "--yes")
    assert code == 0
    assert out.split("\n")[-len(names) - 1 : -1] == [f"removed {shown}" for shown in names.values()]
    assert os.listdir(folder) == []


@pytest.mark.parametrize("exists", [True, False], ids=["empty", "missing"])
def test_a_folder_without_experiments_gets_a_line_that_helps(
    folder: Path, capsys: pytest.CaptureFixture[str], exists: bool
) -> None:
    if exists:
        folder.mkdir()
        (folder / "notes.txt").write_text("no experiment")
        (folder / "empty").mkdir()
    code, out, _ = fmnist(capsys, "experiments")
    assert code == 0
    assert [word for word in (str(folder), "fmnist search run", "--experiments-dir") if word not in out] == []
    code, out, _ = fmnist(capsys, "experiments", "--json")
    assert (code, json.loads(out)) == (0, {"experiments_dir": str(folder), "experiments": []})
    assert folder.exists() == exists


def test_a_file_in_the_folders_place_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.write_text("no folder")
    code, _, err = fmnist(capsys, "experiments")
    assert code == 2
    assert str(folder) in err


def test_listing_and_removing_load_neither_ray_nor_torch(folder: Path, make_finished: Make) -> None:
    make_finished(folder / "x")
    script = (
        "import sys\nfrom search.cli import main\n"
        "for sys.argv in (['fmnist', 'experiments'], ['fmnist', 'experiments', 'remove', 'x', '--yes']):\n"
        "    try:\n        main()\n    except SystemExit as ended:\n        assert not ended.code\n"
        "assert not {'ray', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "removed x" in done.stdout


def test_what_is_removed_is_shown_and_asked_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c"):
        make_interrupted(folder / name)
    before = snapshot(folder)
    for declined in ("n\n", "\n", "\x04"):
        with typed(declined):
            code, out, _ = fmnist(capsys, "experiments", "remove", "c", "a", "c")
        assert code == 1
        assert "c: 1 of 3 trials, " in out
        assert "remove these 2 experiments" in out
        assert snapshot(folder) == before
    with typed("y\n"):
        code, out, _ = fmnist(capsys, "experiments", "remove", "c", "a")
    assert code == 0
    assert out.endswith("removed c\nremoved a\n")
    assert os.listdir(folder) == ["b"]


def test_without_a_terminal_nothing_is_removed_unless_yes_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], make_finished: Make
) -> None:
    make_finished(folder / "x")
    with open(os.devnull, encoding="utf-8") as nothing, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", nothing)
        code, out, err = fmnist(capsys, "experiments", "remove", "x")
    assert code == 2
    assert "x: 2 of 2 trials, " in out
    assert "--yes" in err
    assert os.listdir(folder) == ["x"]
    assert fmnist(capsys, "experiments", "remove", "x", "--yes")[0] == 0
    assert os.listdir(folder) == []


@pytest.mark.parametrize("position", ["before", "after"])
def test_the_folder_may_be_named_before_and_after_the_word_remove(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], position: str, make_finished: Make
) -> None:
    make_finished(tmp_path / "other" / "x")
    where = ["--experiments-dir", "other"]
    arguments = [*where, "remove", "x"] if position == "before" else ["remove", "x", *where]
    assert fmnist(capsys, "experiments", *arguments, "--yes")[0] == 0
    assert os.listdir("other") == []


def test_only_names_of_experiments_in_the_folder_are_removed(
    folder: Path, capsys: pytest.CaptureFixture[str], make_finished: Make
) -> None:
    for path in (folder / "a", folder / "b", folder / ".hidden", folder / "inner" / "x", folder.parent / "x"):
        make_finished(path)
    (folder / "file").write_text("no experiment")
    before = snapshot(folder.parent)
    for name in ("../x", "inner/x", "a/", str(folder / "a"), "..", ".", "", "*", ".hidden", "inner", "file", "nothing"):
        for names in ([name], ["a", name], [name, "a"]):
            code, out, err = fmnist(capsys, "experiments", "remove", "--yes", "--", *names)
            assert (code, out) == (2, "")
            assert repr(name) in err
            assert "is a path; valid: the name" in err if "/" in name else "valid: a, b\n" in err
    assert snapshot(folder.parent) == before


def test_one_that_runs_is_not_removed_and_neither_are_others_named_with_it(
    folder: Path, capsys: pytest.CaptureFixture[str], make_finished: Make
) -> None:
    make_finished(folder / "a")
    held = make_interrupted(folder / "held")
    (folder / "link").symlink_to(held.path)
    with lock_experiment(held):
        before = snapshot(folder)
        for name in ("held", "link"):
            code, _, err = fmnist(capsys, "experiments", "remove", "a", name, "--yes")
            assert code == 2
            assert f"is being run by process {os.getpid()}" in err
        with pytest.raises(ExperimentError, match="is being run by"):
            list(remove_experiments([Experiment(folder / "a"), held], directory=folder))
        after = snapshot(folder)
        assert {p: v for p, v in after.items() if not p.endswith("a/.lock")} == {
            p: v for p, v in before.items() if not p.endswith("a/.lock")
        }
    assert fmnist(capsys, "experiments", "remove", "a", "held", "--yes")[0] == 0


def test_nobody_starts_an_experiment_while_it_is_being_removed(folder: Path) -> None:
    for name in ("a", "b"):
        make_interrupted(folder / name)
    removing = remove_experiments(find_removable(["a", "b"], directory=folder), directory=folder)
    assert next(removing).name == "a"
    with pytest.raises(ExperimentError, match="is being run"), lock_experiment(Experiment(folder / "b")):
        pass
    assert [experiment.name for experiment in removing] == ["b"]
    assert os.listdir(folder) == []


def test_of_an_experiment_that_is_a_link_the_link_is_removed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], make_finished: Make
) -> None:
    real = make_finished(tmp_path / "elsewhere" / "x")
    folder.mkdir()
    (folder / "link").symlink_to(real.path)
    before = snapshot(real.path)
    assert listed(capsys)["link"]["state"] == "finished"
    code, out, _ = fmnist(capsys, "experiments", "remove", "link", "--yes")
    assert code == 0
    assert f"link: a link to {real.path}, which stays" in out
    assert os.listdir(folder) == []
    assert snapshot(real.path) == before


def test_a_link_inside_an_experiment_is_removed_and_not_followed(
    folder: Path, tmp_path: Path, make_finished: Make
) -> None:
    experiment = make_finished(folder / "x")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "data").write_text("kept")
    (experiment.path / "link").symlink_to(tmp_path / "precious")
    list(remove_experiments([experiment], directory=folder))
    assert (tmp_path / "precious" / "data").read_text() == "kept"


def test_a_removal_that_is_cut_short_leaves_nothing_that_looks_like_an_experiment(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, make_finished: Make
) -> None:
    for name in ("a", "b"):
        make_finished(folder / name)
    with monkeypatch.context() as patch:

        def interrupt(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(shutil, "rmtree", interrupt)
        with pytest.raises(KeyboardInterrupt):
            list(remove_experiments([Experiment(folder / "a")], directory=folder))
    [leftover] = [name for name in os.listdir(folder) if name != "b"]
    assert leftover.startswith(".")
    assert list(listed(capsys)) == ["b"]
    make_interrupted(folder / "a")
    assert [experiment.name for experiment in list_experiments(folder)] == ["a", "b"], "the name is free again"
    assert fmnist(capsys, "experiments", "remove", "b", "--yes")[0] == 0
    assert os.listdir(folder) == ["a"]


@pytest.mark.parametrize("damage", ["config.yaml", "study.journal", ".lock"])
def test_a_damaged_experiment_can_be_removed_too(
    folder: Path, capsys: pytest.CaptureFixture[str], damage: str, make_finished: Make
) -> None:
    (make_finished(folder / "x").path / damage).unlink()
    assert fmnist(capsys, "experiments", "remove", "x", "--yes")[0] == 0
    assert os.listdir(folder) == []


def test_a_lock_that_is_a_link_is_not_written_through(
    folder: Path, capsys: pytest.CaptureFixture[str], make_finished: Make
) -> None:
    experiment = make_finished(folder / "x")
    _linked_lock(experiment)
    before = snapshot(folder)
    code, _, err = fmnist(capsys, "experiments", "remove", "x", "--yes")
    assert code == 2
    assert ".lock" in err
    assert snapshot(folder) == before


def test_a_hard_linked_lock_leaves_the_file_of_the_other_name_as_it_is(folder: Path, make_finished: Make) -> None:
    experiment = make_finished(folder / "x")
    experiment.lock.unlink()
    precious = folder / "precious"
    precious.write_text("mine")
    os.link(precious, experiment.lock)
    with lock_experiment(experiment):
        assert find_holder(experiment) == find_holder(Experiment(experiment.path))
        assert str(os.getpid()) in str(find_holder(experiment))
        with pytest.raises(ExperimentError, match="is being run by"), lock_experiment(experiment):
            pass
    assert (precious.read_text(), precious.stat().st_nlink) == ("mine", 1)


@pytest.mark.parametrize("name", ["study.journal", "search.log"])
def test_a_search_does_not_grow_a_file_that_is_hard_linked_elsewhere(
    name: str, folder: Path, make_finished: Make
) -> None:
    experiment = make_finished(folder / "x")
    (experiment.path / name).touch()
    os.link(experiment.path / name, folder / "other")
    before = (folder / "other").read_bytes()
    with pytest.raises(ExperimentError, match=f"{name} is hard-linked"), hold_experiment(experiment):
        pass
    assert (folder / "other").read_bytes() == before


def test_a_cluster_is_held_without_emptying_or_following_what_is_in_its_locks_place(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    cluster = cluster_folder("x", directory=tmp_path / "clusters")
    cluster.path.parent.mkdir()
    lock = tmp_path / "clusters" / ".x.lock"
    os.link(precious, lock)
    with pytest.raises(ClusterError, match="cannot be used"), cluster.hold():
        pass
    lock.unlink()
    with cluster.hold(), pytest.raises(ClusterError, match="is being started or ended"), cluster.hold():
        pass
    lock.unlink()
    lock.symlink_to(precious)
    with pytest.raises(ClusterError, match="cannot be used"), cluster.hold():
        pass
    assert precious.read_text() == "mine"
