"""Tests that a snapshot notices all changes that the exact comparison notices."""

import copy
from array import array
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch import nn

from fxcache.runtime.snapshot import Snapshot
from fxcache.runtime.structure import structure, weights


class Settings:
    """A plain object with settings, which a module holds."""

    def __init__(self) -> None:
        self.scale, self.names = 1.0, ["a"]


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.extra = nn.Linear(2, 2), nn.ModuleDict({"one": nn.Linear(2, 2)})
        self.register_buffer("shift", torch.zeros(2))
        self.gain, self.window = 1.0, (1, 2)
        self.scales: dict[str, float] = {"default": 1.0}
        self.order, self.chosen, self.queue = [1, 2], {"x"}, deque([1])
        self.settings, self.table = Settings(), torch.ones(3)
        self.empty: list[int] = []
        self.sigmas, self.shares = numpy.ones(3), array("d", [1.0])
        self.offset = 0.0


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        parts = [Part() for _ in range(3)]
        parts[2].linear.weight = parts[0].linear.weight
        self.parts: Any = nn.ModuleList(parts)


def put(target: Any, name: str, value: object) -> None:
    setattr(target, name, value)


def swap_attributes(part: Any) -> None:
    del part.empty
    part.bare = []


def swap_registries(part: Any) -> None:
    del part.shift
    part.register_parameter("shift", nn.Parameter(torch.zeros(3)))


CHANGES: dict[str, Callable[[Any], object]] = {
    "a submodule replaced": lambda p: put(p, "linear", nn.Linear(2, 2)),
    "a submodule added": lambda p: p.add_module("new", nn.Identity()),
    "a submodule under another name": lambda p: p.extra.update({"two": p.extra.pop("one")}),
    "a submodule wrapped": lambda p: put(p, "linear", nn.Sequential(p.linear)),
    "a submodule of another class": lambda p: put(p.linear, "__class__", nn.Bilinear),
    "train mode": lambda p: p.train(),
    "a number": lambda p: put(p, "gain", 2.0),
    "a number of another type": lambda p: put(p, "gain", 1),
    "the sign of zero": lambda p: put(p, "offset", -0.0),
    "an array of NumPy": lambda p: put(p.sigmas, "flat", 2.0),
    "an array of Python": lambda p: p.shares.append(2.0),
    "a new attribute": lambda p: put(p, "b1", 0.9),
    "an attribute deleted": lambda p: delattr(p, "gain"),
    "an attribute for another": swap_attributes,
    "a tuple": lambda p: put(p, "window", (2, 2)),
    "a value in a dictionary": lambda p: p.scales.update(default=0.5),
    "a key in a dictionary": lambda p: p.scales.update(other=p.scales.pop("default")),
    "an item of a list": lambda p: p.order.reverse(),
    "an item in an empty list": lambda p: p.empty.append(1),
    "a set": lambda p: p.chosen.add("y"),
    "a queue": lambda p: p.queue.append(1),
    "a setting of an object": lambda p: put(p.settings, "scale", 2.0),
    "a list of an object": lambda p: p.settings.names.append("b"),
    "a tensor among the settings": lambda p: p.table.add_(1),
    "a tensor among the settings replaced": lambda p: put(p, "table", torch.ones(3)),
    "a weight's dtype": lambda p: p.linear.half(),
    "a weight's shape": lambda p: put(p.linear.weight, "data", torch.ones(3, 2)),
    "a weight's device": lambda p: p.linear.to("meta"),
    "a weight untied": lambda p: put(p.linear, "weight", nn.Parameter(torch.ones(2, 2))),
    "a buffer for a parameter": swap_registries,
}
VALUES: dict[str, Callable[[Any], object]] = {
    "a weight written": lambda p: p.linear.bias.detach().add_(1),
    "a weight replaced": lambda p: put(p.linear, "bias", nn.Parameter(torch.ones(2))),
    "a buffer written": lambda p: p.shift.add_(1),
}
NEITHER: dict[str, Callable[[Any], object]] = {
    "a hook": lambda p: p.linear.register_forward_hook(lambda *_: None),
    "a forward of its own": lambda p: put(p.linear, "forward", lambda x: x),
    "a weight's values": lambda p: put(p.linear.weight, "data", torch.ones(2, 2)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_structure_is_noticed(name):
    model = Whole().eval()
    before = Snapshot(model)
    assert before.holds()
    CHANGES[name](model.parts[2])
    assert not before.holds()
    assert not Snapshot(model).agrees(before)


@pytest.mark.parametrize("name", VALUES)
def test_a_change_of_values_is_not_a_change_of_structure(name):
    model = Whole().eval()
    before, written = Snapshot(model), weights(model)
    VALUES[name](model.parts[2])
    assert not before.holds()
    assert Snapshot(model).agrees(before)
    assert weights(model) != written


@pytest.mark.parametrize("name", NEITHER)
def test_changes_that_a_snapshot_ignores(name):
    model = Whole().eval()
    before = Snapshot(model)
    NEITHER[name](model.parts[2])
    assert Snapshot(model).agrees(before)


def test_equal_settings_in_new_objects_agree():
    model = Whole().eval()
    model.parts[0].gain = float("1.25")
    before = Snapshot(model)
    model.parts[0].gain = float("1.25")
    model.parts[0].order = [1, 2]
    assert not before.holds()
    assert Snapshot(model).agrees(before)


def test_objects_moved_between_containers_are_noticed():
    model = Whole().eval()
    first, second = model.parts[0], model.parts[1]
    item = object()
    first.order, second.order = [item, item], [item]
    before = Snapshot(model)
    second.order.append(first.order.pop())
    assert not before.holds()


def test_offloaded_weights_count_as_unmoved():
    model = Whole().eval()
    homes = {id(model.parts[1].linear.weight): torch.device("meta")}
    before = Snapshot(model, homes)
    assert before.holds(homes)
    assert not before.holds()
    assert Snapshot(model, homes).agrees(before)
    assert not Snapshot(model).agrees(before)


def test_weights_made_in_inference_mode():
    with torch.inference_mode():
        model = Whole().eval()
    before = Snapshot(model)
    assert before.holds()
    assert not before.written()
    model.parts[1].linear.weight.data = torch.ones(3, 2)
    assert not before.holds()


def test_writes_are_reported_once():
    model = Whole().eval()
    snapshot = Snapshot(model)
    model.parts[0].linear.bias.detach().add_(1)
    assert snapshot.written()
    assert not snapshot.written()


def test_structures_of_two_models_differ():
    model = Whole().eval()
    assert structure(model) == structure(model)
    assert structure(model) != structure(copy.deepcopy(model))
