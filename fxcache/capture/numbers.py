"""A timestep that is a Python number: how it enters the graph.

Python code computes with a number before some of the results enter tensors. One run on fake
tensors records the calls of torch functions that the model makes. To find what another number
changes, the model's Python code runs again, and each torch function returns what was recorded: no
tensor is computed. What differs becomes an input of the graph, with the value that Python
computed. Where the calls themselves differ, the model takes another way, which has its own graph.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fxcache._torch import TreeSpec, fake_mode_for, tree_unflatten

# The result depends on numbers alone, and on what kind of tensor the first argument is.
LIKE = frozenset({"new_tensor", "new_full", "full_like"})
# The result depends on numbers alone. What draws random numbers is not among them.
FACTORIES = frozenset({"tensor", "as_tensor", "scalar_tensor", "asarray", "full", "arange"})
# They compute the same bits for a number and for a 0-dim tensor of the right dtype.
ARITHMETIC = frozenset(
    {
        "add", "add_", "__radd__", "__iadd__", "sub", "sub_", "rsub", "__rsub__", "__isub__",
        "mul", "mul_", "__rmul__", "__imul__", "div", "div_", "true_divide", "__rdiv__",
        "__rtruediv__", "__idiv__", "__itruediv__", "subtract", "multiply", "divide",
        "gt", "ge", "lt", "le", "eq", "ne", "__eq__", "__ne__",
    }
)  # fmt: skip
ASSIGNMENTS = frozenset({"fill_", "__setitem__"})
RESULT = -1


@dataclass(frozen=True)
class Ref:
    """A tensor of the recorded run, by its ``source``: an input, a weight, or a call."""

    source: str
    name: Hashable


class Kind(NamedTuple):
    """What a tensor is, its values left out."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, value: Any) -> "Kind | None":
        """None for what is no tensor."""
        return cls(value.shape, value.dtype, value.device) if isinstance(value, Tensor) else None


class Slot(NamedTuple):
    """Where a number enters: as leaf ``leaf`` of call ``call``, or as its whole RESULT."""

    call: int
    leaf: int


@dataclass(frozen=True, eq=False)
class Entry:
    """One call of a torch function: flat arguments and result, with each tensor as a ``Ref``.

    ``made``: the kind of the result; ``first``: of the first argument. ``tensors``: whether the
    result holds any.
    """

    func: Callable[..., Any]
    spec: TreeSpec
    leaves: tuple[Any, ...]
    result: Any
    made: Kind | None
    first: Kind | None
    tensors: bool

    def slot(self, call: int, leaf: int) -> Slot | None:
        """Where a number that is this leaf enters; None where no tensor can take its place."""
        if not is_number(self.leaves[leaf]):
            return None
        name = getattr(self.func, "__name__", "")
        tensors = [item for item in self.leaves if isinstance(item, Ref | Tensor)]
        if self.made and (name in LIKE or (name in FACTORIES and not tensors)):
            return Slot(call, RESULT)
        if name == "where" and len(self.leaves) == 3:
            return Slot(call, leaf) if len(tensors) == 2 else None
        last = leaf == len(self.leaves) - 1 and self.first is not None
        binary = name in ARITHMETIC and len(self.leaves) == 2
        return Slot(call, leaf) if last and (binary or name in ASSIGNMENTS) else None

    def value(self, slot: Slot, leaves: list[Any]) -> Tensor | None:
        """What enters there, if the arguments are ``leaves``; None if it is of another kind."""
        if slot.leaf != RESULT:
            number = leaves[slot.leaf]
            dtype = torch.int64 if isinstance(number, Integral) else torch.float64
            return torch.tensor(number, dtype=dtype)
        args, kwargs = tree_unflatten(leaves, self.spec)
        name = self.func.__name__
        value: Tensor = (
            like(name, self.made, args, kwargs) if name in LIKE else self.func(*args, **kwargs)
        )
        return value if Kind.of(value) == self.made else None


class StandIns:
    """Tensors that are handed out in place of others, and never read.

    They are fake ones, since methods of fake tensors call others than those of real tensors do.
    """

    def __init__(self) -> None:
        self._mode = fake_mode_for(())
        self._made: dict[Ref, Tensor] = {}

    def of(self, ref: Ref) -> Tensor:
        """The one for ``ref``."""
        if ref not in self._made:
            with self._mode:
                self._made[ref] = torch.empty(0)
        return self._made[ref]


@dataclass(frozen=True, eq=False)
class NumberTrace:
    """The calls that the model makes for one number, and the ``slots`` that other numbers reach.

    It holds for calls whose inputs at the paths in ``read`` have the values they had.
    """

    entries: tuple[Entry, ...]
    read: frozenset[str]
    slots: tuple[Slot, ...] = ()
    stand_ins: StandIns = field(default_factory=StandIns)

    def stand_in(self, ref: Ref) -> Tensor:
        """What a replay hands out for a tensor of the recorded run."""
        return self.stand_ins.of(ref)


@dataclass(frozen=True)
class AsTensor:
    """The model takes no number, for this ``reason``: it is passed as a 0-dim tensor."""

    reason: str = field(compare=False)
    read: frozenset[str] = frozenset()


def like(name: str, made: Kind | None, args: Any, kwargs: Mapping[str, Any]) -> Tensor:
    """What a function of ``LIKE`` makes, without the tensor that it takes after."""
    assert made is not None
    if name == "new_tensor":
        data = kwargs.get("data", args[-1])
        return torch.tensor(data, dtype=made.dtype, device=made.device)
    number = kwargs.get("fill_value", args[-1])
    return torch.full(made.shape, number, dtype=made.dtype, device=made.device)


def is_number(value: Any) -> bool:
    """Whether ``value`` is one that a tensor can stand for."""
    return isinstance(value, Real) and not isinstance(value, bool)


def same(first: Any, second: Any) -> bool:
    """Whether two arguments of a torch function are the same, to the bit."""
    if type(first) is not type(second):
        return False
    if isinstance(first, float):
        return first.hex() == second.hex()
    if isinstance(first, Tensor):
        return first is second or bool(Kind.of(first) == Kind.of(second) and first.equal(second))
    return first is second or bool(first == second)
