"""A Ray of one's own while a block runs: on loopback (on Linux), its own folder, silent, gone afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import ray

# Ray replaces 127.0.0.1 by the machine's outer address; the rest of Linux's loopback range it keeps.
_ADDRESS = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"

_PREFIX = "fmnist-ray-"
_LOCK = "in-use"
_SECONDS_TO_LOCK = 2.0  # in which who makes a folder will have locked it


@contextlib.contextmanager
def local_ray(*, num_cpus: int, num_gpus: int, dashboard: bool = False, log: Path | None = None) -> Iterator[None]:
    """Starts Ray in this process with the given resources and ends it with the block.

    ``dashboard``: also its dashboard, on loopback. A worker group needs it: what frees the workers of a trial that was
    stopped asks it which actors live, and without an answer they stay and the next trial waits for ever.

    Whatever another Ray on this machine does is left alone. What Ray logs goes to the file ``log``, if given, and
    not to the screen. Signals do what they did before; Ray would have its own way with them.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    with _temporary_folder() as folder, _log_to(log) as handler:
        try:
            with _keeping_signals():
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    num_gpus=num_gpus,
                    include_dashboard=dashboard,
                    log_to_driver=False,
                    configure_logging=False,
                    _node_ip_address=_ADDRESS,
                    _temp_dir=str(folder),
                )
            logging.getLogger("ray").handlers[:] = [handler]  # ray.init clears them
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _keeping_signals() -> Iterator[None]:
    """Puts back the signal handlers that ray.init replaces; what comes meanwhile is delivered to them afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    terminated = False
    try:
        yield
    except SystemExit:  # how Ray answers SIGTERM
        terminated = True
        raise
    finally:
        for number, before in handlers.items():
            signal.signal(number, before)
        if terminated:
            signal.raise_signal(signal.SIGTERM)


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder for Ray's files, removed afterwards, and with it those of processes that were killed before they could.

    Not under $TMPDIR: the paths of Ray's sockets in it may have some 100 characters.
    """
    for left in Path("/tmp").glob(f"{_PREFIX}*"):
        _remove_if_left(left)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir="/tmp"))
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the system frees it when this process ends, however it ends
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_if_left(folder: Path) -> None:
    try:
        if time.time() - folder.stat().st_ctime < _SECONDS_TO_LOCK:
            return
        with (folder / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return  # in use, or of another user, or about to be used


@contextlib.contextmanager
def _log_to(path: Path | None) -> Iterator[logging.Handler]:
    """Leads Ray's loggers, some of which have a screen handler of their own, to one file."""
    handler = logging.NullHandler() if path is None else logging.FileHandler(path, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.split(".")[0] == "ray"]
    before = [(logger, logger.handlers[:], logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers[:] = [handler]
        logger.propagate = False
    try:
        yield handler
    finally:
        for logger, handlers, propagate in before:
            logger.handlers[:] = handlers
            logger.propagate = propagate
        handler.close()
