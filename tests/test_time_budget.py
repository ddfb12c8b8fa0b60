"""A time budget is of seconds that passed, whatever becomes of the wall clock."""

from __future__ import annotations

import time

import pytest

from search.running.time_budget import TimeBudget


def test_a_wall_clock_that_is_set_changes_no_time_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([100.0, 100.4, 101.0, 101.1])
    monkeypatch.setattr(time, "monotonic", lambda: next(moments))
    budget, now_s = TimeBudget(1.0), time.time()
    found = []
    for wall_s in (now_s, now_s + 6 * 3600, now_s - 12 * 3600, now_s):
        monkeypatch.setattr(time, "time", lambda wall_s=wall_s: wall_s)
        found.append(budget.stop_all())
    assert found == [False, False, True, True]
    assert not budget("trial", {})


def test_without_a_budget_nothing_is_stopped() -> None:
    assert not any(TimeBudget(None).stop_all() for _ in range(3))
