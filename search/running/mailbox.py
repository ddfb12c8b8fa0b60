"""Where a slot and the workers of its group leave word for each other: trials, and what becomes of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any


class Mailbox:
    """One trial at a time, called a turn. Its workers go on from step to step only when they all may.

    An actor of Ray whose calls wait for each other on its event loop; what it passes on it does not look into. A turn
    that has passed is as good as stopped.
    """

    def __init__(self) -> None:
        self._turn = 0
        self._assignment: dict[str, Any] = {}
        self._num_granted = 0
        self._is_stopped = True
        self._num_waiting = 0
        self._messages: deque[dict[str, Any] | None] = deque()
        self._changed = asyncio.Condition()

    async def wait_for(self, num_workers: int) -> None:
        """The slot waits until so many workers have come for their first turn."""
        await self._wait_until(lambda: self._num_waiting >= num_workers)

    async def assign(self, assignment: dict[str, Any]) -> int:
        """The slot has a trial for its workers; gives the turn."""
        async with self._changed:
            self._turn, self._assignment = self._turn + 1, assignment
            self._num_granted, self._is_stopped = 0, False
            self._messages.clear()
            self._changed.notify_all()
        return self._turn

    async def next_assignment(self, after: int) -> tuple[int, dict[str, Any]]:
        """A worker waits for the turn after the one it has had."""
        if not after:
            async with self._changed:
                self._num_waiting += 1
                self._changed.notify_all()
        await self._wait_until(lambda: self._turn > after)
        return self._turn, self._assignment

    async def post(self, turn: int, message: dict[str, Any] | None) -> None:
        """A worker tells of a step; with ``None``, that there are no more."""
        async with self._changed:
            if turn == self._turn:
                self._messages.append(message)
                self._changed.notify_all()

    async def take(self) -> dict[str, Any] | None:
        """The slot waits for what is told next."""
        await self._wait_until(lambda: bool(self._messages))
        return self._messages.popleft()

    async def grant(self, turn: int) -> None:
        """The slot lets the trial go on after one more step."""
        async with self._changed:
            if turn == self._turn:
                self._num_granted += 1
                self._changed.notify_all()

    async def stop(self, turn: int) -> None:
        """The slot wants no more of this trial."""
        async with self._changed:
            if turn == self._turn:
                self._is_stopped = True
                self._changed.notify_all()

    async def may_go_on(self, turn: int, after_step: int) -> bool:
        """A worker waits until it is known whether the trial goes on; all of them get the same answer."""
        await self._wait_until(lambda: turn != self._turn or self._is_stopped or self._num_granted >= after_step)
        return turn == self._turn and self._num_granted >= after_step

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)
