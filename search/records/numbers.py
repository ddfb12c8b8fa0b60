"""Numbers that differ by rounding alone. Neither Ray nor torch."""

from __future__ import annotations

import math

_TOLERANCE = 1e-9  # relative


def is_close(one: float, other: float) -> bool:
    """Whether two numbers differ by no more than rounding: 3 * 0.1 and 0.3 do."""
    return math.isclose(one, other, rel_tol=_TOLERANCE)


def is_same_value(one: object, other: object) -> bool:
    """Whether two values of a parameter are the same: 3 * 0.1 and 0.3 are, ``True`` and 1 are not."""
    if isinstance(one, float) and isinstance(other, float):
        return is_close(one, other)
    return one == other and isinstance(one, bool) == isinstance(other, bool)
