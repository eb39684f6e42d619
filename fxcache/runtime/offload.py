"""Offloading: keeps weights that no step reads after hoisting on the CPU."""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from fxcache._torch import is_special, tree_map_only

HOST = torch.device("cpu")


class OffloadedParam(NamedTuple):
    """A weight on the CPU, its former device, and that of the module's first parameter."""

    weight: weakref.ref[Tensor]
    device: torch.device
    first: torch.device


class Offload:
    """The offloaded parameters of one module.

    They stay the module's own parameters; only their data move. The first parameter stays on the
    device, because diffusers reads a model's device from it. Buffers stay, because moving a module
    replaces them.
    """

    def __init__(self) -> None:
        self._offloaded: dict[int, OffloadedParam] = {}
        self._module: weakref.ref[nn.Module] | None = None
        self.moves = 0  # how many weights were moved so far

    def belongs_to(self, module: nn.Module) -> None:
        """Set the module that has the weights."""
        self._module = weakref.ref(module)

    def _parameters(self) -> Iterator[nn.Parameter]:
        module = self._module() if self._module else None
        return iter(()) if module is None else module.parameters()

    @property
    def homes(self) -> Mapping[int, torch.device]:
        """The device that each offloaded weight returns to, by id of the weight."""
        return {key: self._home(offloaded) for key, offloaded in self._offloaded.items()}

    @property
    def nbytes(self) -> int:
        """The bytes of all offloaded weights."""
        return sum(weight.nbytes for weight, _ in self._found())

    def require(self, weights: Iterable[Tensor]) -> None:
        """Return all weights to their devices if one of ``weights`` is offloaded."""
        if any(id(weight) in self._offloaded for weight in weights):
            self.bring_back()

    def move_to_cpu(self, weights: Iterable[Tensor], stay: Iterable[Tensor]) -> None:
        """Move ``weights`` to the CPU, except those that share memory with other weights.

        Args:
            weights: The weights to offload.
            stay: The weights that stay on their device.
        """
        parameters = list(self._parameters())
        plain = (weight for weight in parameters if not is_special(weight))  # others do not move
        owners = Counter(weight.untyped_storage().data_ptr() for weight in plain)
        staying = set(map(id, (*stay, *parameters[:1])))
        for weight in (w for w in weights if id(w) not in staying and movable(w)):
            if owners[weight.untyped_storage().data_ptr()] == 1:
                offloaded = OffloadedParam(weakref.ref(weight), weight.device, parameters[0].device)
                self._offloaded[id(weight)] = offloaded
                move(weight, HOST)
                self.moves += 1

    def bring_back(self) -> None:
        """Return all weights to their devices."""
        for weight, home in self._found():
            move(weight, home)
            self.moves += 1
        self._offloaded.clear()

    def run(self, module: fx.GraphModule, *inputs: Tensor) -> Any:
        """Run a graph, with a copy of each offloaded weight on its device.

        Hooks for all modules do not run around it: they belong to the modules of the model.
        """
        if self._offloaded:
            return OffloadInterpreter(module, self._on_device).run(*inputs)
        return module.forward(*inputs)

    def _home(self, offloaded: OffloadedParam) -> torch.device:
        """Return the weight's former device; the module's new device if the module was moved."""
        first = next(self._parameters(), None)
        return (
            offloaded.device if first is None or first.device == offloaded.first else first.device
        )

    def _found(self) -> list[tuple[Tensor, torch.device]]:
        offloaded = self._offloaded.values()
        return [(w, self._home(o)) for o in offloaded if (w := o.weight()) is not None]

    def _on_device(self, tensor: Tensor) -> Tensor:
        """Return ``tensor``, or a copy on its device if it is an offloaded weight."""
        offloaded = self._offloaded.get(id(tensor))
        if offloaded is None or offloaded.weight() is not tensor:
            return tensor
        # matmul folds batches only if no gradient is required. Keep the flag for equal bits.
        return nn.Parameter(copy_to(tensor, self._home(offloaded)), tensor.requires_grad)


class OffloadInterpreter(fx.Interpreter):
    """Runs a graph with offloaded weights: copies each to its device while an op reads it."""

    def __init__(self, module: fx.GraphModule, on_device: Callable[[Tensor], Tensor]):
        super().__init__(module)
        self._on_device = on_device

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        args, kwargs = tree_map_only(Tensor, self._on_device, (args, kwargs))
        return super().call_function(target, args, kwargs)


def movable(weight: Tensor) -> bool:
    """Return whether ``weight`` is a plain parameter on a device, with memory of its own."""
    plain = type(weight) is nn.Parameter and weight.device != HOST
    return plain and weight.untyped_storage().nbytes() == weight.nbytes


def move(weight: Tensor, device: torch.device) -> None:
    """Move the data of ``weight`` to ``device``. It stays the same tensor object.

    In inference mode, the new data would count no writes and take no gradient.
    """
    with torch.inference_mode(False):
        weight.data = transfer(weight.data, device)


def copy_to(weight: Tensor, device: torch.device) -> Tensor:
    """Return a copy of ``weight`` on ``device``."""
    with torch.inference_mode(False):
        return transfer(weight.detach(), device)


def transfer(values: Tensor, device: torch.device) -> Tensor:
    return values.to(device)
