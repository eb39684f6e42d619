"""Subclasses that go by their original's name: how objects are optimised in place.

An object is optimised by giving it such a class, and restored by taking the class out again. The
classes of others may lie between, such as FSDP's, which itself swaps classes.
"""

import sys
import types
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

ORIGINAL = "_fxcache_original"  # the attribute under which such a class holds the class it extends


class Swapped(type):
    """Metaclass of the optimised classes of modules: each is a class of its own, as any subclass.

    One caller sees it differently. diffusers' ``from_pipe`` keeps a component only where
    ``type(component) in annotated_types`` holds, which a subclass never does, and which nothing
    but ``==`` can answer. In that comparison, and in no other, the class equals its original.
    """

    def __eq__(cls, other: object) -> bool:
        if cls is other:
            return True
        return vars(cls).get(ORIGINAL, cls) is other and is_from_pipe(sys._getframe(1))

    __hash__ = type.__hash__


def is_from_pipe(frame: types.FrameType) -> bool:
    """Whether ``frame`` runs the ``from_pipe`` of diffusers' pipelines."""
    module = str(frame.f_globals.get("__name__"))
    return frame.f_code.co_name == "from_pipe" and module.startswith("diffusers.")


class ClassSwap:
    """Makes one class for each original class.

    Args:
        mixin: Put in front of the original class; it marks optimised objects.
        members: From the original class to the attributes of the new one.
        metaclass: The metaclass of the new class, ``type`` by default.
    """

    def __init__(
        self,
        mixin: type,
        members: Callable[[type], dict[str, Any]],
        metaclass: type[type] = type,
    ):
        self._mixin, self._members, self._metaclass = mixin, members, metaclass
        self._made: WeakValueDictionary[int, type] = WeakValueDictionary()  # by id of the original

    def of(self, original: type) -> type:
        """The optimised class of ``original``; the same one as long as any object has it."""
        made = self._made.get(id(original))
        if made is None:
            made = self._made[id(original)] = self._make(original)
        return made

    def _make(self, original: type) -> type:
        named = {
            ORIGINAL: original,
            "__module__": original.__module__,
            "__qualname__": original.__qualname__,
            "__doc__": original.__doc__,
        }
        metaclass = joined(self._metaclass, type(original))
        members = {**self._members(original), **named}
        return metaclass(original.__name__, (self._mixin, original), members)


def joined(wanted: type[type], own: type[type]) -> type[type]:
    """A metaclass that is both."""
    if issubclass(own, wanted):
        return own
    if issubclass(wanted, own):
        return wanted
    return type(wanted.__name__, (wanted, own), {})


def original_of(kind: type) -> type | None:
    """The class that ``kind`` would extend without fxcache; None if no class of ours is in it."""
    return next((vars(c)[ORIGINAL] for c in kind.__mro__ if ORIGINAL in vars(c)), None)


def without_swap(kind: type) -> type:
    """``kind`` as it would be had fxcache not swapped the class beneath it.

    A class that another library derived from ours (``FSDPX(FSDPModule, X)``) is made anew on top
    of the original.
    """
    if ORIGINAL in vars(kind):
        return vars(kind)[ORIGINAL]
    if original_of(kind) is None:
        return kind
    own = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
    bases = tuple(map(without_swap, kind.__bases__))
    return types.new_class(kind.__name__, bases, exec_body=lambda members: members.update(own))
