"""Weights that no step reads any more, once values were hoisted, wait on the CPU."""

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from fxcache._torch import tree_map_only

HOST = torch.device("cpu")


class Offload:
    """The weights of one module that are away from its device.

    They stay the module's own parameters; only what they hold moves. Its ``first`` parameter is
    never away: diffusers takes a model to be where that is.
    """

    def __init__(self) -> None:
        self._away: dict[int, tuple[weakref.ref[Tensor], torch.device]] = {}
        self.first: Tensor | None = None
        self.moves = 0  # how often weights were sent or brought back

    @property
    def homes(self) -> Mapping[int, torch.device]:
        """By id of each weight that is away, the device it belongs on."""
        return {key: home for key, (_, home) in self._away.items()}

    @property
    def nbytes(self) -> int:
        """Bytes that wait on the CPU."""
        return sum(weight.nbytes for weight, _ in self._found())

    def require(self, weights: Iterable[Tensor]) -> None:
        """Every weight is where it belongs, if one of these is not."""
        if any(id(weight) in self._away for weight in weights):
            self.bring_back()

    def send(self, weights: Iterable[Tensor], stay: Iterable[Tensor]) -> None:
        """Let ``weights`` wait on the CPU, but for those that share their memory with others.

        ``stay``: the weights that do not go.
        """
        held = {weight.untyped_storage().data_ptr() for weight in stay}
        for weight in weights:
            if weight is self.first or weight.device == HOST or not movable(weight):
                continue
            if weight.untyped_storage().data_ptr() not in held:
                self._away[id(weight)] = (weakref.ref(weight), weight.device)
                move(weight, HOST)
                self.moves += 1

    def bring_back(self) -> None:
        """Every weight is where it belongs again."""
        for weight, home in self._found():
            move(weight, home)
            self.moves += 1
        self._away.clear()

    def run(self, module: fx.GraphModule, *inputs: Tensor) -> Any:
        """``module(*inputs)``, each weight that is away on its device for as long as it is read."""
        return Streamed(module, self._away_home).run(*inputs) if self._away else module(*inputs)

    def _found(self) -> list[tuple[Tensor, torch.device]]:
        return [(w, home) for found, home in self._away.values() if (w := found()) is not None]

    def _away_home(self, tensor: Tensor) -> Tensor:
        """``tensor``, or a copy on its device if it is a weight that is away."""
        found, home = self._away.get(id(tensor), (None, None))
        if home is None or found is None or found() is not tensor:
            return tensor
        # matmul folds batches or not by whether a gradient is required: results stay bit-identical.
        return nn.Parameter(fetched(tensor, home), tensor.requires_grad)


class Streamed(fx.Interpreter):
    """Runs a graph of which some weights are elsewhere."""

    def __init__(self, module: fx.GraphModule, placed: Any):
        super().__init__(module)
        self._placed = placed

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        args, kwargs = tree_map_only(Tensor, self._placed, (args, kwargs))
        return super().call_function(target, args, kwargs)


def movable(weight: Tensor) -> bool:
    """Whether ``weight`` is no subclass of its own (quantised), and no part of another tensor."""
    plain = type(weight) in (Tensor, nn.Parameter)
    return plain and weight.untyped_storage().nbytes() == weight.nbytes


def move(weight: Tensor, device: torch.device) -> None:
    """Let ``weight`` hold what it holds on ``device``; for all else it is the same tensor."""
    weight.data = weight.data.to(device)


def fetched(weight: Tensor, device: torch.device) -> Tensor:
    """A copy of what ``weight`` holds, on ``device``."""
    return weight.detach().to(device)
