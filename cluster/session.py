"""A Ray of one's own while a block runs: on loopback (on Linux), its own folder, silent, gone afterwards."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import ray

# Ray replaces 127.0.0.1 by the machine's outer address; the rest of Linux's loopback range it keeps.
_ADDRESS = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"


@dataclass
class Session:
    """``terminated``: whether SIGTERM came."""

    terminated: bool = False


@contextlib.contextmanager
def local_ray(*, num_cpus: int, num_gpus: int, dashboard: bool = False, log: Path | None = None) -> Iterator[Session]:
    """Starts Ray in this process with the given resources and ends it with the block.

    ``dashboard``: also its dashboard, on loopback. A worker group needs it: what frees the workers of a trial that was
    stopped asks it which actors live, and without an answer they stay and the next trial waits for ever.

    Whatever another Ray on this machine does is left alone. What Ray logs goes to the file ``log``, if given, and
    not to the screen. Within the block SIGTERM does what Ctrl-C does, as Ray would otherwise die of it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    # Not under $TMPDIR: the paths of Ray's sockets in it may have some 100 characters.
    folder = tempfile.mkdtemp(prefix="fmnist-ray-", dir="/tmp")
    with _log_to(log) as handler:
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                num_gpus=num_gpus,
                include_dashboard=dashboard,
                log_to_driver=False,
                configure_logging=False,
                _node_ip_address=_ADDRESS,
                _temp_dir=folder,
            )
            logging.getLogger("ray").handlers[:] = [handler]  # ray.init clears them
            with _sigterm_as_sigint() as session:
                yield session
        finally:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


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


@contextlib.contextmanager
def _sigterm_as_sigint() -> Iterator[Session]:
    session = Session()
    if threading.current_thread() is not threading.main_thread():
        yield session
        return

    def interrupt(signal_number: int, frame: FrameType | None) -> None:
        session.terminated = True
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield session
    finally:
        signal.signal(signal.SIGTERM, before)
