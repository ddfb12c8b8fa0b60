"""Reading what a search produced: files only, no cluster, neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from fmnist_models.epoch import DIRECTIONS
from search.errors import ExperimentError
from search.records.experiment import Experiment
from search.records.fold_values import FOLDS, complete_folds, fold_epochs
from search.records.record import MESSAGE, REASON, STATE_NAMES, best_epoch, best_value, list_trials
from search.records.spans import worked_s
from search.records.tracking import Target, parse_tracking_uri
from search.yaml_file import read_yaml

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]

_UNFREEZE = "unfreeze"
CURVE = "curve"
"""The value of each epoch; a column of listings alone, and shown where it is asked for or a trial runs."""
_FIRST_COLUMNS = ("trial", "state", "value", "best_epoch", "last_value", "last_epoch", "epochs", "duration_s")
_LAST_COLUMNS = ("reason", "message", "dataset")
_ORDER = {state: rank for rank, state in enumerate(("complete", "pruned", "running", "waiting", "failed"))}
_SETTINGS = {"metric": str, "dataset": str, "max_trials": int, "space": dict}
COLUMNS = (*_FIRST_COLUMNS, CURVE, FOLDS, *_LAST_COLUMNS)
"""The columns of every table of trials, ``folds`` only where they have some; the others are parameters. What each holds
says the help of ``fmnist trials``."""
_WHOLE = ("best_epoch", "last_epoch", FOLDS)
_INT64 = range(-(2**63), 2**63)


def read_settings(experiment: Experiment) -> dict[str, Any]:
    """The resolved configuration as plain values, those that results are shown with certainly among them.

    Raises:
        ConfigError: the file is missing or not YAML.
        ExperimentError: it does not hold a configuration.
    """
    settings = read_yaml(experiment.config)
    is_whole = isinstance(settings, dict) and all(
        isinstance(settings.get(key), kind) for key, kind in _SETTINGS.items()
    )
    if not is_whole or settings["metric"] not in DIRECTIONS:
        raise ExperimentError(f"{experiment.config} is not a search's configuration")
    return dict(settings)


def read_target(experiment: Experiment) -> Target | None:
    """The MLflow server that the experiment's configuration names, if it does; a stranger may have named it.

    Raises:
        ConfigError: the file is missing or not YAML.
        ExperimentError: it does not hold a configuration.
    """
    raw = read_settings(experiment).get("mlflow")
    try:
        return None if raw is None else Target(parse_tracking_uri(raw["tracking_uri"]), str(raw["experiment"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ExperimentError(f"{experiment.config}: mlflow does not name a server") from error


def read_trials(experiment: Experiment) -> pd.DataFrame:
    """One row a trial, best first, running and failed ones last.

    The columns are those of `fmnist trials`, without ``curve``; its help says what each holds.

    Raises:
        ConfigError: the configuration is missing or not YAML.
        ExperimentError: the configuration or the study is damaged.
    """
    import pandas as pd  # takes longer than all the rest, and not every reader needs a data frame

    settings, trials = read_settings(experiment), list_trials(experiment)
    metric = settings["metric"]
    columns = [name for name in list_columns(trials) if name != CURVE]
    rows = [trial_row(trial, metric=metric, dataset=settings["dataset"]) for trial in trials]
    table = pd.DataFrame(best_first(rows, metric), columns=columns)
    whole = [name for name in columns if name in _WHOLE or _is_whole([row.get(name) for row in rows])]
    return table.astype(dict.fromkeys(whole, "Int64"))


def list_columns(trials: Sequence[FrozenTrial]) -> list[str]:
    """The columns of a table of these trials, in their order: ``COLUMNS`` and all parameters."""
    drawn = dict.fromkeys(tuple(trial.params) for trial in trials)  # few, however many trials there are
    names = dict.fromkeys(name for params in drawn for name in compact_parameters(dict.fromkeys(params)))
    folds = [FOLDS] if any(fold_epochs(trial) is not None for trial in trials) else []
    return [*_FIRST_COLUMNS, CURVE, *folds, *(name for name in names if name not in COLUMNS), *_LAST_COLUMNS]


def _is_whole(values: Sequence[Any]) -> bool:
    """Whether some rows have whole numbers and the others nothing, which pandas would make fractions."""
    there = [value for value in values if value is not None]
    return 0 < len(there) < len(values) and all(type(value) is int and value in _INT64 for value in there)


def best_first(rows: Sequence[Row], metric: str) -> list[Row]:
    """Rows of trials as they are shown: complete ones first, the best of each state before the others."""
    sign = -1 if DIRECTIONS[metric] == "maximize" else 1

    def key(row: Row) -> tuple[int, bool, float, int]:
        value = row["value"]
        return _ORDER[row["state"]], value is None, 0 if value is None else sign * value, row["trial"]

    return sorted(rows, key=key)


def compact_parameters(params: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's parameters with the drawn stages as one: ``unfreeze: layer4+fc`` for ``unfreeze.layer4: True``."""
    compact: dict[str, Any] = {}
    stages: list[str] = []
    for name, value in params.items():
        subset, dot, item = name.partition(".")
        if dot and subset == _UNFREEZE:
            compact.setdefault(_UNFREEZE, "")
            stages += [item] if value else []
        else:
            compact[name] = value
    if _UNFREEZE in compact:
        compact[_UNFREEZE] = "+".join([*stages, "fc"])
    return compact


def format_value(value: object) -> str:
    """A parameter's value as a person reads it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def trial_row(trial: FrozenTrial, *, metric: str, dataset: str) -> Row:
    """The trial as plain values: ``COLUMNS`` without ``curve``, and its parameters."""
    last = max(trial.intermediate_values, default=None)
    return {
        **compact_parameters(trial.params),  # first, so that one of a strange name stands in for no other column
        "trial": trial.number,
        "state": STATE_NAMES[trial.state],
        "value": best_value(trial, metric),
        "best_epoch": best_epoch(trial, metric),
        "last_value": None if last is None else trial.intermediate_values[last],
        "last_epoch": last,
        "epochs": len(trial.intermediate_values),
        "duration_s": worked_s(trial),
        FOLDS: complete_folds(trial),
        "reason": trial.user_attrs.get(REASON),
        "message": trial.user_attrs.get(MESSAGE) if REASON in trial.user_attrs else None,
        "dataset": dataset,
    }
