"""The CSV of a study that optuna-dashboard offers, without formulas."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from search.records.csv_text import csv_text

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

CSV_PREFIX = "/csv/"
"""What the paths begin with that are answered with CSV."""


def answer_csv(app: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The answer of ``app``, whose cells that are no numbers are written as ``csv_text`` writes them."""
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def keep(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
        started.append((status, headers))
        return lambda data: None

    content = b"".join(app(environ, keep))
    status, headers = started[-1]
    kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
    if any(name.lower() == "content-type" and value.startswith("text/csv") for name, value in headers):
        content = _without_formulas(content.decode()).encode()
    start_response(status, [*kept, ("Content-Length", str(len(content)))])
    return [content]


def _without_formulas(text: str) -> str:
    buffer = io.StringIO()
    rows = csv.reader(io.StringIO(text, newline=""))
    csv.writer(buffer).writerows([_cell(cell) for cell in row] for row in rows)
    return buffer.getvalue()


def _cell(cell: str) -> Any:
    try:
        float(cell)
    except ValueError:
        return csv_text(cell)
    return cell
