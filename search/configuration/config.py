"""A search's configuration: read from a file or preset, checked as a whole, frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    model_validator,
)

from fmnist_models.precision import PRECISIONS
from fmnist_models.recipe import Recipe
from search.configuration.dimensions import Fixed
from search.configuration.space import Space
from search.configuration.space_file import dump_space, parse_space
from search.errors import ConfigError
from search.records.address import expand_address, parse_address
from search.records.experiment import Experiment
from search.records.tracking import DEFAULT_EXPERIMENT, Target, parse_tracking_uri
from search.yaml_file import dump_yaml, parse_override, parse_yaml, read_yaml

Dataset = Literal["auto", "fashion-mnist", "synthetic"]
PRESETS = ("quickstart", "paper-customnet", "paper-resnet18", "full")


def _space(raw: Any) -> Space:
    if isinstance(raw, Space):
        return raw
    if not isinstance(raw, Mapping):
        raise ConfigError(f"space must map hyperparameters to what they may be, but got {raw!r}")
    return parse_space(raw)


def _precision(raw: Any) -> str | dict[str, str]:
    """``auto``, or one for all networks, or network → one."""
    if isinstance(raw, str) and raw in PRECISIONS:
        return raw
    decided = PRECISIONS[1:]
    if isinstance(raw, Mapping) and raw and all(isinstance(k, str) and v in decided for k, v in raw.items()):
        return dict(raw)
    valid = ", ".join(map(repr, PRECISIONS))
    raise ValueError(f"must be one of {valid}, or map each network to one of those after the first")


# As Ray's own labels may be: a domain before the key, and letters, digits and '_.-'.
_LabelText = Annotated[
    str, Field(pattern=r"^([a-z0-9][a-z0-9.-]{0,252}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$")
]


class MlflowConfig(BaseModel):
    """The MLflow server that is told of the search, and the experiment there that takes its runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tracking_uri: Annotated[str, Field(strict=True), AfterValidator(parse_tracking_uri)]
    experiment: Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9_. /-]{0,199}$")] = DEFAULT_EXPERIMENT

    @property
    def target(self) -> Target:
        return Target(self.tracking_uri, self.experiment)


class ObjectiveConfig(BaseModel):
    """What a trial's value is: its mean over ``folds`` trainings, each with another part of the images held out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folds: int = Field(ge=2, le=20, strict=True)


class ConfirmConfig(BaseModel):
    """The ``top`` trials by validation value are trained again with ``seeds`` fresh seeds each; their means decide."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    top: int = Field(default=5, ge=1, le=100, strict=True)
    seeds: int = Field(default=3, ge=1, le=100, strict=True)

    @property
    def num_trainings(self) -> int:
        """How many trainings that is; the winner's last one, on all images, is one more."""
        return self.top * self.seeds


