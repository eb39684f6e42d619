"""The sizes that may vary between calls of native code: bounds, conditions and their check."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fxcache.deploy import expressions
from fxcache.deploy.fields import Fields, list_of
from fxcache.deploy.inputs import MAX_SIZE
from fxcache.deploy.values import decode
from fxcache.errors import ArtifactError
from fxcache.program import VaryingSizes, dtype_name

PROGRAM = ("sizes", "conditions")
INPUT = ("name", "kind", "number", "role", "dtype", "shape", "order", "device")


def sizes_to_json(sizes: VaryingSizes) -> dict[str, Any]:
    """Return the bounds of each size by name, and the conditions on sizes, as JSON."""
    ranges = {str(symbol): sizes.ranges.get(symbol, (0, math.inf)) for symbol in symbols_of(sizes)}
    return {
        "sizes": {name: [int(least), whole(most)] for name, (least, most) in ranges.items()},
        "conditions": [expressions.to_json(g) for g in sizes.guards if g != True],  # noqa: E712, sympy
    }


def symbols_of(sizes: VaryingSizes) -> list[Any]:
    """Return the symbols of sizes that may vary, in order."""
    found = (e for e in sizes.expressions.values() if not isinstance(e, int) and e.is_Symbol)
    return list(dict.fromkeys(found))


def whole(most: Any) -> int | None:
    """Return an upper bound as an int; None if there is none."""
    return None if most in (math.inf, None) or not getattr(most, "is_Integer", True) else int(most)


class Sizes:
    """The sizes of one program, and the conditions on them.

    Args:
        data: The result of ``sizes_to_json``.
        where: Its place in the manifest.
    """

    def __init__(self, data: object, where: str):
        fields = Fields(data, where, PROGRAM)
        self._bounds = {name: bounds_of(b, fields) for name, b in fields.pairs("sizes")}
        names = {name: name for name in self._bounds}
        self._conditions = [
            expressions.from_json(c, names, where) for c in fields.of("conditions", list)
        ]

    def require(self, values: Mapping[str, int], name: str) -> None:
        """Raise ArtifactError unless the graph is valid for these sizes, by name."""
        for size, value in values.items():
            least, most = self._bounds[size]
            if not least <= value <= most:
                raise refused(name, f"the size {value} is not from {least} to {most}")
        for condition in self._conditions:
            if isinstance(condition, expressions.Condition) and not condition.subs(values):
                raise refused(name, f"the sizes {dict(values)} are not served")

    @property
    def names(self) -> set[str]:
        """The names of the sizes."""
        return set(self._bounds)


def bounds_of(data: object, fields: Fields) -> tuple[int, float]:
    """Return the least and the greatest value of a size."""
    if not isinstance(data, list) or len(data) != 2:
        raise fields.wrong("sizes", "a size has two bounds")
    least, most = list_of([data[0]], int, fields.where)[0], data[1]
    return least, math.inf if most is None else list_of([most], int, fields.where)[0]


class InputCheck(NamedTuple):
    """What an input of native code must be.

    Attributes:
        name: Its path in the call, or the name of a cached value.
        kind: ``user`` or ``cached``.
        number: The number of the program's input, or of the cache point.
        dtype: The dtype.
        shape: The sizes; the name of a size that may vary.
        order: The dimensions from the greatest stride to the least. There are no gaps.
        device: The type of the device.
    """

    name: str
    kind: str
    number: int
    dtype: torch.dtype
    shape: tuple[int | str, ...]
    order: tuple[int, ...]
    device: str

    @classmethod
    def of(cls, data: object, where: str, sizes: Sizes) -> "InputCheck":
        """Return the check that JSON describes."""
        fields = Fields(data, where, INPUT)
        shape, order = fields.of("shape", list), fields.items("order", int)
        for size in shape:
            whole_size = type(size) is int and 0 <= size <= MAX_SIZE
            if not whole_size and not (type(size) is str and size in sizes.names):
                raise fields.wrong("shape", f"unknown size {str(size)[:40]!r}")
        if sorted(order) != list(range(len(shape))):
            raise fields.wrong("order", "it does not order the dimensions")
        return cls(
            fields.of("name", str),
            fields.one_of("kind", ("user", "cached")),
            fields.size("number", 2**20),
            decode({"dtype": fields.of("dtype", str)}, (), torch.device("cpu"), where),
            tuple(shape),
            tuple(order),
            fields.of("device", str),
        )

    def require(self, value: Tensor, device: torch.device, values: dict[str, int]) -> None:
        """Raise ArtifactError unless ``value`` is as described. Add its sizes to ``values``."""
        if value.dtype is not self.dtype:
            dtypes = f"{dtype_name(value.dtype)}, not {dtype_name(self.dtype)}"
            raise refused(self.name, f"the dtype is {dtypes}")
        on_another = device.type == self.device and value.device != device
        if value.device.type != self.device or on_another:
            raise refused(self.name, f"it is on {value.device}, not on {device}")
        fits = value.dim() == len(self.shape)
        for size, wanted in zip(value.shape, self.shape, strict=False):
            known = values.setdefault(wanted, size) if isinstance(wanted, str) else wanted
            fits = fits and known == size
        if not fits:
            raise refused(self.name, f"the shape is {list(value.shape)}, not {list(self.shape)}")
        if not is_dense(value, self.order):
            strides = f"{list(value.stride())}: another order, or gaps"
            raise refused(self.name, f"the strides are {strides}")


def is_dense(value: Tensor, order: Sequence[int]) -> bool:
    """Return whether the dimensions have this order in memory, without gaps."""
    step = 1
    for dim in reversed(order):
        size = value.shape[dim]
        if size != 1 and value.stride(dim) != step:
            return False
        step *= size
    return True


def refused(name: str, what: str) -> ArtifactError:
    """Return the error for an input that native code does not take."""
    return ArtifactError(
        f"native code cannot take this input: {what}",
        where=name,
        remedy="pass tensors like those of the call that was exported, such as `x.contiguous()`, "
        "or load the artifact without native=True",
    )
