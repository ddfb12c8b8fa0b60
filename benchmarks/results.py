"""What a benchmark found, kept as a file: figures with n, mean and deviation, and what they were measured on."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from fmnist_models.files import write_aside
from search.records.versions import collect_versions
from search.running.slots import local_resources

_ROOT = Path(__file__).resolve().parents[1]
_CODE = ("benchmarks", "cluster", "fmnist_models", "search", "pyproject.toml", "constraints.txt")
FOLDER = Path(__file__).with_name("results")  # not in git


def keep(name: str, content: Mapping[str, Any], *, is_standard: bool) -> Path:
    """Writes ``content`` as ``name``.json, with what it was made on, and whether with the settings that figures are
    given for."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    about = {
        "machine": machine(),
        "code": code(),
        "versions": collect_versions(),
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    write_aside(path, json.dumps({**content, "is_standard": is_standard, **about}, indent=2) + "\n")
    return path


def is_standard(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> bool:
    """Whether all settings are the parser's defaults, apart from which part is measured (``what``, ``only``)."""
    settings = {name: value for name, value in vars(arguments).items() if name not in ("what", "only")}
    return all(value == parser.get_default(name) for name, value in settings.items())


def code() -> dict[str, str]:
    """The commit, a digest of the files in it that a figure comes from, and one of what differs from these, "" for
    nothing (of files that are not in git, the names). Documents and tests change no figure."""

    def git(*words: str) -> bytes:
        return subprocess.run(["git", *words], cwd=_ROOT, check=True, capture_output=True).stdout

    try:
        changes = git("status", "--porcelain", "--", *_CODE) + git("diff", "HEAD", "--", *_CODE)
        return {
            "commit": git("rev-parse", "HEAD").decode().strip(),
            "files": _digest(git("ls-tree", "-r", "HEAD", "--", *_CODE)),
            "changes": _digest(changes) if changes else "",
        }
    except (OSError, subprocess.CalledProcessError):
        return dict.fromkeys(("commit", "files", "changes"), "unknown")


def machine() -> dict[str, Any]:
    """Processor, CPUs that may be used, memory, and how busy it has been."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text("utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return {
        "processor": model,
        "cpus": local_resources().cpus,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_average": [round(load, 1) for load in os.getloadavg()],
    }


def summarise(values: Sequence[float]) -> dict[str, Any]:
    """Median, mean, deviation of the sample, and the values themselves."""
    return {
        "n": len(values),
        "median": _round(statistics.median(values)),
        "mean": _round(statistics.fmean(values)),
        "deviation": _round(statistics.stdev(values)) if len(values) > 1 else None,
        "values": [_round(value) for value in values],
    }


def show(summary: Mapping[str, Any]) -> str:
    """``median (mean ± deviation, n)``."""
    deviation = "" if summary["deviation"] is None else f" ± {summary['deviation']:.3g}"
    return f"{summary['median']:.4g} ({summary['mean']:.4g}{deviation}, n={summary['n']})"


def median(values: Sequence[float], at_least: Sequence[bool] | None = None) -> tuple[float, bool]:
    """The median, and whether it is only a lower bound; ``at_least``: for each value, whether it is one."""
    bounds = at_least or [False] * len(values)
    high = statistics.median_high(values)
    is_bound = any(bound and value <= high for value, bound in zip(values, bounds, strict=True))
    return statistics.median(values), is_bound


def show_range(values: Sequence[float], at_least: Sequence[bool] | None = None, *, unit: str = "") -> str:
    """Median with two digits, and the range of several values: ``7.3, 5.3–12.8``; lower bounds have a ``≥``."""
    middle, is_bound = median(values, at_least)
    text = _bounded(two_digits(middle), is_bound) + unit
    if len(values) == 1:
        return text
    bounds = at_least or [False] * len(values)
    low = _bounded(two_digits(min(values), like=middle), min(zip(values, bounds, strict=True))[1])
    high = _bounded(two_digits(max(values), like=middle), any(bounds))  # a lower bound may be of the largest value
    return f"{text}, {low}–{high}{unit}"


def two_digits(value: float, *, like: float | None = None) -> str:
    """``value`` with as many decimals as give ``like`` (itself) two digits: 0.036, 7.3, 12.8 like 7.3, 310."""
    size = abs(value if like is None else like)
    decimals = 1 - math.floor(math.log10(size)) if size else 1
    if size and round(size, decimals) >= 10 ** (2 - decimals):  # 9.96 is 10, not 10.0
        decimals -= 1
    return f"{round(value, decimals):.{max(0, decimals)}f}"


def _bounded(text: str, is_bound: bool) -> str:
    return f"≥ {text}" if is_bound else text


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """The first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), flush=True)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _round(value: float) -> float:
    return float(f"{value:.5g}")
