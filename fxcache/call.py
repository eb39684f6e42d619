"""One call of a denoiser in canonical form: named leaves, their roles, the key of its capture."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fxcache._torch import is_fake
from fxcache.objects import Build, Container
from fxcache.program import Input, Role, dtype_name

# What the exported graph takes besides the arguments, under names that no parameter has.
STATE = "fxcache_state"
NUMBER = "fxcache_number"


@dataclass(frozen=True)
class State:
    """The state objects of a call.

    ``tensors`` that they hold, at ``paths``; tensors that are arguments too are not among them.
    ``objects``: by path in the arguments, the structure of each. ``containers``: the caller's own,
    in the order of a walk over the objects.
    """

    tensors: tuple[Tensor, ...] = ()
    paths: tuple[str, ...] = ()
    objects: tuple[tuple[str, Container], ...] = ()
    containers: tuple[Any, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.objects)


class Rebuilt(NamedTuple):
    """Arguments of ``forward``; its state objects by path, and their containers in order."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    objects: dict[str, Any]
    containers: list[Any]


class Call(NamedTuple):
    """One call of the denoiser.

    ``arguments``: by parameter name, defaults left out; those in ``*args`` as ``args.0`` and so
    on; the first ``num_positional`` are passed by position. ``tensors``: the tensors among them,
    in order, then those of ``state``, then those that stand for the timestep where it is a Python
    ``number`` (none before the number is bound). ``paths`` and ``roles`` belong to ``tensors``.
    ``latent``: the first tensor of the latent. ``timestep``: as the caller passed it (None where
    there is none). ``key`` is equal for two calls exactly when one capture serves both: same tree,
    shapes, dtypes, devices, other values and autocast state; numbers count once they are bound.
    ``trace``: how the number enters the graph, known once it is bound.
    """

    arguments: dict[str, Any]
    num_positional: int
    paths: tuple[str, ...]
    roles: tuple[Role, ...]
    tensors: tuple[Tensor, ...]
    conditioning: tuple[Tensor, ...]
    state: State
    latent: Tensor
    latent_name: str
    timestep: Any
    timestep_name: str
    key: Hashable
    trace: Any = None

    @property
    def number(self) -> Real | None:
        """The timestep, where it is a Python number."""
        return self.timestep if isinstance(self.timestep, Real) else None

    @property
    def is_bound(self) -> bool:
        """Whether ``tensors`` are all that a graph takes."""
        return self.number is None or self.trace is not None

    def with_number(self, tensors: tuple[Tensor, ...], trace: Hashable) -> "Call":
        """This call with ``tensors`` for its number, by their slots, or one in its place."""
        name = self.timestep_name
        in_place = not hasattr(trace, "slots")
        paths = (name,) if in_place else tuple(f"{name}.{i}" for i in range(len(tensors)))
        return self._replace(
            paths=self.paths + paths,
            roles=self.roles + (Role.TIMESTEP,) * len(tensors),
            tensors=self.tensors + tensors,
            key=(self.key, trace),
            trace=trace,
        )

    @property
    def invocation(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """``arguments`` as ``forward(*args, **kwargs)`` takes them."""
        return invocation(self.arguments, self.num_positional)

    @property
    def exported(self) -> dict[str, Any]:
        """What the exported graph takes: arguments without state, then the tensors of both kinds.

        torch.export knows dicts, lists, tuples and tensors; the rest is constant. What goes to
        ``*args`` is one list under that name.
        """
        hidden = {path for path, _ in self.state.objects}
        if self.number is not None:
            hidden.add(self.timestep_name)
        taken: dict[str, Any] = {}
        for path, argument in self.arguments.items():
            name, in_args, _ = path.partition(".")
            value = without(argument, path, hidden)
            if in_args:
                taken.setdefault(name, []).append(value)
            else:
                taken[name] = value
        state = len(self.state.tensors)
        end = len(self.tensors) - self.num_numbers
        if state:
            taken[STATE] = list(self.tensors[end - state : end])
        if self.num_numbers:
            taken[NUMBER] = list(self.tensors[end:])
        return taken

    @property
    def num_numbers(self) -> int:
        """How many of ``tensors``, the last, stand for the number."""
        return len([path for path in self.paths if self._of_number(path)])

    def _of_number(self, path: str) -> bool:
        name = self.timestep_name
        return self.number is not None and (path == name or path.startswith(f"{name}."))

    def rebuilt(self, tensors: Sequence[Tensor], number: Any) -> "Rebuilt":
        """``forward``'s own arguments, of other ``tensors``: of the arguments, then of the state.

        State objects are new ones, of the same structure.
        """
        build = Build(tensors)
        objects = {path: build.value(structure) for path, structure in self.state.objects}
        found = dict(zip(self.paths, tensors, strict=False))

        def leaf_of(path: str, leaf: Any) -> Any:
            if isinstance(leaf, Tensor):
                return found[path]
            if path == self.timestep_name and self.number is not None:
                return number
            return objects.get(path, leaf)

        pairs = self.arguments.items()
        arguments = {name: with_leaves(value, name, leaf_of) for name, value in pairs}
        args, kwargs = invocation(arguments, self.num_positional)
        return Rebuilt(args, kwargs, objects, build.made)

    def inputs(self) -> tuple[Input, ...]:
        """The path and role of each tensor."""
        return tuple(map(Input, self.paths, self.roles))

    def by_path(self) -> dict[str, Tensor]:
        """The tensors by their paths."""
        return dict(zip(self.paths, self.tensors, strict=True))

    @property
    def timestep_index(self) -> int:
        """The number of the timestep among the tensors, where it was passed as one."""
        return self.paths.index(self.timestep_name)

    def readable(self) -> dict[str, Tensor]:
        """The conditioning whose values can be told: masks, lengths, ids and the like. By path."""
        return {
            path: tensor
            for path, role, tensor in zip(self.paths, self.roles, self.tensors, strict=True)
            if role is Role.CONDITIONING and not tensor.is_meta and not is_fake(tensor)
        }

    def describe(self) -> str:
        """``sample[1, 4, 64, 64] float32, timestep[] int64, …`` for messages and reports."""
        parts = [
            f"{path}{list(tensor.shape)} {dtype_name(tensor.dtype)}"
            for path, tensor in self.by_path().items()
            if not self._of_number(path)
        ]
        if self.number is not None:
            parts.append(f"{self.timestep_name} {type(self.number).__name__}")
        return ", ".join(parts)


def invocation(
    arguments: dict[str, Any], num_positional: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """``arguments``, the first of them by position, the others by name."""
    pairs = list(arguments.items())
    return tuple(value for _, value in pairs[:num_positional]), dict(pairs[num_positional:])


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """The dtype that autocast casts to on this kind of device; None where it is off."""
    if device_type == "meta" or not torch.is_autocast_enabled(device_type):
        return None
    return torch.get_autocast_dtype(device_type)


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The leaves of nested dicts, lists and tuples, in torch's pytree order, with their paths."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}.{index}")
    else:
        yield path, value


def named_leaves(arguments: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The leaves of a call's arguments, with their paths."""
    for name, argument in arguments.items():
        yield from leaves(argument, name)


def with_leaves(value: Any, path: str, leaf: Callable[[str, Any], Any]) -> Any:
    """``value`` with each leaf replaced by ``leaf(path, old)``; containers that change are new."""
    if isinstance(value, dict):
        found = {key: with_leaves(item, f"{path}.{key}", leaf) for key, item in value.items()}
        same = all(found[key] is item for key, item in value.items())
        return value if same else found
    if isinstance(value, list | tuple):
        items = [with_leaves(item, f"{path}.{index}", leaf) for index, item in enumerate(value)]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return leaf(path, value)


def without(value: Any, path: str, hidden: set[str]) -> Any:
    """``value`` with None at the paths that are ``hidden``."""
    return with_leaves(value, path, lambda at, leaf: None if at in hidden else leaf)


def number_tensor(value: Real, device: torch.device) -> Tensor:
    """A number as a 0-dim tensor: int64, or float64 where the device has it."""
    if isinstance(value, Integral):
        return torch.tensor(int(value), dtype=torch.int64, device=device)
    dtype = torch.float32 if device.type == "mps" else torch.float64
    return torch.tensor(float(value), dtype=dtype, device=device)
