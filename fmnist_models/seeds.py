"""Seeds derived from other numbers."""

from __future__ import annotations

import numpy as np


def derive_seed(*numbers: int) -> int:
    """One 32-bit seed from several non-negative numbers, well spread (NumPy's ``SeedSequence``)."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
