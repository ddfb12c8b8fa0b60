"""A training whose course is written in its learning rate: what a trial can do to a search, without the work."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from epochs import make_epoch
from torch import distributed, nn

from fmnist_models.data import TrainingData
from fmnist_models.epoch import Epoch
from fmnist_models.training import DivergedError, Training, TrainingPlan

GOOD, BAD, DIVERGES, RAISES, OUT_OF_MEMORY, DIES_ONCE, DIES = 0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007
COURSES = (GOOD, BAD, DIVERGES, RAISES, OUT_OF_MEMORY, DIES_ONCE, DIES)
VALUES = {GOOD: (0.7, 0.9, 0.8), BAD: (0.3, 0.3, 0.3)}


class ScriptedTraining:
    """Real epochs, a real state and real checkpoints; only the network is missing. ``diary`` collects a line for each
    epoch trained and what the process was like."""

    def __init__(
        self, plan: TrainingPlan, data: TrainingData, *, device: torch.device, pretrained: object, diary: Path
    ) -> None:
        self.model: nn.Module = nn.Linear(1, 1)
        self.history: list[Epoch] = []
        self._plan = plan
        self._diary = diary
        self._writeable = data.train.images.flags.writeable

    def epochs(self) -> Iterator[Epoch]:
        course = self._plan.recipe.lr
        for number in range(len(self.history) + 1, self._plan.num_epochs + 1):
            self._write(
                f"lr={course} epoch={number} pid={os.getpid()} threads={torch.get_num_threads()} "
                f"images_writeable={self._writeable}"
            )
            if number == 2:
                self._act(course)
            epoch = make_epoch(number, VALUES.get(course, VALUES[GOOD])[number - 1])
            self.history.append(epoch)
            yield epoch

    def state_dict(self) -> dict[str, Any]:
        return {"history": [vars(epoch) for epoch in self.history]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.history = [Epoch(**epoch) for epoch in state["history"]]

    def _act(self, course: float) -> None:
        if course == DIVERGES:
            raise DivergedError("epoch 2: train_loss nan")
        if course == RAISES:
            raise RuntimeError("a mistake in the code")
        if course == OUT_OF_MEMORY:
            raise MemoryError("no more of it")
        died_before = self._diary.read_text().count(f"lr={course} dies")
        if course == DIES or (course == DIES_ONCE and not died_before):
            self._write(f"lr={course} dies")
            os.kill(os.getpid(), signal.SIGKILL)

    def _write(self, line: str) -> None:
        with self._diary.open("a") as file:
            file.write(line + "\n")


class KillsAWorkerOnce(Training):
    """A real training whose second worker is killed, once, when the second epoch begins."""

    def __init__(self, *arguments: Any, mark: Path, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._mark = mark

    def epochs(self) -> Iterator[Epoch]:
        for epoch in super().epochs():
            yield epoch
            if distributed.get_rank() == 1 and not self._mark.exists():
                self._mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
