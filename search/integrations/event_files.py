"""Trials as TensorBoard's event files: curves as scalars, and its hyperparameters tab filled. Neither Ray nor torch."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search.errors import ExperimentError
from search.records.evaluation_file import Evaluation
from search.records.experiment import Experiment
from search.records.record import best_epoch, best_value, list_trials
from search.records.results import read_settings
from search.review.curve import end_s, read_curve, start_s
from search.review.trial_notes import read_tests, test_metrics

_FILE = "events.out.tfevents.fmnist"


@dataclass(frozen=True)
class Written:
    """``num_trials`` there are, of which the files of ``num_new`` were written or went on."""

    num_trials: int
    num_new: int


def write_event_files(experiment: Experiment, output: Path) -> Written:
    """One folder a trial, ``trial-00007``, in ``output``, which is made if it is not there.

    A file that is there already is only appended to, as TensorBoard wants it of runs that go on; what is cut short is
    completed by the next call.

    Raises:
        ConfigError: the configuration is missing or not YAML.
        ExperimentError: TensorBoard is not installed, the experiment cannot be read, or the files not be written.
    """
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise ExperimentError(
            f"TensorBoard is not installed ({error}); pip install 'fmnist-search[tensorboard]'"
        ) from error
    metric = read_settings(experiment)["metric"]
    trials = list_trials(experiment)
    tests = read_tests(experiment)
    num_new = 0
    try:
        for trial in trials:
            folder = output / f"trial-{trial.number:05d}"
            folder.mkdir(parents=True, exist_ok=True)
            events = _format_events(experiment, trial, metric=metric, test=tests.get(trial.number))
            num_new += _bring_up_to_date(folder / _FILE, events)
    except OSError as error:
        raise ExperimentError(f"{error.filename or output} cannot be written: {error.strerror}") from error
    return Written(len(trials), num_new)


def _bring_up_to_date(path: Path, content: bytes) -> bool:
    """Whether there was anything to write. Not aside and renamed: TensorBoard reads on in the file that it has open."""
    before = path.read_bytes() if path.exists() else b""
    if content == before:
        return False
    goes_on = content.startswith(before)
    with path.open("ab" if goes_on else "wb") as file:
        file.write(content[len(before) :] if goes_on else content)
    return True


def _format_events(experiment: Experiment, trial: FrozenTrial, *, metric: str, test: Evaluation | None) -> bytes:
    """The file's content, of which that of the same trial some epochs later is a continuation."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in _events(experiment, trial, metric=metric, test=test):
        writer.write(event)
    return buffer.getvalue()


def _events(experiment: Experiment, trial: FrozenTrial, *, metric: str, test: Evaluation | None) -> Iterator[bytes]:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.hparams.api_pb2 import Status
    from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG, SESSION_START_INFO_TAG
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

    began_s, ended_s = start_s(trial), end_s(trial)
    yield Event(wall_time=began_s, file_version="brain.Event:2").SerializeToString()
    start = SessionStartInfo(group_name=f"trial-{trial.number:05d}", start_time_secs=began_s)
    for name, value in trial.params.items():
        kind = "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
        setattr(start.hparams[name], f"{kind}_value", value)
    yield _session(SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start), began_s)
    for point in read_curve(experiment, trial, metric=metric):
        yield _scalars(point.values, step=point.epoch, time_s=point.time_s)
    if trial.state.is_finished():
        epoch, value = best_epoch(trial, metric), best_value(trial, metric)
        if epoch is not None and value is not None:
            yield _scalars({f"best_{metric}": value}, step=epoch, time_s=ended_s)
        status = Status.Value("STATUS_FAILURE" if trial.state == TrialState.FAIL else "STATUS_SUCCESS")
        end = SessionEndInfo(status=status, end_time_secs=ended_s)
        yield _session(SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end), ended_s)
    if test is not None:
        yield _scalars(test_metrics(test), step=test.epoch, time_s=ended_s)


def _scalars(values: Mapping[str, float], *, step: int, time_s: float) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
    event: bytes = Event(wall_time=time_s, step=step, summary=summary).SerializeToString()
    return event


def _session(tag: str, info: Any, time_s: float) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams.metadata import NULL_TENSOR, PLUGIN_NAME

    content = info.SerializeToString(deterministic=True)  # its map would come out in any order
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME, content=content))
    summary = Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=NULL_TENSOR)])
    event: bytes = Event(wall_time=time_s, summary=summary).SerializeToString()
    return event
