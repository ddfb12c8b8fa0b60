"""The table of a trial's epochs, one line each, as text."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable

from fmnist_models.epoch import Epoch

_DATASET = "dataset"
_FOLD = "fold"
COLUMNS = (*(field.name for field in dataclasses.fields(Epoch)), _DATASET)


def format_epochs(epochs: Iterable[Epoch], *, dataset: str, fold_epochs: int | None = None) -> str:
    """CSV with a header line: the fields of ``Epoch``, and the data set on which all of it was measured; with folds
    of ``fold_epochs`` epochs each, which are numbered through, the fold too, from 1."""
    buffer = io.StringIO()
    columns = COLUMNS if fold_epochs is None else (*COLUMNS, _FOLD)
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    for epoch in epochs:
        fold = {} if fold_epochs is None else {_FOLD: (epoch.epoch - 1) // fold_epochs + 1}
        writer.writerow({**dataclasses.asdict(epoch), _DATASET: dataset, **fold})
    return buffer.getvalue()


def parse_epochs(text: str) -> list[Epoch]:
    """The epochs that ``format_epochs`` wrote.

    Raises:
        ValueError: not such a table.
    """
    rows = csv.DictReader(io.StringIO(text))
    try:
        if tuple(rows.fieldnames or ()) not in (COLUMNS, (*COLUMNS, _FOLD)):
            raise KeyError
        return [_parse_row(row) for row in rows]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"not a table of epochs with the columns {', '.join(COLUMNS)}") from error


def _parse_row(row: dict[str, str]) -> Epoch:
    if not row.pop(_DATASET):
        raise ValueError("cut short")
    if int(row.pop(_FOLD, "1")) < 1:
        raise ValueError("no fold")
    return Epoch(epoch=int(row.pop("epoch")), **{name: float(value) for name, value in row.items()})
