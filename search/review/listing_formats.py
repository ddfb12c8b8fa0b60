"""A listing of trials as a table to look at, CSV, JSON, Markdown or Parquet. Neither Ray nor torch."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from typing import Any

from rich.text import Text

from fmnist_models.errors import printable
from search.records.csv_text import csv_text
from search.records.fingerprint import fingerprint
from search.records.fold_values import FOLDS
from search.records.results import COLUMNS, CURVE, Row, format_value
from search.review.listing import Listing
from search.review.text_curve import sparkline
from search.review.text_table import text_table

FORMATS = ("table", "csv", "json", "markdown", "parquet")
FOR_PEOPLE = ("table", "markdown")
"""The formats that say what they leave out."""
_STYLES = {"complete": "", "failed": "red", "running": "green"}
_LEFT = ("state", "model", CURVE, "reason", "message", "dataset")
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~&])")
_INT64 = range(-(2**63), 2**63)


def format_table(listing: Listing, *, width: int, ascii_only: bool) -> Text:
    """The rows, what they are in a line above, and what is not among them below."""
    text = Text(f"{printable(title(listing))}\n", "bold", end="")
    text.append(_as_table(listing, width=width, ascii_only=ascii_only))
    for note in notes(listing):
        text.append(f"\n{note}", "dim")
    return text


def format_markdown(listing: Listing) -> str:
    """The same, without colours."""
    header, rows = _cells(listing, ascii_only=False)
    lines = [" | ".join(_escape(cell) for cell in row) for row in [header, *rows]]
    table = [f"| {line} |" for line in lines]
    table.insert(1, f"|{' --- |' * len(header)}")
    return "\n\n".join([_escape(title(listing)), "\n".join(table), *map(_escape, notes(listing))]) + "\n"


def format_json(listing: Listing) -> str:
    """One JSON value."""
    columns = _columns_for_programs(listing)
    value = {
        "experiment": listing.experiment,
        "dataset": listing.dataset,
        "metric": listing.metric,
        "fingerprint": fingerprint(listing.trials),
        "trials": [{name: row.get(name) for name in columns} for row in listing.rows],
    }
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def format_csv(listing: Listing) -> str:
    """A header and a line a trial; blanks between a curve's values; characters that cannot be shown written out; no
    text is a formula, as ``csv_text`` says."""
    columns = _columns_for_programs(listing)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([csv_text(printable(name)) for name in columns])
    writer.writerows([_as_csv(row.get(name)) for name in columns] for row in listing.rows)
    return buffer.getvalue()


def format_parquet(listing: Listing) -> bytes:
    """A Parquet file, one row a trial; a column whose values are of several kinds holds them as text."""
    import pyarrow as pa
    import pyarrow.parquet

    columns = _columns_for_programs(listing)
    arrays = {name: pa.array(*_as_arrow([row.get(name) for row in listing.rows], name)) for name in columns}
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(arrays), buffer)
    return buffer.getvalue()


def title(listing: Listing) -> str:
    """What is listed."""
    states = listing.found_states
    kind = f"{states[0]} of " if len(states) == 1 else "" if listing.num_found == len(listing.trials) else "of "
    found = f"{listing.num_found:,} " if kind else ""
    asked_for = f" ({listing.max_trials:,} asked for)" if listing.max_trials != len(listing.trials) else ""
    cut = f", the first {len(listing.rows):,}" if len(listing.rows) < listing.num_found else ""
    return f"{listing.experiment} on {listing.dataset}: {found}{kind}{len(listing.trials):,} trials{asked_for}{cut}"


def notes(listing: Listing) -> list[str]:
    """What a person should know who looks at the rows: which trials are not among them, and what pruning saved."""
    others = [f"{number:,} {state}" for state, number in listing.left_out.items()]
    found = [f"not shown: {', '.join(others)}; --all shows them"] if others else []
    pruning = listing.pruning
    if pruning is not None:
        all_epochs = pruning.num_ended * pruning.max_epochs * pruning.folds
        in_folds = f" in {pruning.folds} folds" if pruning.folds > 1 else ""
        found.append(
            f"pruning saved {pruning.saved_epochs:,} of {all_epochs:,} epochs ({pruning.num_ended:,} ended trials, "
            f"max_epochs {pruning.max_epochs:,}{in_folds}): those that {pruning.num_pruned:,} pruned trials did not "
            "train"
        )
    return found


def _as_table(listing: Listing, *, width: int, ascii_only: bool) -> Text:
    header, rows = _cells(listing, ascii_only=ascii_only)
    left = [number for number, name in enumerate(header) if name in _LEFT]
    styles = [_STYLES.get(row["state"], "dim") for row in listing.rows]
    return text_table(header, rows, left=left, styles=styles, width=width)


def _cells(listing: Listing, *, ascii_only: bool) -> tuple[list[str], list[list[str]]]:
    if listing.chosen is not None:
        rows = [[_as_cell(name, row.get(name), ascii_only) for name in listing.chosen] for row in listing.rows]
        return list(listing.chosen), rows
    states = listing.found_states
    shown = {
        "trial": "trial",
        **({"state": "state"} if len(states) > 1 else {}),
        "value": listing.metric,
        "best_epoch": "best_epoch",
        **({FOLDS: FOLDS} if FOLDS in listing.columns else {}),
        "last_value": "last",
        "last_epoch": "last_epoch",
        "duration_s": "seconds",
        **({CURVE: CURVE} if "running" in states else {}),
    }
    parameters = [name for name in listing.columns if name not in COLUMNS]
    rows = [
        [*(_as_cell(name, row.get(name), ascii_only) for name in shown), _describe(row, parameters)]
        for row in listing.rows
    ]
    return [*shown.values(), "parameters"], rows


def _describe(row: Row, parameters: Sequence[str]) -> str:
    text = " ".join(f"{name}={format_value(row[name])}" for name in parameters if row.get(name) is not None)
    return text if row["reason"] is None else f"{row['reason']}: {row['message']} ({text})"


def _as_cell(name: str, value: Any, ascii_only: bool) -> str:
    if value is None:
        return ""
    if name == CURVE:
        return sparkline(value, ascii_only=ascii_only)
    if name in ("value", "last_value"):
        return f"{value:.4f}"
    return f"{value:.1f}" if name == "duration_s" else format_value(value)


def _columns_for_programs(listing: Listing) -> list[str]:
    """All but the curves, if nobody asked for some."""
    return [name for name in listing.columns if name != CURVE] if listing.chosen is None else list(listing.chosen)


def _as_csv(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return csv_text(printable(value)) if isinstance(value, str) else value


def _escape(cell: str) -> str:
    return _MARKDOWN.sub(r"\\\1", printable(cell)).replace("\n", " ")


def _as_arrow(values: list[Any], name: str) -> tuple[list[Any], Any]:
    import pyarrow as pa

    if name == CURVE:
        return [[float(number) for number in value] for value in values], pa.list_(pa.float64())
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool}:
        return values, pa.bool_() if kinds else pa.null()
    if kinds == {int} and all(value is None or value in _INT64 for value in values):
        return values, pa.int64()
    if kinds <= {int, float}:
        return [None if value is None else float(value) for value in values], pa.float64()
    return [None if value is None else str(value) for value in values], pa.string()
