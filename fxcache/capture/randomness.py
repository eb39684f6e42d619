"""Detects random numbers of Python and NumPy, which a graph would hold as constants.

It also reads and sets the states of torch's generators.
"""

import random
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.export import ExportedProgram

from fxcache._torch import untraced
from fxcache.capture.foreign_memory import same_bits
from fxcache.capture.replacements import UntraceableError

T = TypeVar("T", bound="Traced")


class Traced(Protocol):
    """The result of a trace."""

    @property
    def program(self) -> ExportedProgram: ...


def without_draws(trace: Callable[[], T]) -> T:
    """Run ``trace`` and check that its result does not depend on random numbers.

    If a generator has advanced, another thread may have used it. So a second trace decides: it
    would draw other numbers.

    Raises:
        UntraceableError: The two traces differ.
    """
    before = GeneratorStates()
    try:
        traced = trace()
    except BaseException:
        before.put_back()
        raise
    if GeneratorStates() == before or same_program(traced.program, trace().program):
        return traced
    before.put_back()
    raise UntraceableError("it draws random numbers with the generators of Python or NumPy")


class GeneratorStates:
    """The states of the global generators of Python and NumPy."""

    def __init__(self) -> None:
        self._numpy: Any = sys.modules.get("numpy.random")
        self._python_state = random.getstate()
        self._numpy_state = self._numpy.get_state(legacy=True) if self._numpy else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GeneratorStates) and self._comparable() == other._comparable()

    __hash__ = None  # type: ignore[assignment]

    def put_back(self) -> None:
        """Set the generators to these states."""
        random.setstate(self._python_state)
        if self._numpy is not None:
            self._numpy.set_state(self._numpy_state)

    def _comparable(self) -> tuple[Any, ...]:
        if self._numpy_state is None:
            return (self._python_state,)
        kind, keys, *rest = self._numpy_state
        return (self._python_state, kind, keys.tobytes(), *rest)


def same_program(first: ExportedProgram, second: ExportedProgram) -> bool:
    """Return whether two traces of one model give the same graph with the same constants."""
    same_code = first.graph_module.code == second.graph_module.code
    if not same_code or first.constants.keys() != second.constants.keys():
        return False
    with untraced():
        return all(
            same_constant(value, second.constants[name]) for name, value in first.constants.items()
        )


def same_constant(first: Any, second: Any) -> bool:
    """Return whether two constants are the same object, or tensors with equal bits."""
    if first is second or not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return first is second
    alike = first.shape == second.shape and first.dtype == second.dtype
    return alike and (first.is_meta or same_bits(first, second))


def random_states() -> list[Tensor]:
    """Return the states of torch's default generators, for the CPU and for a GPU that is in use."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states.append(torch.cuda.get_rng_state())
    return states


def set_random_states(states: Sequence[Tensor]) -> None:
    """Set the generators to ``states``."""
    for state, put_back in zip(
        states, (torch.set_rng_state, torch.cuda.set_rng_state), strict=False
    ):
        put_back(state)
