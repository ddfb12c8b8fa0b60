"""Text in CSV files that a spreadsheet shows as text, whatever it begins with.

Names of hyperparameters, choices and messages come from untrusted configurations and experiments, and a spreadsheet
takes a cell that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line break for a formula. As OWASP advises, such a
text gets a ``'`` in front. So does a text that begins with one or more ``'`` and such a character: ``plain_text`` takes
exactly one away. Numbers stay numbers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_NEUTRAL = re.compile(r"'+[=+\-@\t\r\n]")


def csv_text(value: Any) -> Any:
    """The value, as a cell that is no formula; only text is ever changed."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def plain_text(cell: str) -> str:
    """The text of which ``csv_text`` made the cell."""
    return cell[1:] if _NEUTRAL.match(cell) else cell


def table_as_csv(table: pd.DataFrame) -> str:
    """The table's rows as CSV, without its index; neither its texts nor its columns' names are formulas."""
    from pandas.api.types import is_numeric_dtype  # takes long, and who formats single cells does not need it

    texts = {str(name): table[name].map(csv_text) for name in table if not is_numeric_dtype(table[name])}
    return table.assign(**texts).rename(columns=csv_text).to_csv(index=False)
