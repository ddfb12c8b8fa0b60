"""Results as tables on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from fmnist_models.errors import printable
from search.records.fold_values import FOLDS
from search.records.results import COLUMNS, format_value
from search.review.confirmation_text import HEADER, describe_confirmation, tabulate_confirmation

if TYPE_CHECKING:
    import pandas as pd

    from search.records.confirmation import Confirmation
    from search.records.cross_validation import CrossValidation
    from search.records.replayed import Replay

_WIDTH_OF_INTERVALS = 100


def trials_table(trials: pd.DataFrame, *, title: str, metric: str) -> Group:
    """The trials as they stand in the data frame, all parameters of one in one column."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("trial", "state", metric, "epoch", "seconds"):
        table.add_column(name, justify="left" if name == "state" else "right")
    table.add_column("parameters", overflow="fold")
    for row in plain_rows(trials):
        parameters = {k: v for k, v in row.items() if k not in COLUMNS and v is not None}
        text = " ".join(f"{name}={format_value(value)}" for name, value in parameters.items())
        table.add_row(
            str(row["trial"]),
            row["state"],
            "" if row["value"] is None else f"{row['value']:.4f}",
            _epochs(row),
            "" if row["duration_s"] is None else f"{row['duration_s']:.1f}",
            as_text(text if row["reason"] is None else f"{row['reason']}: {row['message']} ({text})"),
            style="red" if row["state"] == "failed" else "dim" if row["state"] != "complete" else "",
        )
    return Group(as_text(title, style="bold"), table)


def _epochs(row: dict[str, Any]) -> str:
    """The best one of all, or of how many folds, if one is complete."""
    if row["best_epoch"] is None:
        return ""
    folds = row.get(FOLDS)
    return f"{row['best_epoch']} in {folds} folds" if folds else f"{row['best_epoch']}/{row['epochs']}"


def plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of plain values, ``None`` for what is missing, as JSON has them."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def per_class_table(per_class: pd.DataFrame, *, title: str) -> Group:
    """Precision, recall and F1 per class and averaged."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("class")
    for name in ("precision", "recall", "f1", "support"):
        table.add_column(name, justify="right")
    num_averages = 2
    for position, row in enumerate(per_class.to_dict("records")):
        if position == len(per_class) - num_averages:
            table.add_section()
        values = [f"{row[name]:.3f}" if row["support"] else "-" for name in ("precision", "recall", "f1")]
        table.add_row(row["class"], *values, str(row["support"]))
    return Group(as_text(title, style="bold"), table)


def confirmation_table(confirmation: Confirmation) -> Group:
    """What the confirmed trials came to."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in HEADER:
        table.add_column(name, justify="right")
    for one, row in zip(confirmation.trials, tabulate_confirmation(confirmation), strict=True):
        table.add_row(*map(as_text, row), style="" if one.trial == confirmation.winner else "dim")
    title = f"\nconfirmed with fresh seeds: {confirmation.metric} of the search and since, mean ± standard deviation"
    return Group(as_text(title, style="bold"), table, as_text(describe_confirmation(confirmation)))


def cross_validation_table(found: CrossValidation, *, width: int) -> Group:
    """Means, deviations and intervals over folds, of the whole and of each class; ``width`` characters a line, of which
    the intervals of the classes need 100."""
    what = "the configuration" if found.of_trial is None else f"trial {found.of_trial} of {found.source}"
    title = f"\n{found.experiment}: {what} on {found.dataset}, {found.num_folds} folds of {found.num_epochs} epochs"
    table = Table(box=None, pad_edge=False, header_style="dim")
    for position, name in enumerate(("metric", "mean ± sd over folds", "95 % interval")):
        table.add_column(name, justify="right" if position else "left")
    from search.records.cross_validation import describe_estimates  # with pandas, which not every table needs

    for row in describe_estimates(found.metrics):
        table.add_row(*map(as_text, row))
    classes = Table(box=None, pad_edge=False, header_style="dim")
    for position, name in enumerate(("class", "precision", "recall", "f1")):
        classes.add_column(name, justify="right" if position else "left")
    for name, estimates in found.classes.items():
        if width >= _WIDTH_OF_INTERVALS:
            cells = [f"{e.mean:.3f} ± {e.deviation:.3f} ({e.low:.3f}-{e.high:.3f})" for e in estimates.values()]
        else:
            cells = [row[1] for row in describe_estimates(estimates)]
        classes.add_row(*map(as_text, (name, *cells)))
    return Group(as_text(title, style="bold"), table, Text(), classes)


def replay_table(replay: Replay, *, title: str) -> Group:
    """What each epoch gave, as recorded and as trained again."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    names = list(dict.fromkeys(name for epoch in replay.epochs for name in epoch.recorded))
    for name in ("epoch", *names):
        table.add_column(name, justify="right")
    for epoch in replay.epochs:
        for values, style in ((epoch.recorded, "dim"), (epoch.again, "" if epoch.is_same else "red")):
            shown = [str(values[name]) if name in values else "" for name in names]
            table.add_row(str(epoch.epoch) if values is epoch.recorded else "again", *shown, style=style)
    return Group(as_text(title, style="bold"), table)


def as_text(text: str, *, style: str = "") -> Text:
    """What may come from a stranger's file, shown as it is: neither rich's markup nor a terminal's commands act."""
    return Text(printable(text), style=style)
