"""Optimises objects in place by giving them a subclass with the name of the original class.

An object is restored by removing that class again. Classes of other libraries may be derived from
it in between, such as those of FSDP, which swaps classes too.
"""

import sys
import types
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

ORIGINAL = "_fxcache_original"  # the attribute of an optimised class that holds the original class


class Swapped(type):
    """Metaclass of the optimised classes of modules.

    An optimised class equals only itself, with one exception. diffusers' ``from_pipe`` keeps a
    component only if ``type(component) in annotated_types``, which is False for subclasses and can
    only be changed by ``==``. In that comparison alone, the class equals its original.
    """

    def __eq__(cls, other: object) -> bool:
        if cls is other:
            return True
        return vars(cls).get(ORIGINAL, cls) is other and is_from_pipe(sys._getframe(1))

    __hash__ = type.__hash__

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make an instance of the original class: a new model is not optimised."""
        original = vars(cls).get(ORIGINAL)
        return original(*args, **kwargs) if original else super().__call__(*args, **kwargs)


def is_from_pipe(frame: types.FrameType) -> bool:
    """Return whether ``frame`` runs the ``from_pipe`` of diffusers' pipelines."""
    module = str(frame.f_globals.get("__name__"))
    return frame.f_code.co_name == "from_pipe" and module.startswith("diffusers.")


class ClassSwap:
    """Makes one class for each original class.

    Args:
        mixin: The last base class of the new class; it marks optimised objects, and has no members.
            Were it the first, Python would refuse to swap classes whose first base is not a module,
            such as ``class Model(ABC, nn.Module)``: their objects have another layout.
        members: Maps the original class to the attributes of the new class.
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
        """Return the optimised class of ``original``: the same one while any object has it."""
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
        metaclass = common_metaclass(self._metaclass, type(original))
        members = {**self._members(original), **named}
        return metaclass(original.__name__, (original, self._mixin), members)


def common_metaclass(wanted: type[type], own: type[type]) -> type[type]:
    """Return a metaclass that is derived from both."""
    if issubclass(own, wanted):
        return own
    if issubclass(wanted, own):
        return wanted
    return type(wanted.__name__, (wanted, own), {})


def original_of(kind: type) -> type | None:
    """Return the original class in ``kind``; None if ``kind`` contains no class of fxcache."""
    return next((vars(c)[ORIGINAL] for c in kind.__mro__ if ORIGINAL in vars(c)), None)


def without_swap(kind: type) -> type:
    """Return ``kind`` with the original class in place of the optimised class.

    A class that another library derived from an optimised class (``FSDPX(FSDPModule, X)``) is
    created again, derived from the original class.
    """
    if ORIGINAL in vars(kind):
        return vars(kind)[ORIGINAL]
    if original_of(kind) is None:
        return kind
    own = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
    bases = tuple(map(without_swap, kind.__bases__))
    return types.new_class(kind.__name__, bases, exec_body=lambda members: members.update(own))
