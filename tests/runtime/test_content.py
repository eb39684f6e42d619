"""Tests the keys of objects: they are equal for equal content."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from fxcache.runtime.content import Content


class Point:
    def __init__(self, x: object = 1, **more: object):
        self.x = x
        vars(self).update(more)

    def method(self) -> None:
        """A bound method for the tests."""


class Slotted:
    __slots__ = ("x",)


def closure(value: object) -> Callable[[], object]:
    return lambda: value


def cycle() -> Point:
    first = Point()
    first.x = Point(first)
    return first


tensor, inner = torch.ones(2), nn.Identity()
EQUAL: dict[str, Callable[[], object]] = {
    "objects": lambda: Point([1, {"a": (2.0, None)}]),
    "objects that refer to each other": cycle,
    "closures": lambda: closure([1, 2]),
    "bound methods": lambda: Point(3).method,
    "closures over a tensor": lambda: closure(tensor),
    "objects with a module": lambda: Point(inner),
    "not a number": lambda: float("nan"),
    "sets": lambda: {1, 2, 3},
    "dtypes": lambda: Point(torch.float32, device=torch.device("cpu")),
}
DIFFERENT: dict[str, tuple[object, object]] = {
    "settings": (Point(1), Point(2)),
    "names of settings": (Point(1, a=1), Point(1, b=1)),
    "numbers of another type": (Point(1), Point(1.0)),
    "truth and one": (Point(1), Point(True)),
    "zero and minus zero": (0.0, -0.0),
    "closures": (closure([1]), closure([2])),
    "code": (lambda: 1, lambda: 2),
    "defaults": (lambda a=1: a, lambda a=2: a),
    "methods": (Point(1).method, Point(2).method),
    "cycles": (cycle(), Point(Point(Point()))),
    "tensors": (closure(torch.ones(2)), closure(torch.ones(2))),
    "modules": (Point(nn.Identity()), Point(nn.Identity())),
    "objects with a layout of their own": (Slotted(), Slotted()),
    "very large objects": (Point([[i] for i in range(999)]), Point([[i] for i in range(999)])),
}


@pytest.mark.parametrize("name", EQUAL)
def test_equal_contents_have_equal_keys(name):
    first, second = EQUAL[name](), EQUAL[name]()
    assert Content(first).key == Content(second).key
    assert hash(Content(first).key) == hash(Content(second).key)


@pytest.mark.parametrize("name", DIFFERENT)
def test_different_contents_have_different_keys(name):
    first, second = DIFFERENT[name]
    assert Content(first).key != Content(second).key
    assert Content(first).key == Content(first).key


def test_a_written_tensor_has_another_key():
    held = Point(torch.ones(2))
    before = Content(held).key
    held.x.add_(1)  # type: ignore[attr-defined]
    assert Content(held).key != before
