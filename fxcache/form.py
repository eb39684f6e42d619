"""The form of a call, so that the next call of the same form is not worked out again."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fxcache.call import Call, autocast_dtype
from fxcache.objects import PLAIN
from fxcache.program import Role

TESTED = object()  # in place of an argument that must be tested at each call
# Tells whether a value has the form, and appends its tensors to the list.
Test = Callable[[Any, list[Tensor]], bool]


class Key:
    """A key that is hashed once: it is nested, and looked up several times at each call."""

    __slots__ = ("_hash", "parts")

    def __init__(self, parts: Hashable):
        self.parts, self._hash = parts, hash(parts)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Key) and self.parts == other.parts)

    def __repr__(self) -> str:
        return f"Key({self.parts})"


class Form:
    """What the arguments of a call must be like to have the key of ``call``.

    Args:
        call: The call.
        num_args: How many arguments go by position.
        names: Of all arguments, in the caller's order.
        tests: What the arguments must pass.
        values: The arguments.
        tensors: Those that the tests found in them, none twice.
    """

    def __init__(
        self,
        call: Call,
        num_args: int,
        names: Sequence[str],
        tests: Sequence[Test],
        values: Sequence[Any],
        tensors: Sequence[Tensor],
    ):
        # Without its tensors: whether an earlier call's are alive tells requests apart.
        nothing = torch.empty(0)
        self._call = call._replace(
            arguments={}, tensors=(), conditioning=(), latent=nothing, timestep=None
        )
        self._num_args, self._names, self._tests = num_args, tuple(names[num_args:]), tests
        self._constants = [v if isinstance(v, PLAIN) else TESTED for v in values]
        self._device = call.latent.device.type
        self._autocast = autocast_dtype(self._device)
        self._arguments = [(name, names.index(name)) for name in call.arguments]
        order = {id(tensor): number for number, tensor in enumerate(tensors)}
        self._order = [order[id(tensor)] for tensor in call.tensors]
        self._latent = next(i for i, t in enumerate(call.tensors) if t is call.latent)
        roles = enumerate(call.roles)
        self._conditioning = [i for i, role in roles if role is Role.CONDITIONING]

    def call_with(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        """The call with these arguments; None where it has another form."""
        if len(args) != self._num_args or tuple(kwargs) != self._names:
            return None
        values = (*args, *kwargs.values())
        found: list[Tensor] = []
        for test, value, last in zip(self._tests, values, self._constants, strict=True):
            if value is not last and not test(value, found):
                return None
        if autocast_dtype(self._device) is not self._autocast:
            return None
        tensors = [found[i] for i in self._order]
        arguments = {name: values[place] for name, place in self._arguments}
        call = self._call
        return Call(
            arguments,
            call.num_positional,
            call.paths,
            call.roles,
            tuple(tensors),
            tuple([tensors[i] for i in self._conditioning]),
            call.state,
            tensors[self._latent],
            call.latent_name,
            arguments.get(call.timestep_name),
            call.timestep_name,
            call.key,
        )


def form_of(
    call: Call,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    names: tuple[str, ...],
    defaults: Mapping[str, Any],
) -> Form | None:
    """The form of ``call``; None where its arguments alone do not tell it.

    That is where there are state objects or others of an unknown kind, or a tensor is passed twice.

    Args:
        call: The call.
        args: Its arguments by position, as the caller passed them.
        kwargs: Its arguments by name, as the caller passed them.
        names: Of ``args``.
        defaults: Of the parameters that have one.
    """
    named, values = (*names, *kwargs), (*args, *kwargs.values())
    pairs = list(zip(named, values, strict=True))
    tests = [argument_test(call, name, value, defaults) for name, value in pairs]
    found: list[Tensor] = []
    known = all(test(value, found) for test, value in zip(tests, values, strict=True))
    distinct = len(set(map(id, found))) == len(found)
    if call.state or not known or not distinct:
        return None
    return Form(call, len(args), named, tests, values, found)


def argument_test(call: Call, name: str, value: Any, defaults: Mapping[str, Any]) -> Test:
    """A test for the argument ``name``, which was ``value`` in ``call``.

    An argument that is its parameter's default is left out of a call: it must be the default again,
    and one that was not must not become it.
    """
    if name not in call.arguments:  # it is the default
        return lambda other, _: other is value
    numbered = name == call.timestep_name and call.number is not None
    test = number_test(value) if numbered else test_of(value)
    if name not in defaults:
        return test
    default = defaults[name]
    return lambda other, found: other is not default and test(other, found)


def test_of(value: Any) -> Test:
    """A test for values like ``value``; nothing passes it where the kind of value is unknown."""
    if isinstance(value, Tensor):
        return tensor_test(value)
    if isinstance(value, dict):
        return dict_test(value)
    if isinstance(value, list | tuple):
        return sequence_test(value)
    return constant_test(value) if isinstance(value, PLAIN) else fails


def fails(*_: Any) -> bool:
    """The test that nothing passes."""
    return False


def tensor_test(value: Tensor) -> Test:
    """Of the same type, shape, dtype and device."""
    kind, shape, dtype, device = type(value), value.shape, value.dtype, value.device

    def test(other: Any, found: list[Tensor]) -> bool:
        if type(other) is not kind or other.shape != shape:
            return False
        found.append(other)
        return other.dtype is dtype and other.device == device

    return test


def number_test(value: Any) -> Test:
    """A number of the same type."""
    kind = type(value)
    return lambda other, _: type(other) is kind


def constant_test(value: Any) -> Test:
    """The same value of the same type."""
    kind = type(value)
    return lambda other, _: other is value or (type(other) is kind and bool(other == value))


def dict_test(value: dict[Any, Any]) -> Test:
    """The same keys in the same order, each a string or an int, and values alike."""
    kind, keys, inner = type(value), tuple(value), sequence_test(list(value.values()))
    kinds = list(map(type, keys))
    if not all(key in (str, int) for key in kinds):
        return fails

    def test(other: Any, found: list[Tensor]) -> bool:
        same = type(other) is kind and list(map(type, other)) == kinds and tuple(other) == keys
        return same and inner(list(other.values()), found)

    return test


def sequence_test(value: Sequence[Any]) -> Test:
    """As many items, alike."""
    kind, tests = type(value), [test_of(item) for item in value]

    def test(other: Any, found: list[Tensor]) -> bool:
        same = type(other) is kind and len(other) == len(tests)
        return same and all(check(item, found) for check, item in zip(tests, other, strict=True))

    return test
