"""Temporary folders: private, and nothing is opened, waited for or removed that may be somebody else's."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.temporary import make_folder, open_own, remove_folder, session_folder

NOBODY = 65534
HOLD = """
import sys, time
from cluster.temporary import session_folder
with session_folder(sys.argv[1]) as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def prefix() -> Iterator[str]:
    prefix = f"fmnist-test-{uuid.uuid4().hex[:8]}-"
    yield prefix
    for path in Path("/tmp").glob(f"{prefix}*"):
        shutil.rmtree(path)


@contextlib.contextmanager
def another_session(prefix: str) -> Iterator[Path]:
    """The folder of another process, which is killed at the block's end."""
    command = [sys.executable, "-c", HOLD, prefix]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Path(process.stdout.readline().strip())
        finally:
            process.send_signal(signal.SIGKILL)


@pytest.fixture
def left(prefix: str) -> Path:
    """A folder that a killed session left."""
    with another_session(prefix) as folder:
        pass
    assert folder.is_dir()
    return folder


def start_a_session(prefix: str) -> None:
    with session_folder(prefix):
        pass


def test_a_sessions_folder_is_this_users_alone_and_goes_with_the_session(prefix: str) -> None:
    with session_folder(prefix) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()] == [0o600]
    assert not folder.exists()


def test_the_folder_of_a_killed_session_is_removed_and_that_of_a_living_one_stays(prefix: str, left: Path) -> None:
    with another_session(prefix) as folder:
        assert folder != left
        assert not left.exists()
        start_a_session(prefix)
        assert folder.is_dir()


def test_the_folder_of_a_killed_session_stays_while_a_process_uses_it(prefix: str, left: Path) -> None:
    with (left / "log").open("w"):
        start_a_session(prefix)
        assert left.is_dir()
    start_a_session(prefix)
    assert not left.exists()


@pytest.mark.parametrize("text", [None, "", "pid 4711\n"])
def test_a_folder_without_the_mark_is_left_alone(prefix: str, text: str | None) -> None:
    """Whether or not there is a file of the mark's name."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    (folder / "thesis.tex").touch()
    if text is not None:
        (folder / "in-use").write_text(text)
    start_a_session(prefix)
    assert {path.name for path in folder.iterdir()} == {"thesis.tex"} | ({"in-use"} if text is not None else set())


@pytest.mark.parametrize("mode", [0o777, 0o750, 0o701])
def test_a_marked_folder_that_others_can_enter_is_left_alone(prefix: str, left: Path, mode: int) -> None:
    left.chmod(mode)
    start_a_session(prefix)
    assert left.is_dir()


@pytest.mark.parametrize("mode", [0o700, 0o777])
@pytest.mark.parametrize("trap", ["pipe", "link", "second name", "folder"])
def test_a_trap_in_the_marks_place_neither_hangs_a_session_nor_leads_it_elsewhere(
    prefix: str, left: Path, tmp_path: Path, trap: str, mode: int
) -> None:
    mark, target = left / "in-use", tmp_path / "target"
    text = mark.read_text()
    mark.unlink()
    if trap == "pipe":
        os.mkfifo(mark)
    elif trap == "folder":
        mark.mkdir()
    elif trap == "link":
        mark.symlink_to(target)
    else:
        mark.write_text(text)
        os.link(mark, left / "second")
    left.chmod(mode)
    start_a_session(prefix)
    assert left.is_dir()
    assert not target.exists()


@pytest.mark.parametrize("trap", ["pipe", "link", "file"])
def test_a_trap_in_a_folders_place_is_left_alone(prefix: str, left: Path, tmp_path: Path, trap: str) -> None:
    path = Path("/tmp", f"{prefix}trap")
    if trap == "pipe":
        os.mkfifo(path)
    elif trap == "file":
        path.touch()
    else:
        left.rename(tmp_path / "mine")
        path.symlink_to(tmp_path / "mine")
    start_a_session(prefix)
    assert os.path.lexists(path)
    assert trap != "link" or (tmp_path / "mine" / "in-use").exists()
    path.unlink()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_another_users_folder_is_left_alone_even_with_the_mark(prefix: str, left: Path) -> None:
    for path in (left / "in-use", left):
        os.chown(path, NOBODY, NOBODY)
    start_a_session(prefix)
    assert left.is_dir()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_can_read_nothing_in_a_folder_that_ray_opens_to_all(prefix: str) -> None:
    with session_folder(prefix) as folder:
        (folder / "ray").mkdir()
        (folder / "ray").chmod(0o777)
        (folder / "ray" / "secret").write_text("")
        child = os.fork()
        if child == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os._exit(sum(os.access(path, os.R_OK) for path in (folder, folder / "in-use", folder / "ray" / "secret")))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_folder_that_outlives_its_maker_is_removed_by_its_mark_alone(prefix: str) -> None:
    folder = make_folder(prefix, mark="0123/")
    start_a_session(prefix)
    remove_folder(folder, mark="4567/")
    assert folder.is_dir()
    remove_folder(folder, mark="0123/")
    assert not folder.exists()
    remove_folder(folder, mark="0123/")


def test_a_file_with_a_second_name_is_not_opened_and_keeps_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("text")
    os.link(tmp_path / "precious", tmp_path / ".lock")
    with pytest.raises(PermissionError, match="regular file"):
        open_own(tmp_path / ".lock", os.O_RDWR | os.O_CREAT)
    assert (tmp_path / "precious").read_text() == "text"
