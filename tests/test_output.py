"""What a person names for a command to write: files, pipes, devices, links and folders, each as it is."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from command import fmnist as run_fmnist
from made_experiment import make_experiment

from fmnist_models.errors import OutputError
from fmnist_models.export import FORMATS, SAFETENSORS
from fmnist_models.output import output_folder, replaced_file, write_output
from search.configuration.config import parse_config
from search.records.experiment import Experiment
from search.report import watch_report

ROOT = Path(__file__).resolve().parents[1]
CONFIG = {
    "dataset": "synthetic",
    "space": {"model": "customnet", "lr": {"float": [1e-4, 1e-1], "log": True}},
    "max_trials": 2,
    "max_epochs": 2,
    "pruner": "none",
}
MEBIBYTE = b"x" * 2**20
"""More than a pipe holds."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    path = tmp_path_factory.mktemp("experiments") / "made"
    return make_experiment(path, parse_config(CONFIG, where="test"), [[0.5, 0.6], [0.7, 0.8]])


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A device of this test's own that is always full, as ``/dev/full``."""
    path = tmp_path / "full"
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))
        with path.open("wb", buffering=0) as device, pytest.raises(OSError, match="No space left"):
            device.write(b"x")
    except PermissionError:
        pytest.skip("only root makes devices, and not in every container")
    return path


def test_standard_output_that_is_closed_is_no_file_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", None)  # as Python has it after `>&-`
    for write in (lambda: write_output(Path("-"), "x"), lambda: replaced_file(Path("-"))):
        with pytest.raises(OutputError, match="standard output cannot be written: it is closed"):
            write()
    assert os.listdir(tmp_path) == []


class Reader:
    """Reads a named pipe to its end."""

    def __init__(self, pipe: Path) -> None:
        os.mkfifo(pipe)
        self.content = b""
        self._thread = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._thread.start()

    def _read(self, pipe: Path) -> None:
        self.content = pipe.read_bytes()

    def result(self) -> bytes:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.content


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(tmp_path / "pipe")


def kinds(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IFMT(path.lstat().st_mode) for path in folder.iterdir()}


