"""A fast path for calls: a call of a known form needs no new analysis of its arguments."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fxcache.call import Call
from fxcache.contents import PLAIN
from fxcache.program import Role

TESTED = object()  # marks an argument that must be tested at each call
# A test returns whether a value has the expected form, and appends its tensors to the list.
Test = Callable[[Any, list[Tensor]], bool]


class Key:
    """A key that stores its hash. A key is nested, and each call looks it up several times."""

    __slots__ = ("_hash", "parts")

    def __init__(self, parts: Hashable):
        self.parts, self._hash = parts, hash(parts)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Key) and self.parts == other.parts)

    def __repr__(self) -> str:
        return f"Key({self.parts})"


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """The dtype that autocast casts to on this type of device; None if autocast is off."""
    if device_type == "meta" or not torch.is_autocast_enabled(device_type):
        return None
    return torch.get_autocast_dtype(device_type)


class Form:
    """The conditions under which other arguments have the same key as ``call``.

    Args:
        call: The call.
        num_args: How many arguments are passed by position.
        names: The names of all arguments, in the caller's order.
        tests: One test for each argument.
        values: The arguments of ``call``.
        tensors: The tensors that the tests find in ``values``, without duplicates.
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
        # A form must not keep tensors alive: the runtime tells requests apart by tensors that die.
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
        """Return the call with these arguments; None if they have another form."""
        if len(args) != self._num_args or tuple(kwargs) != self._names:
            return None
        values = (*args, *kwargs.values())
        in_order: list[Tensor] = []
        for test, value, constant in zip(self._tests, values, self._constants, strict=True):
            if value is not constant and not test(value, in_order):
                return None
        if autocast_dtype(self._device) is not self._autocast:
            return None
        tensors = [in_order[i] for i in self._order]
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
    """Return the form of ``call``; None if tests of the arguments cannot recognise it.

    They cannot if the call passes state objects, values of an unknown type, or one tensor twice.

    Args:
        call: The call.
        args: The positional arguments, as the caller passed them.
        kwargs: The keyword arguments, as the caller passed them.
        names: The names of ``args``.
        defaults: The defaults of parameters, by name.
    """
    named, values = (*names, *kwargs), (*args, *kwargs.values())
    pairs = list(zip(named, values, strict=True))
    tests = [argument_test(call, name, value, defaults) for name, value in pairs]
    tensors: list[Tensor] = []
    known = all(test(value, tensors) for test, value in zip(tests, values, strict=True))
    distinct = len(set(map(id, tensors))) == len(tensors)
    if call.state or not known or not distinct:
        return None
    return Form(call, len(args), named, tests, values, tensors)


def argument_test(call: Call, name: str, value: Any, defaults: Mapping[str, Any]) -> Test:
    """Return a test for the argument ``name``, whose value in ``call`` is ``value``.

    A call leaves out arguments that equal their defaults. So an argument that is the default must
    stay the default, and any other argument must not become the default.
    """
    if name not in call.arguments:  # the value is the default
        return lambda other, _: other is value
    is_number = name == call.timestep_name and call.number is not None
    test = number_test(value) if is_number else test_of(value)
    if name not in defaults:
        return test
    default = defaults[name]
    return lambda other, tensors: other is not default and test(other, tensors)


def test_of(value: Any) -> Test:
    """Return a test for values like ``value``. Nothing passes the test of an unknown type."""
    if isinstance(value, Tensor):
        return tensor_test(value)
    if isinstance(value, dict):
        return dict_test(value)
    if isinstance(value, list | tuple):
        return sequence_test(value)
    return constant_test(value) if isinstance(value, PLAIN) else fails


def fails(*_: Any) -> bool:
    """Return the test that nothing passes."""
    return False


def tensor_test(value: Tensor) -> Test:
    """Return a test for tensors of the same type, shape, layout, dtype and device."""
    kind, shape, dtype, device = type(value), value.shape, value.dtype, value.device
    layout = value.layout

    def test(other: Any, tensors: list[Tensor]) -> bool:
        if type(other) is not kind or other.shape != shape or other.layout is not layout:
            return False
        tensors.append(other)
        return other.dtype is dtype and other.device == device

    return test


def number_test(value: Any) -> Test:
    """Return a test for numbers of the same type."""
    kind = type(value)
    return lambda other, _: type(other) is kind


def constant_test(value: Any) -> Test:
    """Return a test for the same value of the same type."""
    kind = type(value)
    if kind is float and value == 0:  # and 0.0 equals -0.0
        return lambda other, _: type(other) is kind and repr(other) == repr(value)
    return lambda other, _: other is value or (type(other) is kind and bool(other == value))


def dict_test(value: dict[Any, Any]) -> Test:
    """Return a test for dicts with the same keys in the same order, and values of the same form."""
    kind, keys, inner = type(value), tuple(value), sequence_test(list(value.values()))
    kinds = list(map(type, keys))
    if not all(key in (str, int) for key in kinds):
        return fails

    def test(other: Any, tensors: list[Tensor]) -> bool:
        same = type(other) is kind and list(map(type, other)) == kinds and tuple(other) == keys
        return same and inner(list(other.values()), tensors)

    return test


def sequence_test(value: Sequence[Any]) -> Test:
    """Return a test for sequences with as many items, of the same form."""
    kind, tests = type(value), [test_of(item) for item in value]

    def test(other: Any, tensors: list[Tensor]) -> bool:
        same = type(other) is kind and len(other) == len(tests)
        return same and all(check(item, tensors) for check, item in zip(tests, other, strict=True))

    return test
