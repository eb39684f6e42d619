"""One call of a denoiser in canonical form: named tensors, roles, and the key of its capture."""

from collections.abc import Hashable, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

from torch import Tensor

from fxcache._torch import is_dtensor, is_fake
from fxcache.errors import CaptureError
from fxcache.leaves import with_leaves, without
from fxcache.objects import Build
from fxcache.program import Input, Role, dtype_name
from fxcache.state import Rebuilt, State

# Keywords of the exported graph that hold other tensors than arguments. No parameter has them.
STATE = "fxcache_state"
NUMBER = "fxcache_number"


class Call(NamedTuple):
    """One call of the denoiser.

    A timestep that is a Python number becomes tensors of the graph when ``with_number`` binds it.

    Attributes:
        arguments: The arguments by name, without those that equal their defaults. Arguments in
            ``*args`` are named ``args.0``, ``args.1`` and so on.
        num_positional: How many of the arguments, from the first, are passed by position.
        paths: The path of each tensor.
        roles: The role of each tensor.
        tensors: The tensors in the arguments, then those in the state objects, then those that
            represent the number (none before the number is bound).
        conditioning: The tensors in the arguments that are conditioning.
        state: The state objects.
        latent: The latent, or its first tensor.
        latent_name: The name of the argument that is the latent.
        timestep: The timestep as the caller passed it; None if there is none.
        timestep_name: The name of the argument that is the timestep; empty if there is none.
        key: Two calls have equal keys exactly if one capture serves both. The key covers the
            structure, shapes, dtypes, devices, constants and the autocast state. After binding, it
            also covers ``trace``.
        trace: How the number enters the graph; None before the number is bound.
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
    def latents(self) -> tuple[Tensor, ...]:
        """The latent, or all tensors in it if it is a container."""
        if isinstance(self.arguments.get(self.latent_name), Tensor):
            return (self.latent,)
        pairs = zip(self.tensors, self.roles, strict=True)
        return tuple(tensor for tensor, role in pairs if role is Role.LATENT)

    @property
    def number(self) -> Real | None:
        """The timestep if it is a Python number, else None."""
        return self.timestep if isinstance(self.timestep, Real) else None

    @property
    def is_bound(self) -> bool:
        """Whether ``tensors`` includes all inputs of the graph."""
        return self.number is None or self.trace is not None

    @property
    def unbound_key(self) -> Any:
        """The key before the number was bound."""
        return self.key if self.trace is None else self.key[0]  # type: ignore[index]

    def with_number(self, tensors: tuple[Tensor, ...], trace: Hashable) -> "Call":
        """Bind the number: return this call with ``tensors`` that represent it.

        Args:
            tensors: One tensor for each slot of ``trace``, or a single tensor in place of the
                number if ``trace`` has no slots.
            trace: How the number enters the graph.
        """
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
        """``arguments`` as the ``args`` and ``kwargs`` of ``forward``."""
        return invocation(self.arguments, self.num_positional)

    @property
    def exported(self) -> dict[str, Any]:
        """The keyword arguments of the exported graph.

        State objects and the number are replaced by None, and their tensors are passed as lists
        under the keywords ``STATE`` and ``NUMBER``, because torch.export treats as constant
        whatever is not a tensor, dict, list or tuple. Arguments in ``*args`` are one list.
        """
        hidden = {path for path, _ in self.state.objects}
        if self.number is not None:
            hidden.add(self.timestep_name)
        exported: dict[str, Any] = {}
        for path, argument in self.arguments.items():
            name, in_args, _ = path.partition(".")
            value = without(argument, path, hidden)
            if in_args:
                exported.setdefault(name, []).append(value)
            else:
                exported[name] = value
        state = len(self.state.tensors)
        end = len(self.tensors) - self.num_numbers
        if state:
            exported[STATE] = list(self.tensors[end - state : end])
        if self.num_numbers:
            exported[NUMBER] = list(self.tensors[end:])
        return exported

    @property
    def num_numbers(self) -> int:
        """How many of ``tensors``, counted from the end, represent the number."""
        return len([path for path in self.paths if self._of_number(path)])

    def _of_number(self, path: str) -> bool:
        """Whether the tensor at ``path`` represents the number."""
        name = self.timestep_name
        return self.number is not None and (path == name or path.startswith(f"{name}."))

    def rebuilt(self, tensors: Sequence[Tensor], number: Any) -> "Rebuilt":
        """The arguments of ``forward`` with other tensors, new state objects, dicts and lists.

        Args:
            tensors: The new tensors: first those in the arguments, then those in the state.
            number: The new timestep, if the timestep is a Python number.
        """
        build = Build(tensors)
        objects = {path: build.value(structure) for path, structure in self.state.objects}
        kept = {place: build.value(structure) for place, structure in self.state.kept}
        by_path = dict(zip(self.paths, tensors, strict=False))

        def leaf_of(path: str, leaf: Any) -> Any:
            if isinstance(leaf, Tensor):
                return by_path[path]
            if path == self.timestep_name and self.number is not None:
                return number
            return objects.get(path, leaf)

        pairs = self.arguments.items()
        arguments = {name: with_leaves(v, name, leaf_of, fresh=True) for name, v in pairs}
        args, kwargs = invocation(arguments, self.num_positional)
        return Rebuilt(args, kwargs, objects, build.made, kept)

    def inputs(self) -> tuple[Input, ...]:
        """The path and role of each tensor."""
        return tuple(map(Input, self.paths, self.roles))

    def by_path(self) -> dict[str, Tensor]:
        """The tensors by their paths."""
        return dict(zip(self.paths, self.tensors, strict=True))

    @property
    def timestep_index(self) -> int:
        """The index of the timestep in ``tensors``, if it was passed as a tensor."""
        return self.paths.index(self.timestep_name)

    def readable(self) -> dict[str, Tensor]:
        """The conditioning tensors whose values can be read, by path: neither meta nor fake."""
        return {
            path: tensor
            for path, role, tensor in zip(self.paths, self.roles, self.tensors, strict=True)
            if role is Role.CONDITIONING and not tensor.is_meta and not is_fake(tensor)
        }

    def describe(self) -> str:
        """A description for messages and reports: ``sample[1, 4, 64, 64] float32, …``."""
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
    """Split ``arguments`` into ``args`` (the first ``num_positional``) and ``kwargs``."""
    pairs = list(arguments.items())
    return tuple(value for _, value in pairs[:num_positional]), dict(pairs[num_positional:])


def require_no_dtensors(tensors: Mapping[str, object]) -> None:
    """Raise CaptureError if the model takes or returns DTensors: the graph has plain tensors."""
    if found := [path for path, tensor in tensors.items() if is_dtensor(tensor)]:
        raise CaptureError(
            "the model takes or returns a DTensor",
            where=", ".join(found),
            remedy="call it with plain tensors, and convert DTensors inside of its forward: "
            ".to_local() or .full_tensor()",
        )
