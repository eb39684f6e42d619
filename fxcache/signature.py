"""The signature of a denoiser's ``forward``: names and roles of inputs, canonical calls."""

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from fxcache.call import Call, require_no_dtensors
from fxcache.errors import CaptureError, ConfigError, NotADenoiserError
from fxcache.flattening import flattened
from fxcache.form import Form, form_of
from fxcache.leaves import leaves

TIMESTEP_NAMES = frozenset({"timestep", "timesteps", "time", "t", "sigma", "sigmas", "noise_level"})
# Names of inputs that describe tokens and their places, and of inputs that a model denoises.
DESCRIPTIONS = re.compile(r"(^|_)(ids|indexes|masks?|prompts?|text)(_|$)")
LATENTS = re.compile(r"(^|_)(tokens|latents?|samples?)$")
MAX_FORMS = 4  # calls may alternate between forms, such as a whole batch and half of it


def is_timestep_name(name: str) -> bool:
    """Return whether inputs of this name are usually timesteps, such as ``latents_time``."""
    return name in TIMESTEP_NAMES or name.endswith("_time")


def latents_first(names: Sequence[str]) -> Sequence[str]:
    """Return the names with those that latents are likely to have first."""
    rest = [name for name in names if not is_timestep_name(name)] or names
    if not rest or not DESCRIPTIONS.search(rest[0]):
        return rest
    return [name for name in rest if LATENTS.search(name)] or rest


