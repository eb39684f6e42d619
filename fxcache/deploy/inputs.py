"""The inputs of programs as JSON, and back: their paths, shapes, and sizes that may vary."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fxcache._torch import FakeRun, expression_of, guards_of, hint_of
from fxcache.deploy import expressions
from fxcache.deploy.fields import Fields, damaged
from fxcache.deploy.values import decode, device_name
from fxcache.errors import ArtifactError
from fxcache.program import Input, Program, Role, VaryingSizes, dtype_name, value_of

MAX_SIZE = 2**40  # the greatest size of a dimension
INPUT = ("path", "role", "shape", "order", "dtype", "device")
MAX_NAME = 256
SIZE = ("least", "most", "value")


class Bounds(NamedTuple):
    """The bounds of a size that may vary, and its value at capture. ``most`` may be None."""

    least: int
    most: int | None
    value: int

    @classmethod
    def of(cls, data: object, where: str) -> "Bounds":
        """Return the bounds that ``size_to_json`` described."""
        if len(where) > MAX_NAME or not where.isprintable():
            raise damaged("the name of a size is not allowed", ascii(where)[:80])
        fields = Fields(data, where, SIZE)
        most = None if fields.raw("most") is None else fields.size("most", MAX_SIZE)
        return cls(fields.size("least", MAX_SIZE), most, fields.size("value", MAX_SIZE))


def input_to_json(given: Input, value: Tensor, device: torch.device) -> dict[str, Any]:
    """Return the description of an input."""
    sizes = [expression_of(size) for size in value.shape]
    if not all(isinstance(size, int) or size.is_Symbol for size in sizes):
        raise ArtifactError(
            f"the size {sizes} of {given.path} depends on another one",
            where="CaptureConfig(dynamic=...)",
            remedy="leave out the dimension that depends on the other",
        )
    strides = [hint_of(stride) or 0 for stride in value.stride()]
    return {
        "path": given.path,
        "role": given.role.name.lower(),
        "shape": [size if isinstance(size, int) else str(size) for size in sizes],
        "order": sorted(range(value.dim()), key=lambda d: (-strides[d], d)),
        "dtype": dtype_name(value.dtype),
        "device": device_name(value.device, device),
    }


def size_to_json(name: str, program: Program) -> dict[str, Any]:
    """Return the bounds of a size that may vary, and its value at capture."""
    sizes = program.sizes
    (index, dim), symbol = next((at, e) for at, e in sizes.expressions.items() if str(e) == name)
    least, most = sizes.ranges.get(symbol, (0, math.inf))
    value = hint_of(value_of(program.placeholders[index]).shape[dim])
    known = most if isinstance(most, int) else int(most) if getattr(most, "is_Integer", 0) else None
    return {"least": int(least), "most": known, "value": value}


def fake_input(given: Fields, fakes: FakeRun, device: torch.device) -> Tensor:
    """Return a fake tensor for the input that ``input_to_json`` described."""
    shape = [size_in(size, fakes.symbols, given) for size in given.of("shape", list)]
    order = given.items("order", int)
    if sorted(order) != list(range(len(shape))):
        raise given.wrong("order", "it does not order the dimensions")
    stride, step = [1] * len(shape), 1
    for dim in reversed(order):
        stride[dim] = step
        step = step * shape[dim]
    dtype = decode({"dtype": given.of("dtype", str)}, (), device, given.where)
    place = decode({"device": given.of("device", str)}, (), device, given.where)
    return fakes.empty(shape, stride, dtype, place)


def size_in(size: Any, symbols: Mapping[str, Any], given: Fields) -> Any:
    """Return a size: a whole number, or a symbol by its name."""
    if type(size) is int and 0 <= size <= MAX_SIZE:
        return size
    if type(size) is str and size in symbols:
        return symbols[size]
    raise given.wrong("shape", f"unknown size {str(size)[:40]!r}")


def role_of(given: Fields) -> Role:
    """Return the role of an input."""
    return Role[given.one_of("role", [role.name.lower() for role in Role]).upper()]


def varying_sizes(
    inputs: Sequence[Tensor],
    symbols: Mapping[str, Any],
    bounds: Mapping[str, Bounds],
    conditions: Sequence[Any],
    open_dims: Sequence[frozenset[int]],
    where: str,
) -> VaryingSizes:
    """Return the sizes that may vary, with all conditions on them.

    Args:
        inputs: Fake inputs, after the graph ran on them.
        symbols: The symbols by name.
        bounds: The bounds of each symbol, by name.
        conditions: The conditions that the trace found, as JSON.
        open_dims: For each input, the dimensions that the kind of call leaves open. The graph may
            fix their sizes all the same: torch.export fixes a size of one.
        where: Their place in the artifact, for errors.
    """
    sizes: list[tuple[int, int, Any]] = [
        (index, dim, size)
        for index, value in enumerate(inputs)
        for dim, size in enumerate(value.shape)
    ]
    varying = [size for _, _, size in sizes if type(size) is not int]
    stated = [expressions.from_json(condition, symbols, where) for condition in conditions]
    found = guards_of(varying[0]) if varying else []
    ranges = {
        symbols[n]: (b.least, math.inf if b.most is None else b.most) for n, b in bounds.items()
    }
    return VaryingSizes(
        {
            (index, dim): expression_of(size)
            for index, dim, size in sizes
            if type(size) is not int or dim in open_dims[index]
        },
        ranges,
        (*stated, *found),
    )
