"""The table of a trial's epochs, one line each, as text."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable

from fmnist_models.epoch import Epoch

COLUMNS = tuple(field.name for field in dataclasses.fields(Epoch))


def format_epochs(epochs: Iterable[Epoch]) -> str:
    """CSV with a header line and the fields of ``Epoch`` as columns."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(epoch) for epoch in epochs)
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
        return [Epoch(epoch=int(row.pop("epoch")), **{k: float(v) for k, v in row.items()}) for row in rows]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"not a table of epochs with the columns {', '.join(COLUMNS)}") from error
