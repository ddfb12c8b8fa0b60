"""What another search found, for the sampler of a new one to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from optuna.trial import FrozenTrial
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from search.configuration.config import ObjectiveConfig, SearchConfig, read_config
from search.errors import ConfigError, ExperimentError
from search.records.experiment import Experiment
from search.records.record import read_study
from search.records.results import format_value
from search.study.translation import is_usable, read_hyperparameters, restore, translate

MAX_CHARS = 64 * 2**20
"""How long the text of a warm start may be: tens of thousands of trials."""

# Keys of a configuration that may differ without a note, as they do not shift a trial's values.
_COMPARABLE = frozenset(
    {
        *("space", "seed", "test_size", "sampler", "pruner", "min_epochs", "reduction_factor", "deterministic"),
        *("max_trials", "max_concurrent_trials", "time_budget_s", "trial_timeout_s", "max_restarts"),
        *("workers_per_trial", "cpus_per_trial", "gpus_per_trial", "keep_checkpoints", "max_disk_gb", "study_storage"),
        *("confirm", "mlflow", "feature_cache_gb", "max_cluster_share", "accelerator_type", "node_labels"),
    }
)


@dataclass(frozen=True)
class WarmStart:
    """Finished trials of the search in ``source``: COMPLETE with their value, PRUNED with those of their epochs.

    ``num_skipped``: how many more it has that are not in the new space. ``notes``: what a person should know.
    """

    trials: tuple[FrozenTrial, ...]
    num_skipped: int
    source: str
    notes: tuple[str, ...]


def read_warm_start(other: Experiment, config: SearchConfig) -> WarmStart:
    """The finished trials of ``other`` that are in the space of ``config`` too, which leaves nothing to ``auto``.

    A trial is, if the new space gives every hyperparameter the same value: drawn, fixed, or by default where it does
    not name it, as what was measured with another value says nothing about this space's trials.

    Raises:
        ConfigError: the other search has another metric, no finished trial, or none in the new space.
        ExperimentError: its study is damaged.
    """
    before = read_config(other)
    if before.metric != config.metric:
        raise ConfigError(
            f"warm start from {other.location}: {before.metric} was measured there, and says nothing of this search's "
            f"{config.metric}; valid: an experiment with metric {config.metric}"
        )
    finished = [trial for trial in read_study(other).get_trials(deepcopy=False) if is_usable(trial)]
    if not finished:
        raise ConfigError(
            f"warm start from {other.location}: it has no finished trial; valid: an experiment that has some"
        )
    trials = _translate_all(finished, other, before=before, now=config)
    return WarmStart(trials, len(finished) - len(trials), other.location, _compare(before, config))


def _translate_all(
    finished: Sequence[FrozenTrial], other: Experiment, *, before: SearchConfig, now: SearchConfig
) -> tuple[FrozenTrial, ...]:
    try:
        drawn = [read_hyperparameters(trial, before.space) for trial in finished]
    except ValueError as error:
        raise ExperimentError(f"{other.study_file()} does not belong to {other.config}: {error}") from error
    translated = [
        translate(trial, values, now.space, metric=now.metric) for trial, values in zip(finished, drawn, strict=True)
    ]
    trials = tuple(trial for trial in translated if trial is not None)
    if not trials:
        first = " ".join(f"{name}={format_value(value)}" for name, value in drawn[0].items())
        raise ConfigError(
            f"warm start from {other.location}: none of its {len(finished)} finished trials is in the new space; "
            "valid: trials whose every value that space holds, or has as default; "
            f"trial {finished[0].number} there: {first}"
        )
    return trials


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class _Complete(_Strict):
    state: Literal["complete"] = "complete"
    params: dict[str, bool | int | float | str]
    value: float


class _Pruned(_Strict):
    state: Literal["pruned"] = "pruned"
    params: dict[str, bool | int | float | str]
    epochs: dict[PositiveInt, float] = Field(min_length=1)


class _File(_Strict):
    """A warm start as written."""

    source: str
    num_skipped: int = Field(ge=0)
    notes: tuple[str, ...]
    trials: tuple[Annotated[_Complete | _Pruned, Field(discriminator="state")], ...] = Field(min_length=1)


def dump_warm_start(warm: WarmStart) -> str:
    """The JSON that ``parse_warm_start`` reads as this warm start.

    Raises:
        ConfigError: it would be longer than ``MAX_CHARS``.
    """
    trials = tuple(
        _Pruned(params=trial.params, epochs=trial.intermediate_values)
        if trial.value is None
        else _Complete(params=trial.params, value=trial.value)
        for trial in warm.trials
    )
    file = _File(source=warm.source, num_skipped=warm.num_skipped, notes=warm.notes, trials=trials)
    text = file.model_dump_json(indent=1) + "\n"
    if len(text) > MAX_CHARS:
        raise ConfigError(
            f"warm start from {warm.source}: its {len(trials):,} trials take {len(text):,} characters; "
            f"valid: at most {MAX_CHARS:,}"
        )
    return text


def parse_warm_start(text: str, *, where: str, config: SearchConfig) -> WarmStart:
    """The warm start that ``dump_warm_start`` wrote for a search of ``config``; ``where`` names it in messages.

    Raises:
        ExperimentError: it is damaged, too long, or of a search of another space.
    """
    if len(text) > MAX_CHARS:
        raise ExperimentError(f"{where} has {len(text):,} characters; valid: at most {MAX_CHARS:,}")
    try:
        file = _File.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise ExperimentError(f"{where} is not a warm start: {key or 'it'}: {problem['msg']}") from error
    return WarmStart(_restore_all(file, where=where, config=config), file.num_skipped, file.source, file.notes)


def _restore_all(file: _File, *, where: str, config: SearchConfig) -> tuple[FrozenTrial, ...]:
    trials = []
    for position, trial in enumerate(file.trials):
        measured = trial.value if isinstance(trial, _Complete) else trial.epochs
        try:
            trials.append(restore(trial.params, measured, config.space))
        except ValueError as error:
            raise ExperimentError(f"{where} is of another search: trials.{position}: {error}") from error
    return tuple(trials)


def _compare(before: SearchConfig, now: SearchConfig) -> tuple[str, ...]:
    """One note for each setting that shifts all values of a search."""
    pairs = {key: (getattr(before, key), getattr(now, key)) for key in SearchConfig.model_fields}
    shown = {key: [_show(key, value) for value in pair] for key, pair in pairs.items()}
    return tuple(
        f"warm start: {key} was {old} there, {new} here"
        for key, (old, new) in shown.items()
        if key not in _COMPARABLE and old != new
    )


def _show(key: str, value: object) -> object:
    if isinstance(value, ObjectiveConfig):
        return f"the mean over {value.folds} folds"
    absent = "a single training" if key == "objective" else "all"
    return absent if value is None else value
