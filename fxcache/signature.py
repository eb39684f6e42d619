"""A denoiser's call in canonical form: named leaves, their roles, and the key of a capture."""

import inspect
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from fxcache._torch import is_fake
from fxcache.errors import CaptureError, ConfigError, NotADenoiserError
from fxcache.program import Input, Role, dtype_name

TIMESTEP_NAMES = frozenset({"timestep", "timesteps", "time", "t", "sigma", "sigmas", "noise_level"})


@dataclass(frozen=True)
class Call:
    """One call of the denoiser.

    ``arguments``: by parameter name, defaults left out, a numeric timestep made a tensor.
    ``tensors``: their tensor leaves, in order, at ``paths``. ``latent``: the first tensor of the
    latent. ``timestep``: as the caller passed it (None where there is none). ``key`` is equal for
    two calls exactly when one capture serves both: same tree, shapes, dtypes, devices, other
    values and autocast state.
    """

    arguments: dict[str, Any]
    paths: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    conditioning: tuple[Tensor, ...]
    latent: Tensor
    latent_name: str
    timestep: Any
    timestep_name: str
    key: Hashable

    def inputs(self) -> tuple[Input, ...]:
        """The path and role of each tensor."""
        return tuple(Input(path, self._role(path)) for path in self.paths)

    def leaves(self) -> Iterator[tuple[str, Any]]:
        """All leaves of the arguments, with their paths."""
        return named_leaves(self.arguments)

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
            for path, tensor in self.by_path().items()
            if self._role(path) is Role.CONDITIONING
            if not tensor.is_meta and not is_fake(tensor)
        }

    def _role(self, path: str) -> Role:
        name = path.partition(".")[0]
        if name == self.latent_name:
            return Role.LATENT
        return Role.TIMESTEP if name == self.timestep_name else Role.CONDITIONING

    def describe(self) -> str:
        """``sample[1, 4, 64, 64] float32, timestep[] int64, …`` for messages and reports."""
        parts = (
            f"{path}{list(tensor.shape)} {dtype_name(tensor.dtype)}"
            for path, tensor in self.by_path().items()
        )
        return ", ".join(parts)


