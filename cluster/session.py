"""This process in a Ray while a block runs: in one of its own, on loopback (on Linux), silent and gone afterwards, or
in one that is there."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import logging
import os
import signal
import stat
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray._private import parameter, ray_constants, services
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker
from ray._private.node import Node
from ray.exceptions import RayError

from cluster import heap
from cluster.errors import ClusterGoneError
from cluster.ray_processes import dying_with_parent, make_job_config, replaced, without_native_trace
from cluster.temporary import session_folder
from cluster.token import given_token, own_token

_ADDRESS = "127.0.0.1"  # with any other, also of loopback, Ray's servers listen on all addresses
_PREFIX = "fmnist-ray-"
_IDLE_MS = "idle_worker_killing_time_threshold_ms"


@contextlib.contextmanager
def local_ray(*, num_cpus: int, num_gpus: int, log: Path | None = None, preload: Sequence[str] = ()) -> Iterator[None]:
    """Starts Ray in this process with the given resources and ends it with the block.

    Whatever another Ray on this machine does is left alone. What Ray logs goes to the file ``log``, if given, and
    not to the screen. Signals do what they did before; Ray would have its own way with them. Processes that wait
    for tasks load the modules ``preload`` meanwhile; they are not to be of a package that this process has from its
    own ``sys.path``, which they are told with their first task.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    with session_folder(_PREFIX) as folder, own_token(folder / "token"), ray_log(log) as handler:
        try:
            with (
                _keeping_signals(),
                without_native_trace(),
                heap.inherited_by_children(),
                _few_parts(),
                _on_loopback(),
            ):
                ray.init(
                    address="local",
                    job_config=make_job_config(),
                    num_cpus=num_cpus,
                    num_gpus=num_gpus,
                    include_dashboard=False,
                    log_to_driver=False,
                    configure_logging=False,
                    _node_ip_address=_ADDRESS,
                    _temp_dir=str(folder / "ray"),  # which Ray opens to all users
                    _system_config=_for_waiting_processes(preload),
                )
            logging.getLogger("ray").handlers[:] = [handler]  # ray.init clears them
            yield
        finally:
            ray.shutdown()


class BackgroundRay:
    """``local_ray`` in a thread, so that this process can do something else while it starts."""

    def __init__(self, *, num_cpus: int, num_gpus: int, log: Path | None = None, preload: Sequence[str] = ()) -> None:
        self._settings: dict[str, Any] = {"num_cpus": num_cpus, "num_gpus": num_gpus, "log": log, "preload": preload}
        self._thread = threading.Thread(target=self._live, name="ray")
        self._is_begun = False
        self._is_up, self._is_over, self._is_gone = threading.Event(), threading.Event(), threading.Event()
        self._failure: BaseException | None = None  # to start
        self._failure_to_stop: BaseException | None = None

    def start(self) -> None:
        """Begins to start it; once."""
        if self._is_begun:
            return
        try:
            self._is_begun = True
            self._thread.start()
        except BaseException as failure:
            if self._thread.ident is None:  # there may be no more threads
                self._failure = failure
                self._is_up.set()
                self._is_gone.set()
            raise

    def wait(self) -> None:
        """Returns when it is there, or raises what became of it. Starts it, if nobody has."""
        self.start()
        self._is_up.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Returns when it is gone, and its processes with it, also if it is interrupted meanwhile; the first time it
        raises what went wrong with that. That it never started is for who waits for it."""
        self._is_over.set()
        if self._is_begun:
            try:
                self._is_gone.wait()
            except KeyboardInterrupt:
                self._is_gone.wait()
                raise
        failure, self._failure_to_stop = self._failure_to_stop, None
        if failure is not None:
            raise failure

    def _live(self) -> None:
        try:
            with local_ray(**self._settings):
                self._is_up.set()
                self._is_over.wait()
        except BaseException as failure:
            if self._is_up.is_set():
                self._failure_to_stop = failure
            else:
                self._failure = failure
        finally:
            self._is_up.set()
            self._is_gone.set()


@contextlib.contextmanager
def connected_ray(address: str) -> Iterator[None]:
    """Connects this process to a Ray cluster, ``host:port`` or ``auto`` within one of its jobs, until the block's end.

    Signals do what they did before, and nothing that Ray logs comes on the screen (see ``ray_log``).

    Raises:
        ClusterError: the environment's variables for Ray's token lead to none.
        ClusterGoneError: no cluster answers there, or it refuses the token.
    """
    with given_token(), ray_log(None) as handler:
        try:
            with _keeping_signals(), without_native_trace():
                ray.init(address=address, job_config=make_job_config(), log_to_driver=False, configure_logging=False)
        except (ConnectionError, RayError, RuntimeError, ValueError) as error:
            raise ClusterGoneError(f"no Ray cluster answers at {address}: {str(error).strip()[:300]}") from error
        try:
            logging.getLogger("ray").handlers[:] = [handler]  # ray.init clears them
            yield
        finally:
            ray.shutdown()


def _for_waiting_processes(preload: Sequence[str]) -> dict[str, Any]:
    """Ray's settings by which the processes that it starts ahead, one for each CPU, load ``preload`` and stay for
    minutes, not for a second; what a person has set in the environment stands."""
    settings: dict[str, Any] = {"preload_python_modules": list(preload), _IDLE_MS: 600_000} if preload else {}
    return {name: value for name, value in settings.items() if f"RAY_{name}" not in os.environ}


def _few_parts() -> contextlib.AbstractContextManager[None]:
    """Keeps ``ray.init``, which has no switch for them, from starting the server of a dashboard (it does, and waits for
    it, without a dashboard too), what asks for more machines, what reads workers' logs for the screen, and the servers
    of the node's agent, which it leaves out where the dashboard's packages are missing; and has the agents end with
    their node."""
    return replaced(
        (Node, "start_api_server", lambda _: _start_no_api_server),
        (parameter, "RayParams", lambda made: functools.partial(made, no_monitor=True, include_log_monitor=False)),
        (ray_utils, "get_dashboard_dependency_error", lambda _: lambda: ImportError("no dashboard")),
        (services, "_build_python_executable_command_memory_profileable", dying_with_parent),
    )


def _on_loopback() -> contextlib.AbstractContextManager[None]:
    """Keeps ``ray.init`` from replacing 127.0.0.1 by the machine's outer address, for which it has no switch."""
    return replaced((services, "resolve_ip_for_localhost", lambda _: lambda host: host))


