"""The options of captures: a frozen dataclass that checks its values."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fxcache.checks import require_integer
from fxcache.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CaptureConfig:
    """The options of captures.

    Args:
        latent: The parameter of ``forward`` that takes the noisy latent. By default the first one.
        dynamic: For each input, the dimensions that may vary between calls without another capture,
            such as ``{"sample": (0,), "encoder_hidden_states": (0,)}`` for the batch.
        example_inputs: The arguments of one call, by name in a mapping or by position in a
            sequence. ``optimize`` then captures the model; otherwise the first call does.
        step_inputs: Names of inputs that belong to a step, not to the request: they may be new at
            each call without a refresh, as the residuals of a ControlNet are.
        max_captures: The number of captures to keep, 1 or more. Each combination of shapes, dtypes,
            devices and options needs one. The least recently used one is dropped first.

    Raises:
        ConfigError: An option has a value that it cannot have.
    """

    latent: str | None = None
    dynamic: Mapping[str, Sequence[int]] | None = None
    # It holds tensors, so it is left out of comparisons.
    example_inputs: Mapping[str, Any] | Sequence[Any] | None = field(default=None, compare=False)
    step_inputs: frozenset[str] = frozenset()
    max_captures: int = 8

    def __post_init__(self) -> None:
        if self.latent is not None and not isinstance(self.latent, str):
            raise ConfigError(
                f"latent={self.latent!r} is a {type(self.latent).__name__}",
                where="CaptureConfig(latent=...)",
                remedy="pass the name of a parameter of forward",
            )
        object.__setattr__(self, "dynamic", dimensions(self.dynamic))
        object.__setattr__(self, "step_inputs", names(self.step_inputs))
        require_arguments(self.example_inputs)
        require_integer(self, "max_captures", 1)


def dimensions(dynamic: object) -> dict[str, tuple[int, ...]]:
    """Return ``dynamic`` with tuples of dimensions; raise ConfigError for other types."""
    by_input = {} if dynamic is None else dynamic
    if isinstance(by_input, Mapping) and all(
        isinstance(path, str) and is_dimensions(dims) for path, dims in by_input.items()
    ):
        return {path: tuple(dims) for path, dims in by_input.items()}
    raise ConfigError(
        f"dynamic={dynamic!r} does not name dimensions by input",
        where="CaptureConfig(dynamic=...)",
        remedy='pass a dict such as {"sample": (0,), "encoder_hidden_states": (0,)}',
    )


def is_dimensions(dims: object) -> bool:
    """Return whether ``dims`` is a sequence of indices of dimensions."""
    return isinstance(dims, Sequence) and all(isinstance(dim, int) and dim >= 0 for dim in dims)


def require_arguments(example: object) -> None:
    """Raise ConfigError unless ``example`` can be the arguments of a call, or is None."""
    if example is not None and (
        isinstance(example, str) or not isinstance(example, Mapping | Sequence)
    ):
        raise ConfigError(
            f"example_inputs={example!r} are neither a mapping nor a sequence",
            where="CaptureConfig(example_inputs=...)",
            remedy="pass the arguments of one call, by name in a dict or by position in a list",
        )


def names(value: object) -> frozenset[str]:
    """Return ``value`` as a set of names; raise ConfigError if it is no collection of names."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        found = frozenset(value)
        if all(isinstance(name, str) for name in found):
            return found
    raise ConfigError(
        f"step_inputs={value!r} does not list names",
        where="CaptureConfig(step_inputs=...)",
        remedy='pass names of inputs of forward, such as ("residual",)',
    )