class Signature:
    """How the ``forward`` of one class of modules names its inputs.

    The latent is the first, unless another is named. The timestep is the parameter that has one of
    the field's names for it, else the second one if it is given a number or a tensor of at most
    one dimension; everything else is conditioning.
    """

    def __init__(
        self,
        original: type[nn.Module],
        latent: str | None = None,
        dynamic: Mapping[str, Sequence[int]] | None = None,
    ):
        self.original = original
        self.dynamic = {path: frozenset(dims) for path, dims in (dynamic or {}).items()}
        self.model = model = original.__name__
        self.declared = inspect.signature(original.forward)
        parameters = list(self.declared.parameters.values())[1:]  # without self
        if any(p.kind is p.VAR_POSITIONAL for p in parameters) or not parameters:
            raise NotADenoiserError(
                f"{model}.forward does not name its inputs",
                where=f"{model}.forward{self.declared}",
                remedy="give forward named parameters: the latent first, then the timestep",
            )
        named = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
        self.names = tuple(p.name for p in named)
        self.defaults = {p.name: p.default for p in named if p.default is not p.empty}
        self.known = frozenset(self.names)
        for path in self.dynamic:
            self._require_parameter(path.partition(".")[0], "dynamic")
        self.latent = self._require_parameter(latent, "latent") if latent else self.names[0]
        self.named_timestep = next((n for n in self.names[1:] if n in TIMESTEP_NAMES), None)

    def same_roles(self, other: "Signature") -> bool:
        """Whether both give the inputs of one class the same roles and the same open sizes."""
        same_inputs = self.original is other.original and self.latent == other.latent
        return same_inputs and self.dynamic == other.dynamic

    def _require_parameter(self, name: str, option: str) -> str:
        if name not in self.known:
            raise ConfigError(
                f"{self.model}.forward has no parameter {name!r}",
                where=f"CaptureConfig({option}=...)",
                remedy=f"choose one of: {', '.join(self.names)}",
            )
        return name

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """The canonical form of ``forward(*args, **kwargs)``.

        Raises TypeError where Python would, NotADenoiserError where the latent is no tensor.
        """
        arguments = self._bound(args, kwargs)
        latent = self._latent(arguments)
        name = self.named_timestep or self._second_if_timestep(arguments)
        timestep = arguments.get(name)
        if not isinstance(timestep, Tensor) and isinstance(timestep, Real):
            arguments[name] = number_tensor(timestep, latent.device)
        return self._flattened(arguments, latent, name, timestep)

    def require_accepted(self, call: Call) -> None:
        """TypeError, as in Python, where an argument is missing or unknown."""
        self.declared.bind(None, **call.arguments)

    def _latent(self, arguments: dict[str, Any]) -> Tensor:
        """The latent, or the first of several that come in a list."""
        given = arguments.get(self.latent)
        found = (leaf for _, leaf in leaves(given, self.latent) if isinstance(leaf, Tensor))
        latent = next(found, None)
        if latent is None:
            raise NotADenoiserError(
                f"the latent, {self.latent}, is {type(given).__name__}, not a tensor",
                where=f"{self.model}.forward",
                remedy="pass the noisy latent as the first input, or name it: "
                "CaptureConfig(latent=...)",
            )
        return latent

    def _second_if_timestep(self, arguments: dict[str, Any]) -> str:
        name = "".join(self.names[1:2])
        second = arguments.get(name)
        return "" if isinstance(second, Tensor) and second.dim() > 1 else name

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        arguments = dict(zip(self.names, args, strict=False))
        if len(args) > len(self.names) or not arguments.keys().isdisjoint(kwargs):
            self.declared.bind(None, *args, **kwargs)  # raises as Python would
        arguments |= kwargs
        defaults = self.defaults
        given = [n for n in self.names if n in arguments]
        given += [n for n in kwargs if n not in self.known]  # of **kwargs
        return {
            n: arguments[n] for n in given if n not in defaults or arguments[n] is not defaults[n]
        }

    def _flattened(
        self, arguments: dict[str, Any], latent: Tensor, timestep_name: str, timestep: Any
    ) -> Call:
        paths: list[str] = []
        tensors: list[Tensor] = []
        conditioning: list[Tensor] = []
        key: list[Any] = [autocast_dtype(latent.device.type)]
        for name, argument in arguments.items():
            key.append((name, type(argument)))  # an empty dict has no leaves, but is not None
            found = ((name, argument),) if isinstance(argument, Tensor) else leaves(argument, name)
            for path, leaf in found:
                if isinstance(leaf, Tensor):
                    paths.append(path)
                    tensors.append(leaf)
                    key.append((path, self._shape(path, leaf), leaf.dtype, leaf.device))
                    if name not in (self.latent, timestep_name):
                        conditioning.append(leaf)
                else:
                    key.append((path, type(leaf), self._hashable(path, leaf)))
        return Call(
            arguments,
            tuple(paths),
            tuple(tensors),
            tuple(conditioning),
            latent,
            self.latent,
            timestep,
            timestep_name,
            tuple(key),
        )

    def _shape(self, path: str, tensor: Tensor) -> tuple[int | None, ...]:
        """The shape that tells captures apart: None for sizes that may vary."""
        dims = self.dynamic.get(path)
        if not dims:
            return tensor.shape
        return tuple(None if d in dims else size for d, size in enumerate(tensor.shape))

    def _hashable(self, path: str, leaf: Any) -> Hashable:
        try:
            hash(leaf)
        except TypeError:
            raise CaptureError(
                f"{path} is a {type(leaf).__name__}, which is neither a tensor nor hashable",
                where=f"{self.model}.forward",
                remedy="pass a tensor, a number, a string, or a list, tuple or dict of those",
            ) from None
        return leaf


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


def number_tensor(value: Real, device: torch.device) -> Tensor:
    """A timestep given as a number, as diffusers itself would make it a tensor.

    As a number it would be a constant of the graph: a capture for each timestep.
    """
    if isinstance(value, Integral):
        return torch.tensor(int(value), dtype=torch.int64, device=device)
    dtype = torch.float32 if device.type == "mps" else torch.float64
    return torch.tensor(float(value), dtype=dtype, device=device)
