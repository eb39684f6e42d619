"""Values in graphs and calls as JSON, and back. Nothing that is read is evaluated."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from fxcache.deploy.fields import damaged
from fxcache.errors import ArtifactError

NAMED: dict[str, type] = {
    "dtype": torch.dtype,
    "layout": torch.layout,
    "memory_format": torch.memory_format,
}
SPECIAL = ("inf", "-inf", "nan")
# Operators of torch crash with some other dtypes, layouts and numbers.
READABLE = frozenset({
    *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"),
    *("int64", "int32", "int16", "int8", "uint8", "bool", "complex64", "complex128"),
    *("strided", "contiguous_format", "channels_last", "channels_last_3d", "preserve_format"),
})  # fmt: skip
MAX_NUMBER = 2**63 - 1
MAX_TEXT = 4096
MODEL = "model"  # the name of the model's own device
MAX_DEPTH = 16


def encode(value: Any, number_of: Mapping[fx.Node, int], device: torch.device) -> Any:
    """Return ``value`` as JSON.

    Args:
        value: A constant, a node, or lists, tuples and dicts of them.
        number_of: The number of each node.
        device: The device of the model. An artifact names it ``model``, not by its type.

    Raises:
        ArtifactError: JSON cannot hold the value.
    """

    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, fx.Node):
        return {"node": number_of[value]}
    if isinstance(value, torch.device):
        return {"device": device_name(value, device)}
    for name, kind in NAMED.items():
        if isinstance(value, kind):
            return {name: str(value).removeprefix("torch.")}
    return encode_container(value, lambda item: encode(item, number_of, device))


def encode_container(value: Any, inner: Callable[[Any], Any]) -> Any:
    """Return a list, a tuple or a dict as JSON. ``inner`` encodes an item."""
    if isinstance(value, list):
        return [inner(item) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [inner(item) for item in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: inner(item) for key, item in value.items()}}
    raise ArtifactError(
        f"a {type(value).__name__} cannot be part of an artifact",
        where=repr(value)[:80],
        remedy="pass tensors, numbers, strings, dtypes and devices to the model",
    )


def device_name(device: torch.device, of_model: torch.device) -> str:
    """Return the name of ``device`` in an artifact."""
    return MODEL if same_device(device, of_model) else device.type


def same_device(some: torch.device, other: torch.device) -> bool:
    """Return whether both are one device. A device without an index is the first one."""
    return some.type == other.type and (some.index or 0) == (other.index or 0)


def decode(
    data: Any, nodes: Sequence[fx.Node], device: torch.device, where: str, depth: int = 0
) -> Any:
    """Return the value that ``encode`` encoded.

    Args:
        data: The JSON value.
        nodes: The nodes so far, by number.
        device: The device of the model.
        where: The place in the artifact, for errors.
        depth: The depth of nesting so far.

    Raises:
        ArtifactError: It is no value that ``encode`` returns.
    """
    if depth > MAX_DEPTH:
        raise damaged("values are nested too deeply", where)
    if data is None or isinstance(data, bool | float):
        return data
    if isinstance(data, int) and abs(data) <= MAX_NUMBER:
        return data
    if isinstance(data, str) and len(data) <= MAX_TEXT and data.isprintable():
        return data
    if isinstance(data, list):
        return [decode(item, nodes, device, where, depth + 1) for item in data]
    if isinstance(data, dict) and len(data) == 1:
        ((kind, content),) = data.items()
        if kind == "dict" and isinstance(content, dict):
            items = content.items()
            return {k: decode(item, nodes, device, where, depth + 1) for k, item in items}
        if kind == "tuple" and isinstance(content, list):
            return tuple(decode(item, nodes, device, where, depth + 1) for item in content)
        if (read := SCALARS.get(kind)) is not None:
            return read(content, nodes, device, where)
    raise damaged(f"unknown value {str(data)[:80]}", where)


def node_of(content: Any, nodes: Sequence[fx.Node], device: torch.device, where: str) -> fx.Node:
    del device
    if type(content) is not int or not 0 <= content < len(nodes):
        raise damaged(f"there is no node {str(content)[:20]} before this one", where)
    return nodes[content]


def special(content: Any, nodes: Sequence[fx.Node], device: torch.device, where: str) -> float:
    del nodes, device
    if content not in SPECIAL:
        raise damaged(f"unknown number {str(content)[:20]}", where)
    return float(content)


def device_of(
    content: Any, nodes: Sequence[fx.Node], device: torch.device, where: str
) -> torch.device:
    del nodes
    if content == MODEL:
        return device
    if content != "cpu":
        raise damaged(f"unknown device {str(content)[:20]}", where)
    return torch.device("cpu")


def named(name: str) -> "Read":
    """Return a function that reads a dtype, a layout or a memory format."""

    def read(content: Any, nodes: Sequence[fx.Node], device: torch.device, where: str) -> Any:
        del nodes, device
        known = type(content) is str and content in READABLE
        value = getattr(torch, content, None) if known else None
        if not isinstance(value, NAMED[name]):
            raise damaged(f"unknown {name} {str(content)[:20]}", where)
        return value

    return read


Read = Callable[[Any, Sequence[fx.Node], torch.device, str], Any]
SCALARS: dict[str, Read] = {
    "node": node_of,
    "float": special,
    "device": device_of,
    **{name: named(name) for name in NAMED},
}
