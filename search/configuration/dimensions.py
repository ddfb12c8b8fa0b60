"""What one hyperparameter of a space may be: a range, a choice, a subset, or always the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from optuna.trial import BaseTrial


@dataclass(frozen=True)
class FloatRange:
    """Numbers from ``low`` to ``high``, both inclusive; ``log``: evenly over orders of magnitude; or in ``step``s."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"finite low <= high must hold, but got low={self.low:g}, high={self.high:g}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError(f"log needs low > 0 and no step, but got low={self.low:g}, step={self.step}")
        if self.step is not None:
            if not 0 < self.step < math.inf:
                raise ValueError(f"finite step > 0 must hold, but got step={self.step:g}")
            if not _is_whole_steps(self.high, self.low, self.step):
                raise ValueError(
                    f"a whole number of steps must lead from low to high, but got "
                    f"low={self.low:g}, high={self.high:g}, step={self.step:g}"
                )

    def suggest(self, trial: BaseTrial, name: str) -> float:
        return trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)

    def as_written(self, value: float) -> float:
        """The value of the range as a person writes it: 0.3, where 3 * 0.1 is 0.30000000000000004."""
        if self.step is None:
            return value
        low, step = Decimal(str(self.low)), Decimal(str(self.step))
        return float(low + round((value - self.low) / self.step) * step)

    def values(self) -> tuple[float, ...]:
        """The values by which the whole range can be judged: its bounds."""
        return (self.low, self.high)

    def __str__(self) -> str:
        how = ", log" if self.log else "" if self.step is None else f", step {self.step:g}"
        return f"{self.low:g} … {self.high:g}{how}"


@dataclass(frozen=True)
class IntRange:
    """Whole numbers from ``low`` to ``high``, both inclusive; ``log``, or in ``step``s."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low <= high must hold, but got low={self.low}, high={self.high}")
        if self.log and (self.low < 1 or self.step != 1):
            raise ValueError(f"log needs low >= 1 and no step, but got low={self.low}, step={self.step}")
        if self.step < 1 or (self.high - self.low) % self.step:
            raise ValueError(
                f"a whole number of steps must lead from low to high, but got "
                f"low={self.low}, high={self.high}, step={self.step}"
            )

    def suggest(self, trial: BaseTrial, name: str) -> int:
        return trial.suggest_int(name, self.low, self.high, log=self.log, step=self.step)

    def values(self) -> tuple[int, ...]:
        """The values by which the whole range can be judged: its bounds."""
        return (self.low, self.high)

    def __str__(self) -> str:
        how = ", log" if self.log else "" if self.step == 1 else f", step {self.step}"
        return f"{self.low} … {self.high}{how}"


@dataclass(frozen=True)
class Choice:
    """One of ``options``, in no order."""

    options: tuple[bool | int | float | str, ...]

    def __post_init__(self) -> None:
        if not self.options:
            raise ValueError("a choice needs at least one option, but got []")
        if len({(isinstance(option, bool), option) for option in self.options}) < len(self.options):
            raise ValueError(f"each option may be named once, but got {list(self.options)}")

    def suggest(self, trial: BaseTrial, name: str) -> bool | int | float | str:
        chosen = trial.suggest_categorical(name, self.options)
        assert chosen is not None
        return chosen

    def values(self) -> tuple[bool | int | float | str, ...]:
        """Every value that can come out."""
        return self.options

    def __str__(self) -> str:
        return " | ".join(str(option) for option in self.options)


@dataclass(frozen=True)
class Subset:
    """Each of ``items`` in or out, drawn one by one, so that the importance of each can be told apart."""

    items: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.items:
            raise ValueError("a subset needs at least one item, but got []")
        if len(set(self.items)) < len(self.items):
            raise ValueError(f"each item may be named once, but got {list(self.items)}")

    def suggest(self, trial: BaseTrial, name: str) -> tuple[str, ...]:
        return tuple(item for item in self.items if trial.suggest_categorical(f"{name}.{item}", (False, True)))

    def values(self) -> tuple[tuple[str, ...], ...]:
        """The value by which all can be judged: the largest."""
        return (self.items,)

    def __str__(self) -> str:
        return "each in or out: " + ", ".join(self.items)


@dataclass(frozen=True)
class Fixed:
    """Always ``value``; not a parameter of the study."""

    value: Any

    def suggest(self, trial: BaseTrial, name: str) -> Any:
        return self.value

    def values(self) -> tuple[Any, ...]:
        """The one value."""
        return (self.value,)

    def __str__(self) -> str:
        return ", ".join(self.value) if isinstance(self.value, tuple) else str(self.value)


Dimension: TypeAlias = FloatRange | IntRange | Choice | Subset | Fixed


def _is_whole_steps(high: float, low: float, step: float) -> bool:
    """Whether whole steps lead from low to high, reckoned in decimals as Optuna does."""
    try:
        return (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step)) == 0
    except InvalidOperation:  # more steps than decimals have digits
        return False
