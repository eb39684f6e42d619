"""Weights that no step reads any more, once values were hoisted, wait on the CPU."""

import weakref
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from fxcache._torch import tree_map_only

HOST = torch.device("cpu")


class Away(NamedTuple):
    """A weight that waits on the CPU, and where it and the module's ``first`` parameter were."""

    weight: weakref.ref[Tensor]
    device: torch.device
    first: torch.device | None


class Offload:
    """The weights of one module that are away from its device.

    They stay the module's own parameters; only what they hold moves. Its ``first`` parameter is
    never away: diffusers takes a model to be where that is.
    """

    def __init__(self) -> None:
        self._away: dict[int, Away] = {}
        self.first: Tensor | None = None
        self.moves = 0  # how often weights were sent or brought back

    @property
    def homes(self) -> Mapping[int, torch.device]:
        """By id of each weight that is away, the device it belongs on."""
        return {key: self._home(away) for key, away in self._away.items()}

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
        going, staying = list(weights), set(map(id, stay))
        owners = Counter(w.untyped_storage().data_ptr() for w in {*going, *stay})
        beside = self.first.device if self.first is not None else None
        for weight in (w for w in going if id(w) not in staying and w is not self.first):
            alone = owners[weight.untyped_storage().data_ptr()] == 1
            if alone and movable(weight):
                self._away[id(weight)] = Away(weakref.ref(weight), weight.device, beside)
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
        return Streamed(module, self._placed).run(*inputs) if self._away else module(*inputs)

    def _home(self, away: Away) -> torch.device:
        """Where it belongs: where it was, unless the module was moved since."""
        now = self.first.device if self.first is not None else None
        return away.device if now is None or now == away.first else now

    def _found(self) -> list[tuple[Tensor, torch.device]]:
        away = self._away.values()
        return [(w, self._home(a)) for a in away if (w := a.weight()) is not None]

    def _placed(self, tensor: Tensor) -> Tensor:
        """``tensor``, or a copy where it belongs if it is a weight that is away."""
        away = self._away.get(id(tensor))
        if away is None or away.weight() is not tensor:
            return tensor
        # matmul folds batches or not by whether a gradient is required: results stay bit-identical.
        return nn.Parameter(fetched(tensor, self._home(away)), tensor.requires_grad)


class Streamed(fx.Interpreter):
    """Runs a graph of which some weights are elsewhere."""

    def __init__(self, module: fx.GraphModule, placed: Any):
        super().__init__(module)
        self._placed = placed

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        args, kwargs = tree_map_only(Tensor, self._placed, (args, kwargs))
        return super().call_function(target, args, kwargs)


def movable(weight: Tensor) -> bool:
    """Whether ``weight`` is elsewhere, of no class of its own (quantised), no part of another."""
    plain = type(weight) in (Tensor, nn.Parameter) and weight.device != HOST
    return plain and weight.untyped_storage().nbytes() == weight.nbytes


def move(weight: Tensor, device: torch.device) -> None:
    """Let ``weight`` hold what it holds on ``device``; for all else it is the same tensor."""
    weight.data = weight.data.to(device)


def fetched(weight: Tensor, device: torch.device) -> Tensor:
    """A copy of what ``weight`` holds, on ``device``."""
    return weight.detach().to(device)
