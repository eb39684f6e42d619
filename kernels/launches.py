"""Launchers call kernels through a ``Wrap``: so a launch can be seen, and not only done."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Wrap = Callable[[Any], Any]  # makes of a kernel what takes ``[grid](*arguments, **constants)``


# By name: the arguments of a kernel's ``run`` and ``eager``, at a real size, on that device.
Cases = Mapping[str, Callable[[str], tuple[Any, ...]]]


def as_is(kernel: Any) -> Any:
    return kernel


def is_traced(tensor: Tensor) -> bool:
    """Whether an operator is traced, as for a compiler: then its tensors are of another class."""
    return type(tensor) is not Tensor


@dataclass(frozen=True)
class Launch:
    """A kernel, the arguments by their names, and the constants that it is compiled for."""

    kernel: Any
    arguments: Mapping[str, Any]
    constants: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors, each read or written once."""
        tensors = {id(t): t for t in self.arguments.values() if isinstance(t, Tensor)}
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


@dataclass(frozen=True)
class Recorded:
    """A kernel that is only noted down."""

    kernel: Any
    launches: list[Launch]

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        del grid
        return self.note

    def note(self, *arguments: Any, **constants: Any) -> None:
        named = dict(zip(self.kernel.arg_names, arguments, strict=False))
        self.launches.append(Launch(self.kernel, named, constants))


def launches_of(run: Callable[[Wrap], object]) -> list[Launch]:
    """What ``run`` would launch; its tensors may be on the meta device, which holds no memory."""
    launches: list[Launch] = []
    run(lambda kernel: Recorded(kernel, launches))
    return launches
