"""Launchers call kernels through a ``Wrap``, which can record a launch instead of running it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Wrap = Callable[[Any], Any]  # wraps a kernel; the result accepts ``[grid](*args, **constants)``


# By name: a function from the device to the arguments of ``run`` and ``eager``, at a real size.
Cases = Mapping[str, Callable[[str], tuple[Any, ...]]]


def identity(kernel: Any) -> Any:
    """Return ``kernel``: the launch runs."""
    return kernel


def is_traced(tensor: Tensor) -> bool:
    """Return whether ``tensor`` is traced, as by a compiler: it then has another class."""
    return type(tensor) is not Tensor


@dataclass(frozen=True)
class Launch:
    """A launch: a kernel, its arguments by name, and the constants that it is compiled for."""

    kernel: Any
    arguments: Mapping[str, Any]
    constants: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors, if each is read or written once."""
        tensors = {id(t): t for t in self.arguments.values() if isinstance(t, Tensor)}
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


@dataclass(frozen=True)
class Recorder:
    """Records the launches of a kernel instead of running them."""

    kernel: Any
    launches: list[Launch]

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        del grid
        return self.record

    def record(self, *arguments: Any, **constants: Any) -> None:
        named = dict(zip(self.kernel.arg_names, arguments, strict=False))
        self.launches.append(Launch(self.kernel, named, constants))


def launches_of(run: Callable[[Wrap], object]) -> list[Launch]:
    """Return the launches of ``run``. Its tensors may be on the meta device, without memory."""
    launches: list[Launch] = []
    run(lambda kernel: Recorder(kernel, launches))
    return launches
