"""Which rows of a table are asked for: `model=resnet18`, `lr<0.01`. Neither Ray nor torch."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from search.errors import SelectionError
from search.records.numbers import is_close

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_CONDITION = re.compile(r"(?P<column>[^=!<>]+)(?P<operator>!=|<=|>=|=|<|>)(?P<value>.*)", re.DOTALL)
_MAX_NAMED = 50  # columns in a message


@dataclass(frozen=True)
class Condition:
    """What a row's value in ``column`` must be. A row without a value there meets ``!=`` and nothing else. Floats that
    differ by rounding alone are equal."""

    column: str
    operator: str
    value: str

    def is_met(self, value: Any) -> bool:
        """Whether a row with this value is asked for.

        Raises:
            SelectionError: it is text, and the operator is one for numbers.
        """
        if value is None:
            return self.operator == "!="
        compare, number = _OPERATORS[self.operator], _as_number(self.value)
        if self.operator in ("=", "!="):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or number is None:
                return compare(str(value).lower() if isinstance(value, bool) else str(value), self._text(value))
            return compare(_rounded(value, onto=number), number)
        if isinstance(value, (bool, str)):
            raise SelectionError(f"{self}: {self.column} holds {value!r}, no number; valid for it: = and !=")
        return compare(_rounded(value, onto=number), number)

    def _text(self, value: Any) -> str:
        return self.value.lower() if isinstance(value, bool) else self.value

    def __str__(self) -> str:
        return f"{self.column}{self.operator}{self.value}"


def parse_condition(text: str, columns: Sequence[str], *, aliases: dict[str, str]) -> Condition:
    """A condition on one of ``columns``, which may also go by one of ``aliases``.

    Raises:
        SelectionError: it is none, or on no such column.
    """
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise SelectionError(f"{text!r} is no condition; valid: a column, one of {' '.join(_OPERATORS)}, and a value")
    column = check_column(found["column"].strip(), columns, aliases=aliases)
    condition = Condition(column, found["operator"], found["value"].strip())
    if condition.operator not in ("=", "!=") and _as_number(condition.value) is None:
        raise SelectionError(f"{text!r}: {condition.value!r} is no number; valid for text: = and !=")
    return condition


def check_column(name: str, columns: Sequence[str], *, aliases: dict[str, str]) -> str:
    """The column of that name.

    Raises:
        SelectionError: there is none.
    """
    if name in columns:
        return name
    if name in aliases:
        return aliases[name]
    more = f" and {len(columns) - _MAX_NAMED} more" if len(columns) > _MAX_NAMED else ""
    raise SelectionError(f"there is no column {name!r}; valid: {', '.join(columns[:_MAX_NAMED])}{more}")


def _rounded(value: float, *, onto: float | None) -> float:
    return onto if isinstance(value, float) and onto is not None and is_close(value, onto) else value


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