class SearchConfig(BaseModel):
    """Everything that decides a search; unknown keys are refused.

    ``train_size``, ``test_size``: the first so many images of each part, all if left out. ``validation_fraction``: the
    share of the training images held out to choose by; with ``objective`` none is, but each fold in its turn.
    ``max_trials``: how many trials the study shall hold; ``max_epochs``: epochs of a trial that is not pruned, or of
    each of its folds. ``time_budget_s``: seconds after which no more is trained.
    ``min_epochs`` and ``reduction_factor``: first rung and spacing of ``halving`` and ``hyperband``; ``min_epochs``
    also of ``median``. ``cpus_per_trial`` (shared evenly by its workers; one per worker if left out) and
    ``gpus_per_trial`` (fractions allowed) make up a slot, on nodes with ``accelerator_type`` and ``node_labels`` if
    given; ``max_concurrent_trials``: as many as fit if left out, on ``max_cluster_share`` of the cluster.
    ``deterministic``: trial k is drawn from, and pruned by, the results of trials 0 … k - ``max_concurrent_trials``
    alone, and trained with deterministic algorithms. ``trial_timeout_s``: seconds after which a trial counts as hung.
    ``max_restarts``: how often a trial whose process or node died is restarted from its last epoch.
    ``keep_checkpoints``: how many of the best trials keep their weights, at least those that are confirmed.
    ``max_disk_gb``: what the experiment may take on disk, in 10⁹ bytes. ``feature_cache_gb``: what a machine keeps, in
    10⁹ bytes, of what frozen stages make of the images. ``study_storage``: the address of the database that holds the
    study, in place of a file.
    ``mlflow``: the MLflow server that is told of it all. ``objective``: one training a trial if left out; with folds
    the winner is trained on all images before it is tested. ``confirm``: the best trials are trained again with fresh
    seeds before one of them is chosen, and that one on all images before it is tested.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)

    space: Annotated[Space, BeforeValidator(_space), PlainSerializer(dump_space)]
    dataset: Dataset = "fashion-mnist"
    train_size: int | None = Field(default=None, ge=100, le=60_000, strict=True)
    test_size: int | None = Field(default=None, ge=10, le=10_000, strict=True)
    validation_fraction: float = Field(default=0.1, gt=0, lt=1, strict=True)
    metric: Literal["val_accuracy", "val_loss"] = "val_accuracy"
    max_trials: int = Field(default=20, ge=1, le=1_000_000, strict=True)
    max_epochs: int = Field(default=10, ge=1, le=10_000, strict=True)
    time_budget_s: float | None = Field(default=None, gt=0, strict=True)
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["halving", "hyperband", "median", "none"] = "halving"
    min_epochs: int = Field(default=1, ge=1, strict=True)
    reduction_factor: int = Field(default=3, ge=2, strict=True)
    workers_per_trial: int = Field(default=1, ge=1, strict=True)
    cpus_per_trial: float | None = Field(default=None, gt=0, strict=True)
    gpus_per_trial: float = Field(default=0.0, ge=0, strict=True)
    accelerator_type: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")
    node_labels: dict[_LabelText, _LabelText] = Field(default_factory=dict)
    max_concurrent_trials: int | None = Field(default=None, ge=1, strict=True)
    max_cluster_share: float = Field(default=1.0, gt=0, le=1, strict=True)
    deterministic: bool = Field(default=False, strict=True)
    trial_timeout_s: float | None = Field(default=None, gt=0, strict=True)
    max_restarts: int = Field(default=2, ge=0, le=100, strict=True)
    keep_checkpoints: int = Field(default=3, ge=1, strict=True)
    max_disk_gb: float | None = Field(default=None, gt=0, strict=True)
    feature_cache_gb: float = Field(default=2.0, ge=0, strict=True)
    study_storage: (
        Annotated[str, Field(strict=True), AfterValidator(expand_address), AfterValidator(parse_address)] | None
    ) = None
    mlflow: MlflowConfig | None = None
    objective: ObjectiveConfig | None = None
    confirm: ConfirmConfig | None = None
    precision: Annotated[str | dict[str, str], PlainValidator(_precision)] = "auto"
    seed: int = Field(default=0, ge=0, le=2**32 - 1, strict=True)

    @model_validator(mode="after")
    def _check_together(self) -> SearchConfig:
        if self.min_epochs > self.max_epochs:
            raise ValueError(f"min_epochs <= max_epochs must hold, but got {self.min_epochs} > {self.max_epochs}")
        share = self.gpus_per_trial / self.workers_per_trial
        if self.workers_per_trial > 1 and share != int(share):
            raise ValueError(
                f"gpus_per_trial must be whole GPUs for each of {self.workers_per_trial} workers, as nccl lets no two "
                f"share one, but got {self.gpus_per_trial:g}"
            )
        if share > 1 and share != int(share):
            raise ValueError(f"gpus_per_trial above 1 must be whole, but got {self.gpus_per_trial:g}")
        networks = [network.name for network in self.space.networks]
        if isinstance(self.precision, dict) and sorted(self.precision) != sorted(networks):
            raise ValueError(f"precision must name the networks {', '.join(networks)}, but got {self.precision}")
        batch_sizes = self.space.dimensions.get("batch_size", Fixed(Recipe.batch_size)).values()
        smallest = min(size for size in batch_sizes if isinstance(size, int))
        if smallest < 2 * self.workers_per_trial:
            raise ValueError(
                f"space.batch_size must be at least 2 images for each of {self.workers_per_trial} workers, "
                f"but got {smallest}"
            )
        return self

    @property
    def cpus(self) -> float:
        """CPUs of a trial, over all its workers."""
        return self.cpus_per_trial if self.cpus_per_trial is not None else float(self.workers_per_trial)

    @property
    def folds(self) -> int | None:
        """In how many folds a trial trains; ``None`` if in none."""
        return None if self.objective is None else self.objective.folds

    def precision_of(self, network: str) -> str:
        """What that network is trained in."""
        return self.precision if isinstance(self.precision, str) else self.precision[network]

    def to_yaml(self) -> str:
        """The text that ``parse_config`` reads as this configuration."""
        return dump_yaml(self.model_dump())


_SECTIONS: Mapping[str, type[BaseModel]] = {
    "mlflow": MlflowConfig,
    "objective": ObjectiveConfig,
    "confirm": ConfirmConfig,
}


def parse_config(raw: Any, *, where: str) -> SearchConfig:
    """A checked configuration from the mapping of a YAML file; ``where`` names it in messages.

    Raises:
        ConfigError: says every key that is wrong, its value and what would be valid.
    """
    _check_mapping(raw, where=where)
    try:
        return SearchConfig.model_validate(dict(raw))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    except ValidationError as error:
        raise ConfigError("\n".join(f"{where}: {_explain(problem)}" for problem in error.errors())) from error


def load_config(
    path: Path | None = None, *, preset: str | None = None, overrides: Sequence[str] = ()
) -> tuple[SearchConfig, str]:
    """The configuration of a file, or of a preset (``quickstart`` if neither is named), with ``key=value`` overrides.

    Returns the configuration and the name that an experiment of it has if nobody names it.

    Raises:
        ConfigError: both a file and a preset, no such preset, or whatever is wrong in the file or the overrides.
    """
    if path is not None and preset is not None:
        raise ConfigError(f"give a config file ({path}) or a preset ({preset}), not both")
    if path is not None:
        raw, where, name = read_yaml(path), str(path), path.stem
    else:
        name = preset or "quickstart"
        raw, where = parse_yaml(_preset_text(name), where=f"preset {name}"), f"preset {name}"
    _check_mapping(raw, where=where)
    for override in overrides:
        _apply_override(raw, override)
    return parse_config(raw, where=where), name


def read_config(experiment: Experiment) -> SearchConfig:
    """The configuration that the experiment was last run with.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    return parse_config(read_yaml(experiment.config), where=str(experiment.config))


