"""Calls whose tensors hold the rows of one or several requests."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from fxcache.call import Call
from fxcache.effect import named
from fxcache.errors import ConfigError
from fxcache.form import autocast_dtype
from fxcache.program import Program
from fxcache.runtime.settings import Settings
from fxcache.serving.rows import join
from fxcache.signature import Signature

WHERE = "fxcache.serving.Batcher"


class HasRows(Protocol):
    """A step with a number of rows."""

    @property
    def rows(self) -> int: ...


S = TypeVar("S", bound=HasRows)


class Calls:
    """Makes calls of requests, and joins them.

    Args:
        signature: The signature of the model.
        settings: The options of the model. They name the inputs that have a row for each picture.
        buckets: The sizes of batches, ascending.

    Raises:
        ConfigError: The options name no such inputs, or the steps depend on more than their rows.
    """

    def __init__(self, signature: Signature, settings: Settings, buckets: Sequence[int]) -> None:
        self._signature, self.buckets = signature, tuple(buckets)
        dynamic = settings.capture.dynamic or {}
        self.with_rows = frozenset(path for path, dims in dynamic.items() if 0 in dims)
        require_rowwise(settings, self.with_rows)

    def of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Return a request's call in canonical form, with one timestep for each row.

        Raises:
            TypeError: The arguments do not fit ``forward``.
            ConfigError: An input has another number of rows than the latent, or there are too many.
        """
        call = self._signature.call(args, kwargs)
        self._signature.require_accepted(call)
        if autocast_dtype(call.latent.device.type) is not None:
            raise ConfigError(
                "autocast is on, and rounds run without it",
                where=WHERE,
                remedy="convert the model with .to(dtype), and leave autocast",
            )
        if call.state:
            raise ConfigError(
                f"{call.state.objects[0][0]} is an object that the model changes",
                where=WHERE,
                remedy="serve this model without a Batcher",
            )
        rows = len(call.latent) if call.latent.dim() else 0
        if call.timestep_name in self.with_rows:
            call = self._with_timesteps(call, rows)
        if call.number is not None:
            raise ConfigError(
                f"{call.timestep_name} is a number, and dynamic does not name it",
                where=WHERE,
                remedy=f"pass CaptureConfig(dynamic={{{call.timestep_name!r}: (0,), ...}})",
            )
        for path, tensor in call.by_path().items():
            if path in self.with_rows and (not tensor.dim() or len(tensor) != rows):
                raise ConfigError(
                    f"{path} has the shape {list(tensor.shape)}, and the latent has {rows} rows",
                    where=WHERE,
                    remedy="pass one row for each row of the latent",
                )
        if not 0 < rows <= self.buckets[-1]:
            raise ConfigError(
                f"a call has {rows} rows, and max_batch is {self.buckets[-1]}",
                where=WHERE,
                remedy="pass fewer rows, or raise max_batch",
            )
        return call

    def _with_timesteps(self, call: Call, rows: int) -> Call:
        """Return ``call`` with one timestep for each row, if there is one for all."""
        timestep = call.timestep
        if isinstance(timestep, Tensor):
            if timestep.dim():
                return call
            given = timestep.to(call.latent.device).expand(rows)
        else:
            dtype = torch.int64 if isinstance(timestep, int) else torch.float32
            given = torch.full((rows,), timestep, dtype=dtype, device=call.latent.device)
        args, kwargs = call._replace(
            arguments={**call.arguments, call.timestep_name: given}
        ).invocation
        return self._signature.call(args, kwargs)

    def joined(self, calls: Sequence[Call]) -> Call:
        """Return one call with the rows of all ``calls``, padded to the size of a bucket."""
        first, size = calls[0], self.size(sum(len(call.latent) for call in calls))
        tensors = [
            join([call.tensors[i] for call in calls], size) if path in self.with_rows else tensor
            for i, (path, tensor) in enumerate(zip(first.paths, first.tensors, strict=True))
        ]
        args, kwargs, *_ = first.rebuilt(tensors, None)
        return self._signature.call(args, kwargs)

    def require_served(self, program: Program, call: Call) -> None:
        """Check that the graphs of ``program`` serve a joined call.

        Raises:
            ConfigError: They hold for other sizes, or for certain values of inputs with rows, or
                the model returns objects or changes its own.
        """
        if program.returns_objects:
            raise ConfigError(
                f"{program.model} returns objects, which cannot be split into rows",
                where=WHERE,
                remedy="serve this model without a Batcher",
            )
        if program.effects:
            raise ConfigError(
                f"a call changes Python objects of {program.model}: {named(program.effects)}",
                where=WHERE,
                remedy="remove the hooks or processors that store values",
            )
        if program.writes:
            raise ConfigError(
                f"{program.model} writes to its arguments, which rounds join from rows",
                where=WHERE,
                remedy="serve this model without a Batcher",
            )
        if fixed := sorted(program.specialized & self.with_rows):
            raise ConfigError(
                f"the graphs of {program.model} hold for certain values of {', '.join(fixed)}",
                where=WHERE,
                remedy="serve this model without a Batcher",
            )
        if not program.sizes.admit(call.tensors):
            raise ConfigError(
                f"the graphs of {program.model} serve no batch of {len(call.latent)} rows",
                where=WHERE,
                remedy="pass other buckets",
            )

    def size(self, rows: int) -> int:
        """Return the size of the smallest bucket for this number of rows."""
        return next(size for size in self.buckets if size >= rows)

    def alike(self, one: Call, other: Call) -> bool:
        """Return whether both can share a call: they differ in their rows only."""
        return one.key == other.key and all(
            a.shape[1:] == b.shape[1:] if path in self.with_rows else a is b or torch.equal(a, b)
            for path, a, b in zip(one.paths, one.tensors, other.tensors, strict=True)
        )

    def chunks(self, steps: Sequence[S]) -> list[list[S]]:
        """Split ``steps`` so that each part fits into the greatest bucket."""
        found: list[list[S]] = []
        total = 0
        for step in steps:
            if not found or total + step.rows > self.buckets[-1]:
                found.append([])
                total = 0
            found[-1].append(step)
            total += step.rows
        return found


def require_rowwise(settings: Settings, with_rows: frozenset[str]) -> None:
    """Raise ConfigError unless steps of several requests can share a call."""
    cause, remedy = "", ""
    if not with_rows:
        cause = "no input has a first dimension that may vary"
        remedy = 'optimize with CaptureConfig(dynamic={"sample": (0,), "timestep": (0,), ...})'
    elif settings.guidance:
        cause = "GuidanceCache splits batches in halves"
        remedy = "leave guidance out"
    elif settings.cache.offload:
        cause = "offloaded weights serve one run at a time"
        remedy = "leave out CacheConfig(offload=True)"
    elif settings.correction:
        cause = "a correction has one value for each half of a guided batch"
        remedy = "use a plan without a correction"
    elif settings.cache.kernels:
        cause = "the kernels' statistics of cached values are not joined"
        remedy = "leave out CacheConfig(kernels=True)"
    if cause:
        raise ConfigError(f"requests cannot share calls: {cause}", where=WHERE, remedy=remedy)
