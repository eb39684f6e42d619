"""The reference in plain PyTorch. It is the oracle of the tests, and runs on the CPU."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor


def forecast_read(terms: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Return ``terms[0] + Σ weights[i] (terms[i] - terms[i + 1])``."""
    value = terms[0]
    for i, (newer, older) in enumerate(pairwise(terms)):
        value = value + (newer - older) * weights[i]
    return value
