"""How a timestep that is a Python number enters the graph.

The model's Python code computes with the number, and some of the results enter tensors. One run on
fake tensors records the model's calls of torch functions. For another number, the model's Python
code runs again, and each torch function returns the recorded result, so that no tensor is computed.
Each argument that differs from the recorded one becomes an input of the graph. Its value is the one
that Python computed. If the model makes other calls, the number needs a graph of its own.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fxcache._torch import TreeSpec, fake_mode_for, tree_unflatten

# The result depends on numbers, and on the shape, dtype and device of the first argument.
LIKE = frozenset({"new_tensor", "new_full", "full_like"})
# The result depends on numbers alone. Random functions are not included.
FACTORIES = frozenset({"tensor", "as_tensor", "scalar_tensor", "asarray", "full", "arange"})
# These give the same bits for a number and for a 0-dim tensor of the right dtype.
ARITHMETIC = frozenset(
    {
        "add", "add_", "__radd__", "__iadd__", "sub", "sub_", "rsub", "__rsub__", "__isub__",
        "mul", "mul_", "__rmul__", "__imul__", "div", "div_", "true_divide", "__rdiv__",
        "__rtruediv__", "__idiv__", "__itruediv__", "subtract", "multiply", "divide",
        "gt", "ge", "lt", "le", "eq", "ne", "__eq__", "__ne__",
    }
)  # fmt: skip
ASSIGNMENTS = frozenset({"fill_", "__setitem__"})
RESULT = -1  # the leaf of a slot that replaces the whole result of a call


@dataclass(frozen=True)
class Ref:
    """A reference to a tensor of the recorded run.

    Attributes:
        source: ``"input"``, ``"weight"`` or ``"call"``.
        name: The path of the input, the name of the weight, or (index of the call, index of the
            tensor in its result).
    """

    source: str
    name: Hashable


class Kind(NamedTuple):
    """The shape, dtype and device of a tensor."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, value: Any) -> "Kind | None":
        """Return the kind of ``value``; None if it is not a tensor."""
        return cls(value.shape, value.dtype, value.device) if isinstance(value, Tensor) else None


class Slot(NamedTuple):
    """A place at which a number enters the graph.

    Attributes:
        call: The index of the call of a torch function.
        leaf: The index of the argument in the flat arguments of the call, or ``RESULT``.
    """

    call: int
    leaf: int


@dataclass(frozen=True, eq=False)
class Entry:
    """One recorded call of a torch function.

    Attributes:
        func: The torch function.
        spec: The structure of the arguments.
        leaves: The flat arguments, with a ``Ref`` for each tensor.
        result: The result, with a ``Ref`` for each tensor.
        made: The kind of the result; None if it is not a tensor.
        first: The kind of the first argument; None if it is not a tensor.
        tensors: Whether the result contains tensors.
    """

    func: Callable[..., Any]
    spec: TreeSpec
    leaves: tuple[Any, ...]
    result: Any
    made: Kind | None
    first: Kind | None
    tensors: bool

    def slot(self, call: int, leaf: int) -> Slot | None:
        """Return the slot for a number in this leaf; None if no tensor can replace the number."""
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
        """Return the tensor for ``slot`` with these arguments; None if its kind changes."""
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
    """Placeholder tensors that a replay returns, and whose values are never read.

    They are fake tensors, as in the recorded run, because a method of a fake tensor makes other
    calls than a method of a real tensor.
    """

    def __init__(self) -> None:
        self._mode = fake_mode_for(())
        self._made: dict[Ref, Tensor] = {}

    def of(self, ref: Ref) -> Tensor:
        """Return the stand-in for ``ref``."""
        if ref not in self._made:
            with self._mode:
                self._made[ref] = torch.empty(0)
        return self._made[ref]


@dataclass(frozen=True, eq=False)
class NumberTrace:
    """The recorded calls of torch functions for one number.

    The trace is valid only for calls that pass the same values at the paths in ``read``.

    Attributes:
        entries: The calls in order.
        read: The paths of the inputs whose values the model reads.
        returned: The numbers and strings in the model's result, which are constants of a graph.
        slots: The places at which other numbers enter.
        stand_ins: The tensors that a replay returns.
    """

    entries: tuple[Entry, ...]
    read: frozenset[str]
    returned: tuple[Any, ...] = ()
    slots: tuple[Slot, ...] = ()
    stand_ins: StandIns = field(default_factory=StandIns)

    def stand_in(self, ref: Ref) -> Tensor:
        """Return the tensor that a replay returns in place of ``ref``."""
        return self.stand_ins.of(ref)


@dataclass(frozen=True)
class AsTensor:
    """The number is passed as a 0-dim tensor, because the model does not accept a number.

    Attributes:
        reason: The error that the model raises for the number.
        read: Empty: the model reads no inputs.
    """

    reason: str = field(compare=False)
    read: frozenset[str] = frozenset()


def like(name: str, made: Kind | None, args: Any, kwargs: Mapping[str, Any]) -> Tensor:
    """Return the result of a function in ``LIKE``, computed from the recorded kind."""
    assert made is not None
    if name == "new_tensor":
        data = kwargs.get("data", args[-1])
        return torch.tensor(data, dtype=made.dtype, device=made.device)
    number = kwargs.get("fill_value", args[-1])
    return torch.full(made.shape, number, dtype=made.dtype, device=made.device)


def is_number(value: Any) -> bool:
    """Return whether a tensor can represent ``value``: a real number that is not a bool."""
    return isinstance(value, Real) and not isinstance(value, bool)


def same(first: Any, second: Any) -> bool:
    """Return whether two arguments of a torch function are bitwise equal."""
    if type(first) is not type(second):
        return False
    if isinstance(first, float):
        return first.hex() == second.hex()
    if isinstance(first, Tensor):
        return first is second or bool(Kind.of(first) == Kind.of(second) and first.equal(second))
    return first is second or bool(first == second)
