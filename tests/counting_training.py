"""A real training that notes down what each of its epochs cost its process, in counts that no other work changes."""

from __future__ import annotations

import cProfile
import json
import os
import pstats
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fmnist_models.epoch import Epoch
from fmnist_models.training import Training

_COUNTED = ("fsync", "replace")
_counts: Counter[str] = Counter()


class CountingTraining(Training):
    """Writes a line for each epoch to the file ``diary`` when all that follows from the epoch is done: it is saved,
    told, and allowed to go on. The first trials wait until ``num_processes`` have one."""

    def __init__(self, *arguments: Any, diary: Path, num_processes: int, **options: Any) -> None:
        for name in _COUNTED:
            _count_calls(name)
        super().__init__(*arguments, **options)
        self._diary = diary
        diary.with_name(f"{diary.name}-{os.getpid()}").touch()
        until_s = time.monotonic() + 60
        while len(list(diary.parent.glob(f"{diary.name}-*"))) < num_processes and time.monotonic() < until_s:
            time.sleep(0.02)

    def epochs(self) -> Iterator[Epoch]:
        for epoch in super().epochs():
            before, profile = Counter(_counts), cProfile.Profile()
            profile.enable()
            yield epoch
            profile.disable()
            line = {
                "seed": self.plan.seed,
                "epoch": epoch.epoch,
                "pid": os.getpid(),
                "calls": pstats.Stats(profile).total_calls,  # type: ignore[attr-defined]
                **{name: _counts[name] - before[name] for name in _COUNTED},
                "modules": len(sys.modules),
                "threads": threading.active_count(),
                "images": find_in_files(self._train.images.data_ptr()),
            }
            with self._diary.open("a") as file:
                file.write(json.dumps(line) + "\n")


def find_in_files(address: int) -> str | None:
    """The file mapped into memory there and the place in it: the same for all processes that share a page."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        extent, _, offset, _, inode, *_ = line.split()
        start, end = (int(part, 16) for part in extent.split("-"))
        if start <= address < end:
            return f"{inode}+{int(offset, 16) + address - start}" if int(inode) else None
    return None


def _count_calls(name: str) -> None:
    call = getattr(os, name)
    if getattr(call, "is_counted", False):
        return

    def counted(*arguments: Any, **options: Any) -> Any:
        _counts[name] += 1
        return call(*arguments, **options)

    counted.is_counted = True  # type: ignore[attr-defined]
    setattr(os, name, counted)
