"""The table of a trial's epochs, one line each, as text."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable

from fmnist_models.epoch import Epoch

_DATASET = "dataset"
COLUMNS = (*(field.name for field in dataclasses.fields(Epoch)), _DATASET)


def format_epochs(epochs: Iterable[Epoch], *, dataset: str) -> str:
    """CSV with a header line: the fields of ``Epoch``, and the data set on which all of it was measured."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**dataclasses.asdict(epoch), _DATASET: dataset} for epoch in epochs)
    return buffer.getvalue()


def parse_epochs(text: str) -> list[Epoch]:
    """The epochs that ``format_epochs`` wrote.

    Raises:
        ValueError: not such a table.
    """
    rows = csv.DictReader(io.StringIO(text))
    try:
        if tuple(rows.fieldnames or ()) != COLUMNS:
            raise KeyError
        return [_parse_row(row) for row in rows]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"not a table of epochs with the columns {', '.join(COLUMNS)}") from error


def _parse_row(row: dict[str, str]) -> Epoch:
    if not row.pop(_DATASET):
        raise ValueError("cut short")
    return Epoch(epoch=int(row.pop("epoch")), **{name: float(value) for name, value in row.items()})
