"""The file that Ray's log goes to: a plain one of its own, or none."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from cluster.session import ray_log

RAY = logging.getLogger("ray")


def test_what_ray_logs_goes_to_the_file_and_what_was_there_stays(tmp_path: Path) -> None:
    log = tmp_path / "x" / "search.log"
    with ray_log(log):
        RAY.warning("before there is a folder")
        log.parent.mkdir()
        log.write_text("earlier\n")
        RAY.warning("ü")
    earlier, first, second = log.read_text(encoding="utf-8").splitlines()
    assert (earlier, first[-24:], second[-1]) == ("earlier", "before there is a folder", "ü")


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder"])
def test_what_stands_in_the_logs_place_is_not_written_to_and_stops_nothing(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    precious, log = tmp_path / "precious", tmp_path / "search.log"
    precious.write_text("mine")
    match kind:
        case "link":
            log.symlink_to(precious)
        case "hard link":
            os.link(precious, log)
        case "pipe":
            os.mkfifo(log)
        case "folder":
            log.mkdir()
    with ray_log(log):
        RAY.warning("one")
        RAY.warning("two")
    assert precious.read_text() == "mine"
    [warning] = caplog.messages
    assert warning.startswith(f"{log} cannot be written (")
    assert warning.endswith("); Ray's log is lost")


def test_a_pipe_that_somebody_reads_is_not_written_to(tmp_path: Path) -> None:
    log = tmp_path / "search.log"
    os.mkfifo(log)
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with ray_log(log):
            RAY.warning("one")
            assert os.read(reader, 100) == b""
    finally:
        os.close(reader)
