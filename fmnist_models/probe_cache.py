"""What the probe has measured, kept in this user's cache folder, so that a search repeated there chooses the same."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fmnist_models.errors import FileError, PathError
from fmnist_models.feature_cache import feature_key
from fmnist_models.files import read_json, write_aside
from fmnist_models.paths import cache_folder

_KEY, _SECONDS = "key", "seconds"


def timed_once(key: Mapping[str, Any], measure: Callable[[], dict[str, float]]) -> tuple[dict[str, float], bool]:
    """Precision → seconds a step, measured if no earlier process did so for that ``key`` (values for JSON), and whether
    one did. A file that cannot be read or written costs a measurement, nothing else."""
    text = json.dumps(key, sort_keys=True)
    try:
        path = cache_folder() / "precision" / f"{feature_key(text, tensors=())}.json"
    except PathError:  # no home folder
        return measure(), False
    kept = _read(path, key=json.loads(text))
    if kept is not None:
        return kept, True
    seconds = measure()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_aside(path, json.dumps({_KEY: key, _SECONDS: seconds}, indent=2) + "\n")
    return seconds, False


def _read(path: Path, *, key: Any) -> dict[str, float] | None:
    try:
        found = read_json(path)
    except (OSError, FileError):
        return None
    if not isinstance(found, dict) or found.get(_KEY) != key or not isinstance(found.get(_SECONDS), dict):
        return None
    seconds = found[_SECONDS]
    is_sound = list(seconds) == key["precisions"] and all(map(_is_duration, seconds.values()))
    return seconds if is_sound else None


def _is_duration(value: object) -> bool:
    return isinstance(value, float) and 0 < value < math.inf