def _start_no_api_server(node: Any, **_: object) -> None:
    node._webui_url = ""
    # Until it finds an address, the node's agent asks for one and logs a traceback each second.
    key, nowhere = ray_constants.DASHBOARD_ADDRESS.encode(), f"{_ADDRESS}:0".encode()
    node.get_gcs_client().internal_kv_put(key, nowhere, True, ray_constants.KV_NAMESPACE_DASHBOARD)


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
            handler = handlers[signal.SIGTERM]
            if callable(handler):  # a signal raised anew would count as a second one (see ``interruptible``)
                handler(signal.SIGTERM, None)
            else:
                signal.raise_signal(signal.SIGTERM)


@contextlib.contextmanager
def ray_log(path: Path | None) -> Iterator[logging.Handler]:
    """Leads Ray's loggers, some of which have a screen handler of their own, to one file, or nowhere; and with them
    the dozens of lines that Ray prints of each node that died, for which it has no switch."""
    handler = logging.NullHandler() if path is None else _LateFile(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict) if name.split(".")[0] == "ray"]
    before = [(logger, logger.handlers[:], logger.propagate) for logger in loggers]
    for earlier in {handler for _, handlers, _ in before for handler in handlers}:
        earlier.flush()  # what it has kept comes first
    for logger in loggers:
        logger.handlers[:] = [handler]
        logger.propagate = False
    print_before, ray_worker.print_to_stdstream = ray_worker.print_to_stdstream, _log_lines
    try:
        yield handler
    finally:
        ray_worker.print_to_stdstream = print_before
        for logger, handlers, propagate in before:
            logger.handlers[:] = handlers
            logger.propagate = propagate
        handler.close()


class _LateFile(logging.FileHandler):
    """A log file that is begun when its folder is there; until then it keeps what it is told.

    A path that leads to anything but a plain file with this name alone is not written to: others may be able to write
    to its folder. What Ray logs is then lost, with a warning, and the search goes on.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, delay=True)
        self._kept: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append(record)
        self.flush()

    def flush(self) -> None:
        if Path(self.baseFilename).parent.is_dir():
            kept, self._kept = self._kept, []
            for record in kept:
                super().emit(record)
        super().flush()

    def close(self) -> None:
        self.flush()
        super().close()

    def _open(self) -> io.TextIOWrapper:
        try:
            return _open_plain(self.baseFilename)
        except OSError as error:
            logging.getLogger(__name__).warning(
                "%s cannot be written (%s); Ray's log is lost", self.baseFilename, error.strerror
            )
            return open(os.devnull, "a", encoding="utf-8")


def _open_plain(path: str) -> io.TextIOWrapper:
    """The file, to append to; follows no link and waits for no pipe.

    Raises:
        OSError: it cannot be opened, is no plain file or has another name.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no plain file, or has another name")
    return open(descriptor, "a", encoding="utf-8")


def _log_lines(data: Mapping[str, Any], ignore_prefix: bool) -> None:
    logging.getLogger("ray").warning("%s: %s", data["pid"], "\n".join(data["lines"]))
