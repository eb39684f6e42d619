"""Attributes of the model that count as state objects of a call: they keep tensors between calls.

A model that embeds the text at its first call, and keeps the result for the next ones, is an
example.
"""

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any

from torch import Tensor, nn

from fxcache._torch import is_dtensor, is_special
from fxcache.call import Call
from fxcache.contents import refusal
from fxcache.effect import Place
from fxcache.form import Key
from fxcache.objects import Container, Part, Plain, TensorAt, Walk
from fxcache.program import Role
from fxcache.state import State

FLAGS = (bool, str)  # "ready", "mode": they tell which calls fill what is kept


class Access(Enum):
    """What a call does to an attribute."""

    READ = "the call changes nothing"
    REPLACED = "the call replaces tensors by others of the same form"
    FILLED = "the call only adds values where there were none, and sets flags"
    CHANGED = "the call changes more than that"


def with_kept(call: Call, module: nn.Module, places: Iterable[Place]) -> Call:
    """Return ``call`` with attributes of the model as further state objects.

    Args:
        call: The call, not bound yet.
        module: The model.
        places: The attributes. Those that are not set are part of the key only.

    Raises:
        CaptureError: An attribute cannot be part of a state object.
    """
    walk = Walk(list(call.tensors), containers=list(call.state.containers))
    found = [(place, part_at(module, place, walk)) for place in places]
    new = tuple(walk.tensors[len(call.tensors) :])
    for tensor, path in zip(new, walk.paths, strict=True):
        if is_dtensor(tensor) or is_special(tensor):
            raise refusal(path, tensor, "is no plain tensor")
    state = State(
        (*call.state.tensors, *new),
        (*call.state.paths, *walk.paths),
        call.state.objects,
        tuple(walk.containers),
        tuple((place, part) for place, part in found if part is not None),
        new,
        {place: place.owner(module) for place, _ in found},
        call.key,
    )
    return call._replace(
        paths=(*call.paths, *walk.paths),
        roles=(*call.roles, *[Role.STATE] * len(new)),
        tensors=(*call.tensors, *new),
        state=state,
        key=Key(
            (call.key, tuple(map(form_of, new)), tuple((str(place), part) for place, part in found))
        ),
    )


def part_at(module: nn.Module, place: Place, walk: Walk) -> Part | None:
    """Return the structure of an attribute; None if it is not set.

    Raises:
        CaptureError: It cannot be part of a state object.
    """
    attributes = place.owner(module)
    if place.name not in attributes:
        return None
    return walk.part(attributes[place.name], f"self.{place}")


def access(
    before: Part, after: Part | None, then: Sequence[Tensor], now: Sequence[Tensor]
) -> Access:
    """Return what a call did to an attribute.

    Args:
        before: The structure of the attribute before the call.
        after: The structure after the call; None if it is no state object any more.
        then: The tensors that ``before`` refers to.
        now: The tensors that ``after`` refers to.
    """
    if before == after:
        return Access.READ
    if after is None:
        return Access.CHANGED
    if only_replaced(before, after, then, now):
        return Access.REPLACED
    return Access.FILLED if only_filled(before, after, then, now) else Access.CHANGED


def only_replaced(before: Part, after: Part, then: Sequence[Tensor], now: Sequence[Tensor]) -> bool:
    """Return whether both differ in nothing but the values of tensors."""
    if isinstance(before, TensorAt) and isinstance(after, TensorAt):
        return form_of(then[before.index]) == form_of(now[after.index])
    if not isinstance(before, Container) or not isinstance(after, Container):
        return before == after
    same = (before.kind, before.names) == (after.kind, after.names)
    if not same or len(before.items) != len(after.items):
        return False
    pairs = zip(before.items, after.items, strict=True)
    return all(only_replaced(old, new, then, now) for old, new in pairs)


def form_of(tensor: Tensor) -> tuple[Any, ...]:
    """Return what the key of a call says of a tensor."""
    return tensor.shape, tensor.dtype, tensor.device


def only_filled(before: Part, after: Part, then: Sequence[Tensor], now: Sequence[Tensor]) -> bool:
    """Return whether ``after`` has all of ``before``, and more where there was nothing or None.

    Flags and the values of tensors may differ.
    """
    if before in (after, Plain(type(None), None)):
        return True
    if isinstance(before, Plain) and isinstance(after, Plain):
        return isinstance(before.value, FLAGS) and isinstance(after.value, FLAGS)
    if not isinstance(before, Container) or not isinstance(after, Container):
        return only_replaced(before, after, then, now)
    if before.kind is not after.kind or not set(before.names) <= set(after.names):
        return False
    if not before.names and len(before.items) != len(after.items):
        return not before.items
    items = dict(zip(after.names or range(len(after.items)), after.items, strict=True))
    pairs = zip(before.names or range(len(before.items)), before.items, strict=True)
    return all(only_filled(item, items[name], then, now) for name, item in pairs)
