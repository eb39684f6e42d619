"""Remembers the calls that change Python objects of the model: the original runs them."""

from collections import OrderedDict
from collections.abc import Hashable
from functools import partial
from types import FunctionType, MethodType
from typing import Any, NamedTuple

from torch import nn

from fxcache.effect import Effect

MAX_KINDS = 256


class Seen(NamedTuple):
    """An effect, and the code behind the attribute that leads to it.

    Attributes:
        effect: The effect.
        code: The code of the attribute when a call had the effect.
    """

    effect: Effect
    code: Hashable


class KnownEffects:
    """The known effects of each kind of call of one model.

    What a call stores may be part of the key of its capture, so that each call would be traced
    again. Calls with lasting effects are therefore recognised by the code that has them.
    """

    def __init__(self) -> None:
        """Start without effects."""
        self._lasting: OrderedDict[Hashable, tuple[Seen, ...]] = OrderedDict()
        self._first: OrderedDict[Hashable, frozenset[str]] = OrderedDict()

    def expected(self, module: nn.Module, kind: Hashable) -> bool:
        """Return whether a call of this kind has lasting effects.

        Args:
            module: The model.
            kind: The key of the call.
        """
        seen = self._lasting.get(kind)
        return bool(seen) and all(code_at(module, s.effect) == s.code for s in seen or ())

    def note(
        self, module: nn.Module, kind: Hashable, effects: tuple[Effect, ...], numbered: bool
    ) -> bool:
        """Note the effects of a call that the original is about to run.

        An effect lasts if it stores a value of the call. A plain value, such as a setting that the
        first call fills in, lasts if a second call changes it again. If the timestep is a number,
        calls may store a value for each: what they fill does not last.

        Args:
            module: The model.
            kind: The key of the call.
            effects: Its effects.
            numbered: Whether its timestep is a Python number.

        Returns:
            Whether the effects last.
        """
        first = self._first.get(kind, frozenset())
        if numbered:
            lasting = [e for e in effects if str(e) in first and not e.fills]
        else:
            lasting = [e for e in effects if e.stores or str(e) in first]
        keep(self._first, kind, first.union(map(str, effects)))
        if lasting:
            keep(self._lasting, kind, tuple(Seen(e, code_at(module, e)) for e in lasting))
        return bool(lasting)


def keep(record: OrderedDict[Hashable, Any], key: Hashable, value: Any) -> None:
    """Store ``value``. Drop the oldest entry of a record that is full."""
    record[key] = value
    if len(record) > MAX_KINDS:
        record.popitem(last=False)


def code_at(module: nn.Module, effect: Effect) -> Any:
    """Return a key of the code that the attribute of an effect leads to; None if it is gone."""
    try:
        owner = module.get_submodule(effect.place.path)
    except AttributeError:
        return None
    return code_of(vars(owner).get(effect.place.name)) or type(owner)


def code_of(value: Any) -> Any:
    """Return a key of the code that calls of ``value`` run, without its data; None for data.

    Args:
        value: A function, a processor, a hook, or a dict of hooks.
    """
    if isinstance(value, FunctionType):
        return value.__code__
    if isinstance(value, MethodType):
        return code_of(value.__func__)
    if isinstance(value, partial):
        return code_of(value.func)
    if isinstance(value, dict):
        return tuple(filter(None, map(code_of, value.values())))
    return type(value) if callable(value) else None