def test_a_file_is_replaced_beside_itself_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "out"
    write_output(path, "é")
    assert path.read_bytes() == "é".encode()
    path.chmod(0o640)
    before = path.stat().st_ino
    write_output(path, b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o640)
    assert path.stat().st_ino != before
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to another user")
def test_a_file_of_another_user_stays_that_users(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    os.chown(path, 12345, 54321)
    write_output(path, "new")
    assert (path.read_text(), path.stat().st_uid, path.stat().st_gid) == ("new", 12345, 54321)


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_is_followed_to_its_target_which_is_replaced(exists: bool, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "out"
    if exists:
        target.write_text("old")
    (tmp_path / "second").symlink_to(Path("elsewhere", "out"))
    (tmp_path / "link").symlink_to("second")
    write_output(tmp_path / "link", "new")
    assert target.read_text() == "new"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "second").is_symlink()
    assert os.listdir(tmp_path / "elsewhere") == ["out"]


def test_a_pipe_is_written_into_and_stays_a_pipe(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("pipe")
    write_output(tmp_path / "link", MEBIBYTE)
    assert reader.result() == MEBIBYTE
    assert kinds(tmp_path) == {"pipe": stat.S_IFIFO, "link": stat.S_IFLNK}


def test_a_pipe_whose_reader_goes_away_is_one_message(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    thread = threading.Thread(target=lambda: os.close(os.open(tmp_path / "pipe", os.O_RDONLY)))
    thread.start()
    with pytest.raises(OutputError, match="the process reading from it has ended"):
        write_output(tmp_path / "pipe", MEBIBYTE)
    thread.join()


def test_a_device_is_written_into_and_stays_a_device(full: Path) -> None:
    with pytest.raises(OutputError, match="full cannot be written: No space left on device"):
        write_output(full, "x")
    assert kinds(full.parent) == {"full": stat.S_IFCHR}


def test_what_takes_no_file_is_refused_before_the_work_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("none/out")
    import socket

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        before = kinds(tmp_path)
        for name, message in {
            ".": "it is a folder; valid: a file in it",
            "none/out": f"there is no folder {tmp_path / 'none'}; make it first",
            "dangling": f"there is no folder {tmp_path / 'none'}; make it first",
            "file/out": f"there is no folder {tmp_path / 'file'}",
            "loop": "symbolic links",
            "socket": "valid: a file, a pipe, a character device or -",
            "x" * 300: "too long",
            "a\0b": "null",
        }.items():
            for act in (replaced_file, lambda path: write_output(path, "x")):
                with pytest.raises(OutputError, match=message):
                    act(tmp_path / name)
        assert kinds(tmp_path) == before


def test_a_folder_is_one_that_is_there_or_a_new_one_in_one_that_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    (tmp_path / "new-link").symlink_to("there/new")
    os.mkfifo(tmp_path / "pipe")
    for name, target in {"there": "there", "link": "there", "new": "new", "new-link": "there/new"}.items():
        assert output_folder(tmp_path / name) == tmp_path.resolve() / target
    for name in ("file", "pipe"):
        with pytest.raises(OutputError, match="it is not a folder"):
            output_folder(tmp_path / name)
    with pytest.raises(OutputError, match=f"there is no folder {tmp_path / 'none'}; make it first"):
        output_folder(tmp_path / "none" / "new")
    with pytest.raises(OutputError, match="standard output"):
        output_folder(Path("-"))


@pytest.fixture
def fmnist(made: Experiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("FMNIST_EXPERIMENTS_DIR", str(made.path.parent))
    return lambda *words: run_fmnist(capsys, *words)


FILE_WRITERS = {
    "trials": ("trials", "made", "--format", "csv"),
    "report": ("report", "made"),
}
FOLDER_WRITERS = {
    "tensorboard": ("tensorboard", "made"),
    "render": ("cluster", "render", "fleet.yaml"),
    "reproduce": ("reproduce", "blog-table", "--scale", "0.01"),
}


@pytest.mark.parametrize("command", FILE_WRITERS)
def test_every_command_that_writes_a_file_knows_a_pipe_a_device_a_parent_and_standard_output(
    command: str, fmnist: Any, reader: Reader, full: Path, tmp_path: Path
) -> None:
    words = FILE_WRITERS[command]
    assert fmnist(*words, "--output", tmp_path / "file")[0] == 0
    written = (tmp_path / "file").read_text()
    assert fmnist(*words, "--output", tmp_path / "pipe")[0] == 0
    assert reader.result().decode()[:100] == written[:100]
    code, out, err = fmnist(*words, "--output", "-")
    assert (code, out[:100]) == (0, written[:100])
    assert "standard output" in err
    code, _, err = fmnist(*words, "--output", full)
    assert (code, err) == (2, f"error: {full} cannot be written: No space left on device\n")
    code, _, err = fmnist(*words, "--output", tmp_path / "none" / "out")
    assert (code, err.count("\n")) == (2, 1)
    assert f"there is no folder {tmp_path / 'none'}" in err
    assert kinds(tmp_path) == {"file": stat.S_IFREG, "pipe": stat.S_IFIFO, "full": stat.S_IFCHR}


@pytest.mark.parametrize("command", FOLDER_WRITERS)
def test_every_command_that_writes_a_folder_refuses_what_is_none_and_makes_no_parent(
    command: str, fmnist: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet.yaml").write_text(fmnist("cluster", "render", "--example")[1])
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("pipe", "is not a folder"), ("none/new", "there is no folder"), ("-", "folder")):
        code, _, err = fmnist(*FOLDER_WRITERS[command], "--output", name)
        assert (code, err.count("\n")) == (2, 1), err
        assert message in err
    assert kinds(tmp_path) == {"fleet.yaml": stat.S_IFREG, "pipe": stat.S_IFIFO}


@pytest.mark.parametrize("format_name", FORMATS)
def test_an_export_is_refused_by_its_output_before_a_model_is_run(format_name: str, tmp_path: Path) -> None:
    from fmnist_models.export import check_output

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="there is no folder"):
        check_output(format_name, tmp_path / "none" / "model")
    for path in (tmp_path / "pipe", Path("-")):
        if format_name == SAFETENSORS:
            with pytest.raises(OutputError, match="folder"):
                check_output(format_name, path)
        else:
            check_output(format_name, path)


def test_a_page_that_is_written_again_and_again_wants_a_file(made: Experiment, fmnist: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("-")):
        with pytest.raises(OutputError, match=r"--watch writes a file again and again.*valid: a file"):
            watch_report(made, path, told=print)
    assert fmnist("report", "made", "--watch", "--output", tmp_path / "pipe")[0] == 2


def run_in_shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FMNIST_EXPERIMENTS_DIR": str(folder)}
    fmnist = f"{sys.executable} -m search.cli"
    return subprocess.run(
        command.replace("fmnist", fmnist), shell=True, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="needs /dev/stdout")
def test_a_file_that_standard_output_goes_to_is_not_replaced_under_it(made: Experiment, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run_in_shell(
        f"(echo before; fmnist trials made --format csv --output /dev/stdout; echo after) > {out}", made.path.parent
    )
    assert done.returncode == 0, done.stderr
    lines = out.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert lines[1].startswith("trial,state,")


def test_a_full_standard_output_is_one_message(made: Experiment, full: Path) -> None:
    for command in ("fmnist trials made --format csv", "fmnist trials made", "fmnist trials made --output - --json"):
        done = run_in_shell(f"{command} > {full}", made.path.parent)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "standard output" in done.stderr
        assert "No space left on device" in done.stderr
