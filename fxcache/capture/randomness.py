"""Detects random numbers that no graph can draw.

A graph would hold random numbers of Python and NumPy as constants. It sets no seeds of torch, and
makes no draw that no result depends on.
"""

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol, TypeVar

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from fxcache._torch import draws, seeds_refused, untraced
from fxcache.capture.foreign_memory import same_bits
from fxcache.capture.replacements import UntraceableError

T = TypeVar("T", bound="Traced")
# The operators of these names take the probability and whether to train after their input.
DROPOUTS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
CHECKS = (torch.ops.aten._assert_async.default, torch.ops.aten._assert_async.msg)


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


@contextmanager
def without_seeds() -> Iterator[None]:
    """Refuse to set seeds of torch inside the block, and undo it if it happens.

    Raises:
        UntraceableError: This thread sets a seed.
    """
    before = random_states()
    try:
        with seeds_refused(refuse_seeds):
            yield
    except SeedError:
        set_random_states(before)  # torch sets the seeds of GPUs before that of the CPU
        raise


class SeedError(UntraceableError):
    """The model sets a seed."""


def refuse_seeds() -> NoReturn:
    """Raise the error for a model that sets a seed."""
    raise SeedError(
        "it sets the seed or the state of torch's random numbers, which no graph does",
        "set seeds before the run, or pass random numbers to the model as an input",
    )


def draws_and_checks(graph: fx.Graph, attributes: Mapping[str, Any]) -> Counter[str]:
    """Count the draws and checks in a graph and in the graphs inside of it, by operator.

    Args:
        graph: The graph.
        attributes: Its attributes by name.
    """
    called = (n for n in graph.nodes if n.target in CHECKS or (draws(n.target) and is_active(n)))
    found = Counter(name_of(node.target) for node in called)
    for node in graph.find_nodes(op="get_attr"):
        inner = attributes.get(str(node.target))
        if isinstance(inner, fx.GraphModule):
            found += draws_and_checks(inner.graph, vars(inner) | dict(inner.named_children()))
    return found


def is_active(node: fx.Node) -> bool:
    """Return whether ``node`` is no dropout, or one that drops something: p > 0 in training."""
    if name_of(node.target) not in DROPOUTS:
        return True
    _, p, train = node.args
    return bool(p) and bool(train)


def unused_calls(before: Counter[str], after: Counter[str]) -> tuple[str, ...]:
    """Return the draws and checks that a graph has lost: no output needed their results.

    So later draws give other numbers, and the checks do not fail. A functional graph may draw by
    another operator, as in-place dropout does.

    Args:
        before: The draws and checks of the traced graph.
        after: Those of the program.
    """
    return tuple(before - after) if after.total() < before.total() else ()


def name_of(op: Any) -> str:
    """Return the name of an operator. One that writes in place has that of the functional one."""
    return str(op.overloadpacket.__name__).removesuffix("_functional").rstrip("_")


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
