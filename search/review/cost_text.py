"""What a search took, in words. Neither Ray nor torch."""

from __future__ import annotations

from search.records.occupancy import TAIL_MEANS, Occupancy


def describe_occupancy(occupancy: Occupancy, *, deterministic: bool) -> str:
    """The search's time, the share of it in which slots were idle, and why, on one line."""
    idle, tail = occupancy.idle_share or 0.0, occupancy.tail_share
    told = f"the search took {occupancy.search_s:.0f} s; slots were idle {idle:.0%} of that time"
    before = "waiting for older trials (`deterministic`)" if deterministic else "between trials"
    return f"{told}: {max(0.0, idle - tail):.0%} {before}, {tail:.0%} {TAIL_MEANS}"
