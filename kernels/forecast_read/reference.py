"""The same in plain PyTorch: the oracle of the tests, and what runs on the CPU."""

from collections.abc import Sequence

from torch import Tensor


def forecast_read(terms: Sequence[Tensor], weights: Tensor) -> Tensor:
    """``terms[0] + Σ weights[i] terms[i + 1]``."""
    value, *derivatives = terms
    for i, derivative in enumerate(derivatives):
        value = value + derivative * weights[i]
    return value
