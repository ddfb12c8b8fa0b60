"""optuna-dashboard over copies of experiments' studies: it shows a search while it runs, and can change nothing."""

from __future__ import annotations

import ipaddress
import json
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from optuna.artifacts import ArtifactMeta, FileSystemArtifactStore

from fmnist_models.errors import UserError
from search.errors import ExperimentError
from search.integrations.dashboard_csv import CSV_PREFIX, answer_csv
from search.integrations.reflection import Watch, reflect
from search.records.experiment import Experiment
from search.review.pictures import draw_pictures

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_LEAST_S = 2.0  # between two looks at what has changed
_ARTIFACT = "artifacts:"  # what Optuna puts before the artifact's id in a trial's system attributes
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_READING = ("GET", "HEAD")
_READ_ONLY = b'{"reason": "read only: this is a copy of the record, which only a search writes"}'


class Dashboard:
    """The WSGI application. A copy of the studies is never changed, but replaced by a newer one, dashboard and all."""

    def __init__(
        self, experiments: Sequence[Experiment], *, folder: Path, data_dir: Path | None, tell: Callable[[str], None]
    ) -> None:
        """Reads the experiments.

        ``folder``: takes pictures. ``data_dir``: where test images are, if not where they usually are. ``tell``: is
        told of what cannot be read later on.

        Raises:
            ExperimentError: optuna-dashboard is not installed, or an experiment cannot be read.
        """
        self._experiments = experiments
        self._folder = folder
        self._data_dir = data_dir
        self._tell = tell
        self._told = ""
        self._store = FileSystemArtifactStore(folder)
        self._drawn: dict[Path, tuple[object, dict[int, dict[str, str]]]] = {}
        self._watch = Watch(experiments, least_s=_LEAST_S)
        self._refreshing = threading.Lock()
        self._drawing = threading.Lock()
        self._is_closed = False
        self._wsgi = _load_dashboard()
        self._watch.is_due()
        self._app = self._build()

    def start(self) -> None:
        """Has the pictures of the best trials drawn, which takes seconds, while others are answered."""
        threading.Thread(target=self._draw, name="pictures", daemon=True).start()

    def close(self) -> None:
        """Waits for a picture that is being drawn, so that nothing is left behind."""
        self._is_closed = True
        with self._drawing:
            pass

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in _READING:
            start_response("403 Forbidden", [("Content-Type", "application/json")])
            return [_READ_ONLY]
        self._refresh()
        environ.setdefault("HTTP_ACCEPT_ENCODING", "identity")  # optuna-dashboard takes for granted that there is one
        if environ["PATH_INFO"].startswith(CSV_PREFIX) and environ["REQUEST_METHOD"] == "GET":
            return answer_csv(self._app, environ, start_response)
        return self._app(environ, start_response)

    def _refresh(self) -> None:
        """Replaces the copy if there may be news; whoever asks meanwhile gets the copy there is."""
        if not self._refreshing.acquire(blocking=False):
            return
        try:
            if self._watch.is_due():
                self._app = self._build()
                self._told = ""
                self.start()
        except (UserError, OSError) as error:
            if str(error) != self._told:  # once, not with every request
                self._told = str(error)
                self._tell(f"shows what it has: {error}")
        finally:
            self._refreshing.release()

    def _build(self) -> WSGIApplication:
        start_s = time.monotonic()
        app = self._wsgi(reflect(self._experiments, extra=self._pictures_of), artifact_store=self._store)
        self._watch.took(time.monotonic() - start_s)
        return app

    def _pictures_of(self, experiment: Experiment, number: int) -> Mapping[str, str]:
        _, pictures = self._drawn.get(experiment.path, (None, {}))
        return pictures.get(number, {})

    def _draw(self) -> None:
        with self._drawing:
            for experiment in self._experiments:
                try:
                    self._draw_of(experiment)
                except (UserError, OSError) as error:
                    self._tell(f"no pictures of {experiment.name}: {error}")

    def _draw_of(self, experiment: Experiment) -> None:
        """Draws and shows what was not drawn yet of the experiment's test result."""
        try:
            stamp = experiment.evaluation.summary.stat().st_mtime_ns
        except FileNotFoundError:
            return
        if self._drawn.get(experiment.path, (None,))[0] == stamp:
            return
        pictures: dict[int, dict[str, str]] = {}
        self._drawn[experiment.path] = (stamp, pictures)
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            for number, path in draw_pictures(experiment, Path(folder), data_dir=self._data_dir):
                if self._is_closed:
                    return
                pictures.setdefault(number, {}).update(self._upload(path))
        with self._refreshing:
            self._app = self._build()

    def _upload(self, path: Path) -> dict[str, str]:
        """As ``optuna.artifacts.upload_artifact`` does, which takes no trial that has ended."""
        meta = ArtifactMeta(artifact_id=str(uuid.uuid4()), filename=path.name, mimetype="image/png", encoding=None)
        with path.open("rb") as file:
            self._store.write(meta.artifact_id, file)
        return {_ARTIFACT + meta.artifact_id: json.dumps(asdict(meta))}


class DashboardServer(ThreadingMixIn, WSGIServer):
    """Listens as soon as it is made; ``serve_forever`` answers."""

    daemon_threads = True

    def __init__(self, app: WSGIApplication, *, host: str, port: int) -> None:
        """
        Raises:
            ExperimentError: nothing can listen there; the port is in use, say.
        """
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _QuietHandler)
        except (OSError, OverflowError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ExperimentError(
                f"the dashboard cannot listen on {host}:{port}: {reason}; valid: another --port, 0 for any free one, "
                "and a --host of this machine"
            ) from error
        self.set_app(partial(_answer_known_hosts, app, host, self.address))

    def server_bind(self) -> None:
        """Binds without looking the host's name up, which a machine without a name server waits for."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    @property
    def address(self) -> str:
        """For a browser."""
        host = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return f"http://{host}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no news."""


def _answer_known_hosts(
    app: WSGIApplication, host: str, address: str, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """Refuses requests for other names than this machine's: with DNS rebinding, any page that a browser shows could
    read the dashboard under a name of its own."""
    if is_known_host(environ.get("HTTP_HOST", ""), listening_on=host):
        return app(environ, start_response)
    start_response("421 Misdirected Request", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"unknown host name; open {address}\n".encode()]


def is_known_host(header: str, *, listening_on: str) -> bool:
    """Whether the ``Host`` header names a loopback address, or the address that the dashboard listens on.

    Where it listens on another address than a loopback one, any IP address and this machine's names are known too: a
    page of somebody else's has another domain name.
    """
    try:
        name = (urlsplit(f"//{header}").hostname or "").rstrip(".")
    except ValueError:
        return False
    if name in _LOOPBACK_NAMES or name == listening_on.lower():
        return True
    if listening_on in _LOOPBACK_NAMES:
        return False
    return _is_ip_address(name) or name == socket.gethostname().lower() or name == _full_name()


@cache  # it may take a name server seconds
def _full_name() -> str:
    """This machine's name with its domain, if it has one."""
    return socket.getfqdn().lower().rstrip(".")


def _is_ip_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads a line for each request."""


def _load_dashboard() -> Callable[..., WSGIApplication]:
    try:
        from optuna_dashboard import wsgi
    except ImportError as error:
        raise ExperimentError(
            f"optuna-dashboard is not installed ({error}); pip install 'fmnist-search[dashboard]'"
        ) from error
    application: Callable[..., WSGIApplication] = wsgi
    return application