class Signature:
    """The names and roles of the inputs of one module class's ``forward``.

    An input that a parameter takes has the parameter's name. Inputs in ``*args`` are named
    ``args.0``, ``args.1`` and so on. Inputs in ``**kwargs`` have the caller's keywords.

    The latent is the first parameter without the name of a timestep, see ``is_timestep_name``:
    solvers of differential equations pass the time first. If that one describes tokens, such as
    ``text_ids``, it is the first with the name of a latent. ``latent`` may name another one. If
    ``forward`` has no named parameters, the latent is the first such tensor. The timestep is the
    first other input with the name of one. If there is none, it is the first input after the
    latent, provided that this is a number or a tensor of at most one dimension. All other inputs
    are conditioning.

    Args:
        original: The module class.
        latent: The name of the latent; None to choose it by the rule above.
        dynamic: The dimensions whose sizes may vary, by the path of the input.
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
        if not parameters:
            raise NotADenoiserError(
                f"{model}.forward takes no inputs",
                where=f"{model}.forward{self.declared}",
                remedy="optimize the module that takes the noisy latent and the timestep",
            )
        variable = {p.kind: p.name for p in parameters}
        self.extra_args = variable.get(inspect.Parameter.VAR_POSITIONAL)
        self.extra_kwargs = variable.get(inspect.Parameter.VAR_KEYWORD)
        named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self.names = tuple(p.name for p in named)
        self.positional = tuple(p.name for p in named if p.kind in by_position)
        self.positional_only = tuple(p.name for p in named if p.kind is p.POSITIONAL_ONLY)
        self.defaults = {p.name: p.default for p in named if p.default is not p.empty}
        self.known = frozenset(self.names)
        self._forms: tuple[Form, ...] = ()  # the newest first
        for path in self.dynamic:
            self._require_parameter(path, "dynamic")
        if latent:
            self._require_parameter(latent, "latent")
        self.latent = latent or next(iter(latents_first(self.names)), None)
        others = [name for name in self.names if name != self.latent]
        self.named_timestep = next(filter(is_timestep_name, others), None)

    def same_roles(self, other: "Signature") -> bool:
        """Whether both describe one class, with the same latent and the same dynamic sizes."""
        same_inputs = self.original is other.original and self.latent == other.latent
        return same_inputs and self.dynamic == other.dynamic

    def _require_parameter(self, path: str, option: str) -> None:
        """Raise ConfigError if ``forward`` cannot have an input at ``path``."""
        name, _, rest = path.partition(".")
        in_args = name == self.extra_args and rest.partition(".")[0].isdigit()
        if not (name in self.known or in_args or self.extra_kwargs):
            extra = (f"{self.extra_args}.0, {self.extra_args}.1, …",) if self.extra_args else ()
            raise ConfigError(
                f"{self.model}.forward has no parameter {name!r}",
                where=f"CaptureConfig({option}=...)",
                remedy=f"choose one of: {', '.join((*self.names, *extra))}",
            )

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """The canonical form of ``forward(*args, **kwargs)``.

        Raises:
            TypeError: The arguments do not fit ``forward``.
            NotADenoiserError: The latent is not a tensor.
            CaptureError: An argument is neither a constant nor a state object.
        """
        try:
            for form in self._forms:
                if (call := form.call_with(args, kwargs)) is not None:
                    return call
        except RuntimeError:  # nested tensors have no shape, which the error below says
            self._forms = ()
        call = self._new_call(args, kwargs)
        extra = range(len(args) - len(self.positional))
        names = (*self.positional[: len(args)], *(f"{self.extra_args}.{i}" for i in extra))
        if new := form_of(call, args, kwargs, names, self.defaults):
            self._forms = (new, *self._forms[: MAX_FORMS - 1])
        return call

    def _new_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Compute the canonical form without the cached forms."""
        arguments, num_positional = self._bound(args, kwargs)
        latent_name = self.latent or self._first_tensor(arguments)
        if latent_name not in arguments:  # Python's error names what is missing or unexpected
            self.declared.bind(None, *args, **kwargs)
        latent = self._latent(arguments, latent_name)
        timestep_name = self._timestep(arguments, latent_name)
        call = flattened(
            arguments, num_positional, latent, latent_name, timestep_name, self.dynamic
        )
        require_no_dtensors(call.by_path())
        return call

    def require_accepted(self, call: Call) -> None:
        """Raise TypeError if an argument is missing or unknown."""
        args, kwargs = call.invocation
        self.declared.bind(None, *args, **kwargs)

    def _first_tensor(self, arguments: dict[str, Any]) -> str:
        """The name of the first tensor argument, for a ``forward`` without named parameters."""
        for name in latents_first([n for n, a in arguments.items() if isinstance(a, Tensor)]):
            return name
        raise NotADenoiserError(
            f"{self.model}.forward has no named parameters, and this call passes no tensor",
            where=f"{self.model}.forward{self.declared}",
            remedy="pass the noisy latent as a tensor, or name it: CaptureConfig(latent=...)",
        )

    def _latent(self, arguments: dict[str, Any], name: str) -> Tensor:
        """The latent, or the first tensor in it if it is a list."""
        argument = arguments.get(name)
        tensors = (leaf for _, leaf in leaves(argument, name) if isinstance(leaf, Tensor))
        latent = next(tensors, None)
        if latent is None:
            raise NotADenoiserError(
                f"the latent, {name}, is of type {type(argument).__name__}, not a tensor",
                where=f"{self.model}.forward",
                remedy="pass the noisy latent as the first input, or name it: "
                "CaptureConfig(latent=...)",
            )
        return latent

    def _timestep(self, arguments: dict[str, Any], latent_name: str) -> str:
        """The name of the timestep; empty if there is none."""
        if self.named_timestep:
            return self.named_timestep
        others = [n for n in (self.names or arguments) if n != latent_name]
        unnamed = [n for n in arguments if n not in self.known and is_timestep_name(n)]
        name = "".join((unnamed or others)[:1])
        timestep = arguments.get(name)
        return "" if isinstance(timestep, Tensor) and timestep.dim() > 1 else name

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """The arguments by name, and how many of them are passed by position."""
        arguments = dict(zip(self.positional, args, strict=False))
        extra = args[len(self.positional) :]
        misnamed = any(name in kwargs for name in self.positional_only)
        if (extra and not self.extra_args) or misnamed or not arguments.keys().isdisjoint(kwargs):
            self.declared.bind(None, *args, **kwargs)  # raises as Python would
            raise CaptureError(
                f"a keyword in **{self.extra_kwargs} has the name of a positional-only parameter",
                where=f"{self.model}.forward{self.declared}",
                remedy="rename one of the two",
            )
        arguments |= kwargs
        ordered = [n for n in self.names if n in arguments]
        ordered += [n for n in kwargs if n not in self.known]
        by_position = self.positional if extra else self.positional_only
        defaults = self.defaults
        if not by_position and not extra:
            passed = (n for n in ordered if n not in defaults or arguments[n] is not defaults[n])
            return {n: arguments[n] for n in passed}, 0
        return self._by_position(arguments, ordered, by_position, extra)

    def _by_position(
        self,
        arguments: dict[str, Any],
        ordered: list[str],
        by_position: tuple[str, ...],
        extra: tuple[Any, ...],
    ) -> tuple[dict[str, Any], int]:
        """The result of ``_bound`` if arguments are passed by position.

        A positional argument that equals its default stays, because others may follow it.
        """
        first = {n: arguments[n] for n in by_position if n in arguments}
        first |= {f"{self.extra_args}.{i}": value for i, value in enumerate(extra)}
        rest = [n for n in ordered if n not in first]
        defaults = self.defaults
        passed = (n for n in rest if n not in defaults or arguments[n] is not defaults[n])
        return first | {n: arguments[n] for n in passed}, len(first)
