"""The time limit of a trial: what hangs ends its own process, and leaves word of where it was standing."""

from __future__ import annotations

import contextlib
import faulthandler
from collections.abc import Iterator

from fmnist_models.files import read_bounded, write_aside
from search.records.experiment import TrialFiles
from search.records.record import Failure, Reason

_MAX_TEXT_BYTES = 2**20


def read_timeout(files: TrialFiles) -> Failure | None:
    """The failure of a trial whose process ended itself, or was killed, because it took too long."""
    if not files.timeout.is_file():
        return None
    text = read_bounded(files.timeout, max_bytes=_MAX_TEXT_BYTES).decode(errors="replace")
    first, _, rest = text.partition("\n")
    where = f" {files.timeout.name} shows what every thread did" if rest else ""
    return Failure(Reason.TIMEOUT, first + where) if first else None


def note_timeout(files: TrialFiles, timeout_s: float, *, grace_s: float) -> None:
    """Record the timeout of a trial whose process is killed because it did not end itself."""
    files.path.mkdir(exist_ok=True)
    told = f"Timeout ({timeout_s:g} s): killed {grace_s:g} s after its limit, because the process did not respond"
    write_aside(files.timeout, f"{told}\n")


@contextlib.contextmanager
def time_limit(files: TrialFiles, timeout_s: float | None) -> Iterator[None]:
    """Ends this process, whatever it is doing, when the time is up, and leaves where it was standing in a file."""
    if timeout_s is None:
        yield
        return
    files.path.mkdir(exist_ok=True)
    files.timeout.unlink(missing_ok=True)  # it may have another name, whose file would be emptied
    with files.timeout.open("xb") as file:
        # Its thread is C's own: it also fires when the training hangs inside a library and holds the interpreter.
        faulthandler.dump_traceback_later(timeout_s, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            files.timeout.unlink(missing_ok=True)