def _check_mapping(raw: Any, *, where: str) -> None:
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{where} must map keys to values, but holds {type(raw).__name__}: {str(raw)[:80]!r}")


def _preset_text(name: str) -> str:
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}; valid: {', '.join(PRESETS)}")
    return resources.files("search").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8")


def _apply_override(raw: Any, override: str) -> None:
    """Sets one ``key=value`` or ``space.key=value`` in place; the value is read as YAML."""
    key, separator, text = override.partition("=")
    path = key.strip().split(".")
    if not separator or not all(path) or not isinstance(raw, dict):
        raise ConfigError(f"--set {override!r}: valid is key=value, for example --set max_trials=50")
    for part in path[:-1]:
        raw = raw.setdefault(part, {})
        if not isinstance(raw, dict):
            raise ConfigError(f"--set {override!r}: {part} holds no keys of its own")
    raw[path[-1]] = parse_override(text, where=f"--set {key}")


def _explain(problem: Any) -> str:
    path = [str(part) for part in problem["loc"]] or [""]
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        model = _SECTIONS.get(path[0], SearchConfig) if len(path) > 1 else SearchConfig
        fields = model.model_fields
        return f"unknown key {key!r}; valid: {', '.join(fields)}"
    if problem["type"] == "missing":
        return f"{key} is missing"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if key == "space":  # its messages name key, value and what would be valid themselves
        return message
    if path[0] in ("study_storage", "mlflow"):  # may hold a password
        return f"{key}: {message}"
    return f"{key}: {message}, but got {problem['input']!r}" if key else message
