"""Tests state objects: their structure, and objects that are made or written from it."""

import threading
from collections import namedtuple
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from fxcache.errors import CaptureError
from fxcache.objects import Build, Walk

Pair = namedtuple("Pair", ["keys", "values"])


class Slotted:
    __slots__ = ("__hidden", "held", "unset")

    def __init__(self, held: Any) -> None:
        self.held, self.__hidden = held, 3

    @property
    def hidden(self) -> int:
        return self.__hidden


@dataclass(frozen=True)
class Frozen:
    tensor: torch.Tensor
    length: int = 0


@dataclass
class Layers:
    layers: list[Any] = field(default_factory=list)
    by_name: dict[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    kind: type = list


def a() -> torch.Tensor:
    return torch.randn(2)


def function(tensor: torch.Tensor, factor: int) -> Any:
    return lambda x: factor * x + tensor


@pytest.mark.parametrize(
    "value",
    [
        function(a(), 3),
        SimpleNamespace(mask=function(a(), 3), masks=[function(a(), 4)]),
        SimpleNamespace(x=1, y=None, z=a()),
        Slotted(a()),
        Frozen(a(), 3),
        Layers([Slotted(a()), Frozen(a())], {"k": (a(), a()), "p": Pair(a(), 2)}),
        Layers([[], {}, ()], {"nested": {"deep": [a()]}}),
    ],
)
def test_an_object_of_the_same_structure(value):
    walk = Walk([])
    structure = walk.part(value, "memory")
    others = [tensor + 1 for tensor in walk.tensors]
    made = Build(others).value(structure)
    assert type(made) is type(value)
    assert made is not value
    again = Walk([])
    assert again.part(made, "memory") == structure
    assert [id(t) for t in again.tensors] == [id(t) for t in others]
    assert hash(structure) is not None
    assert again.paths == walk.paths


def test_paths_and_values():
    walk = Walk([])
    walk.part(Layers([Slotted(a())], {"k": (a(),)}), "cache")
    assert walk.paths == ["cache.layers.0.held", "cache.by_name.k.0"]


def test_shared_tensors_and_objects_stay_shared():
    shared, tensor = Slotted(a()), a()
    walk = Walk([])
    made = Build([a(), a()]).value(walk.part([shared, shared, tensor, tensor], "m"))
    assert made[0] is made[1]
    assert made[2] is made[3]
    assert len(walk.tensors) == 2


def test_functions_that_share_a_variable_share_it_when_rebuilt():
    value = 1

    def read() -> int:
        return value

    def write(new: int) -> None:
        nonlocal value
        value = new

    made = Build([]).value(Walk([]).part([read, write], "m"))
    made[1](5)
    assert made[0]() == 5
    assert read() == 1


def test_functions_are_told_apart_by_code_globals_and_closure():
    tensor = a()
    same, other = function(tensor, 3), function(tensor, 4)
    elsewhere = FunctionType(same.__code__, dict(globals()), closure=same.__closure__)
    parts = [Walk([]).part(f, "m") for f in (function(a(), 3), same, other, elsewhere)]
    assert parts[0] == parts[1]
    assert len(set(parts)) == 3


@pytest.mark.parametrize("broken", ["defaults", "attributes", "no value"])
def test_functions_that_hold_more_are_refused(broken):
    def value(x: int = 1) -> Any:
        return later

    if broken != "defaults":
        value.__defaults__ = None
    if broken == "attributes":
        value.note = 1  # type: ignore[attr-defined]
    with pytest.raises(CaptureError, match=r"has defaults or attributes|has no value yet"):
        Walk([]).part(value, "m")
    later = 2


def test_true_and_one_are_different_keys():
    parts = [Walk([]).part(SimpleNamespace(x=value), "m") for value in (True, 1, 1.0)]
    assert len(set(parts)) == 3


def cycle() -> Any:
    value = SimpleNamespace()
    value.itself = [value]
    return value


REFUSED = {
    "lock": threading.Lock,
    "generator": lambda: (i for i in range(3)),
    "file": lambda: Path(__file__).open(encoding="utf-8"),  # noqa: SIM115
    "module": lambda: nn.Linear(1, 1),
    "function": lambda: print,
    "random": torch.Generator,
    "set": lambda: {1},
    "array": lambda: torch.ones(1).numpy(),
    "iterator": lambda: iter([1]),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_objects_with_other_state_are_refused(name, inside):
    value = REFUSED[name]()
    with pytest.raises(CaptureError, match="may hold state of its own"):
        Walk([]).part(SimpleNamespace(it=[value]) if inside else value, "memory")
    if hasattr(value, "close"):
        value.close()


def test_a_cycle_is_refused():
    with pytest.raises(CaptureError, match="contains itself") as refused:
        Walk([]).part(cycle(), "memory")
    assert refused.value.where == "memory.itself.0"


def test_keys_that_are_objects_are_refused():
    with pytest.raises(CaptureError, match="keys"):
        Walk([]).part({Slotted(1): 2}, "memory")


def test_changes_are_written_to_the_same_objects():
    before = Layers([Slotted(a())], {"old": a()})
    layers, slotted, by_name = before.layers, before.layers[0], before.by_name
    first = Walk([])
    stand_in = Build([a(), a()]).value(first.part(before, "m"))
    origins = {id(stand_in): 0, id(stand_in.layers): 1, id(stand_in.layers[0]): 2}
    origins[id(stand_in.by_name)] = 3
    kept = stand_in.layers[0].held
    stand_in.layers.append(SimpleNamespace(new=a()))
    stand_in.by_name["second"] = stand_in.by_name.pop("old")
    stand_in.dtype = torch.int8
    after = Walk([kept, stand_in.by_name["second"]], origins)
    structure = after.part(stand_in, "m")
    Build([*first.tensors, *after.tensors[2:]], first.containers).value(structure)
    assert before.layers is layers
    assert layers[0] is slotted
    assert slotted.held is first.tensors[0]
    assert layers[1].new is stand_in.layers[1].new
    assert before.by_name is by_name
    assert list(by_name) == ["second"]
    assert by_name["second"] is first.tensors[1]
    assert before.dtype is torch.int8
