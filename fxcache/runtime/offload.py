"""Offloading: weights that no step reads once values were hoisted wait on the CPU."""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from fxcache._torch import tree_map_only

HOST = torch.device("cpu")


class OffloadedParam(NamedTuple):
    """A weight that waits on the CPU, and where it and the module's first parameter were."""

    weight: weakref.ref[Tensor]
    device: torch.device
    first: torch.device


class Offload:
    """The parameters of one module that wait on the CPU.

    They stay the module's own; only what they hold moves. The first parameter stays, since
    diffusers takes a model to be where that is. Buffers stay: moving a module replaces them.
    """

    def __init__(self) -> None:
        self._offloaded: dict[int, OffloadedParam] = {}
        self._module: weakref.ref[nn.Module] | None = None
        self.moves = 0  # how often weights were sent or brought back

    def belongs_to(self, module: nn.Module) -> None:
        """The weights are those of ``module``."""
        self._module = weakref.ref(module)

    def _parameters(self) -> Iterator[nn.Parameter]:
        module = self._module() if self._module else None
        return iter(()) if module is None else module.parameters()

    @property
    def homes(self) -> Mapping[int, torch.device]:
        """By id of each offloaded weight, the device that it belongs on."""
        return {key: self._home(offloaded) for key, offloaded in self._offloaded.items()}

    @property
    def nbytes(self) -> int:
        """Bytes that wait on the CPU."""
        return sum(weight.nbytes for weight, _ in self._found())

    def require(self, weights: Iterable[Tensor]) -> None:
        """Every weight is where it belongs, if one of these is not."""
        if any(id(weight) in self._offloaded for weight in weights):
            self.bring_back()

    def send(self, weights: Iterable[Tensor], stay: Iterable[Tensor]) -> None:
        """Let ``weights`` wait on the CPU, but for those that share their memory with others.

        ``stay``: the weights that do not go.
        """
        parameters = list(self._parameters())
        owners = Counter(weight.untyped_storage().data_ptr() for weight in parameters)
        staying = set(map(id, (*stay, *parameters[:1])))
        for weight in (w for w in weights if id(w) not in staying and movable(w)):
            if owners[weight.untyped_storage().data_ptr()] == 1:
                offloaded = OffloadedParam(weakref.ref(weight), weight.device, parameters[0].device)
                self._offloaded[id(weight)] = offloaded
                move(weight, HOST)
                self.moves += 1

    def bring_back(self) -> None:
        """Every weight is where it belongs again."""
        for weight, home in self._found():
            move(weight, home)
            self.moves += 1
        self._offloaded.clear()

    def run(self, module: fx.GraphModule, *inputs: Tensor) -> Any:
        """``module(*inputs)``, each offloaded weight on its device for as long as it is read."""
        return Streamed(module, self._placed).run(*inputs) if self._offloaded else module(*inputs)

    def _home(self, offloaded: OffloadedParam) -> torch.device:
        """Where it belongs: where it was, unless the module was moved since."""
        first = next(self._parameters(), None)
        return (
            offloaded.device if first is None or first.device == offloaded.first else first.device
        )

    def _found(self) -> list[tuple[Tensor, torch.device]]:
        offloaded = self._offloaded.values()
        return [(w, self._home(o)) for o in offloaded if (w := o.weight()) is not None]

    def _placed(self, tensor: Tensor) -> Tensor:
        """``tensor``, or a copy where it belongs if it is an offloaded weight."""
        offloaded = self._offloaded.get(id(tensor))
        if offloaded is None or offloaded.weight() is not tensor:
            return tensor
        # matmul folds batches or not by whether a gradient is required: results stay bit-identical.
        return nn.Parameter(fetched(tensor, self._home(offloaded)), tensor.requires_grad)


class Streamed(fx.Interpreter):
    """Runs a graph of which some weights are elsewhere."""

    def __init__(self, module: fx.GraphModule, placed: Callable[[Tensor], Tensor]):
        super().__init__(module)
        self._placed = placed

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        args, kwargs = tree_map_only(Tensor, self._placed, (args, kwargs))
        return super().call_function(target, args, kwargs)


def movable(weight: Tensor) -> bool:
    """Whether ``weight`` is a parameter (no quantised one), elsewhere, and no part of another."""
    plain = type(weight) is nn.Parameter and weight.device != HOST
    return plain and weight.untyped_storage().nbytes() == weight.nbytes


def move(weight: Tensor, device: torch.device) -> None:
    """Let ``weight`` hold what it holds on ``device``; for all else it is the same tensor.

    Inference mode would make it one that counts no writes, and takes no gradient.
    """
    with torch.inference_mode(False):
        weight.data = transferred(weight.data, device)


def fetched(weight: Tensor, device: torch.device) -> Tensor:
    """A copy of what ``weight`` holds, on ``device``."""
    with torch.inference_mode(False):
        return transferred(weight.detach(), device)


def transferred(values: Tensor, device: torch.device) -> Tensor:
    return values.to(device)
