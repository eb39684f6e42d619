"""Limits of what a graph from an artifact may run, before any of it runs on real tensors."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from fxcache._torch import hint_of
from fxcache.deploy.fields import damaged
from fxcache.deploy.operators import NAMES
from fxcache.deploy.values import MAX_NUMBER

MAX_BYTES = 2**44  # the greatest size of one value
MAX_VALUES = 65_536  # the number of tensors that one operator returns
NUMBERS = (int, float, torch.SymInt, torch.SymFloat, torch.SymBool)
DIVIDING = frozenset({"unbind", "split", "split_with_sizes", "chunk"})


def require_allowed(node: fx.Node, args: Sequence[Any]) -> None:
    """Raise ArtifactError if an operator of Python would run on anything but sizes."""
    name = str(getattr(node.target, "overloadpacket", "")).removeprefix("aten.")
    if name in DIVIDING and num_parts(name, args) > MAX_VALUES:
        raise damaged(f"an operator returns more than {MAX_VALUES:,} tensors", node.name)
    of_python = node.target in NAMES and node.target is not operator.getitem
    if of_python and not all(isinstance(value, NUMBERS) for value in args):
        raise damaged("an operator of Python is applied to something else than sizes", node.name)


def num_parts(name: str, args: Sequence[Any]) -> int:
    """Return at least how many tensors an operator returns that divides its first argument."""
    tensor, *numbers = args
    if name != "unbind" and numbers and isinstance(numbers[0], list | tuple):
        return len(numbers[0])
    first = int(numbers.pop(0)) if name != "unbind" and numbers else 1
    dim = int(numbers[0]) if numbers else 0
    size = hint_of(tensor.shape[dim]) or 1
    return first if name == "chunk" else size // max(first, 1)


class Budget:
    """Limits the nodes that run, and their values.

    Args:
        nodes: How many nodes may run.
    """

    def __init__(self, nodes: int):
        self._left = nodes

    def check(self, node: fx.Node, value: Any) -> None:
        """Raise ArtifactError if no more nodes may run, or if ``value`` is no value of a model."""
        self._left -= 1
        if self._left < 0:
            raise damaged("regions run too often", node.name)
        values = value if isinstance(value, list | tuple) else (value,)
        if len(values) > MAX_VALUES:
            raise damaged(f"an operator returns more than {MAX_VALUES:,} tensors", node.name)
        for part in values:
            require_bounded(node, part)


def require_bounded(node: fx.Node, value: Any) -> None:
    """Raise ArtifactError if ``value`` is no tensor or size, or is larger than any model's."""
    if isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:
        raise damaged(f"the size {node.name} is too large", node.name)
    if isinstance(value, Tensor):
        total = math.prod(hint_of(size) or 1 for size in value.shape) * value.element_size()
        if total > MAX_BYTES:
            raise damaged(f"a value would be larger than {MAX_BYTES:,} bytes", node.name)
    elif not isinstance(value, (*NUMBERS, type(None))):
        raise damaged(f"an operator returns a {type(value).__name__}", node.name)
