"""State objects with keys, a model that reads and writes them, and loops of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import fxcache
from fxcache.objects import Walk
from tests.plain import WIDTH, DiT, dit_inputs

STEPS = 8


class WithMemory(DiT):
    """Attends to the text and to the content of ``memory``; ``use`` reads and writes it."""

    def __init__(self, use: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.use = use
        self.key = nn.Linear(WIDTH, WIDTH)

    def forward(self, sample, timestep, text, memory):  # type: ignore[override]
        seen = torch.tanh(self.key(self.embed(sample).mean(1, keepdim=True)))
        return super().forward(sample, timestep, text + self.use(memory, seen))


class Filled:
    """Written at the first call."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.filled = False

    def use(self, seen: Tensor) -> Tensor:
        if not self.filled:
            self.keys, self.filled = seen, True
        assert self.keys is not None
        return self.keys


class Replaced:
    """Replaced at every call."""

    def __init__(self) -> None:
        self.keys = torch.zeros(2, 1, WIDTH)

    def use(self, seen: Tensor) -> Tensor:
        self.keys = 0.5 * self.keys + seen
        return self.keys


class Buffer:
    """Written in place, as static caches are."""

    __slots__ = ("keys", "once")

    def __init__(self) -> None:
        self.keys, self.once = torch.zeros(2, 3, WIDTH), torch.ones(())

    def use(self, seen: Tensor) -> Tensor:
        self.keys[:, 1:2] = seen
        self.keys[:, :1].add_(self.once)
        return self.keys.mean(1, keepdim=True)


@dataclass
class Layer:
    keys: Tensor | None = None
    length: int = 0


@dataclass
class Layered:
    """Has layers in lists and dicts, which are made at their first use, moved and removed."""

    layers: list[Layer] = field(default_factory=list)
    by_name: dict[str, Any] = field(default_factory=dict)

    def use(self, seen: Tensor) -> Tensor:
        while len(self.layers) < 2:
            self.layers.append(Layer())
        for layer in self.layers:
            layer.keys = seen if layer.keys is None else layer.keys + seen
            layer.length = 1
        self.by_name["last"], previous = (seen, seen * 2), self.by_name.pop("last", None)
        total = sum((layer.keys for layer in self.layers if layer.keys is not None), seen)
        return total if previous is None else total + previous[1]


class Growing:
    """Grows by the new keys at each call, up to a window."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None

    def use(self, seen: Tensor) -> Tensor:
        keys = seen if self.keys is None else torch.cat([self.keys, seen], 1)
        self.keys = keys[:, -3:].clone()
        return self.keys.sum(1, keepdim=True)


class Swapped:
    """Exchanges its tensors, without a computation."""

    def __init__(self) -> None:
        self.now, self.next = torch.zeros(2, 1, WIDTH), torch.ones(2, 1, WIDTH)

    def use(self, seen: Tensor) -> Tensor:
        self.now, self.next = self.next, self.now
        return self.now * seen


MEMORIES = [Filled, Replaced, Buffer, Layered, Growing, Swapped]


def use(memory: Any, seen: Tensor) -> Tensor:
    return memory.use(seen)


def state_of(memory: Any) -> tuple[Any, list[Tensor]]:
    walk = Walk([])
    return walk.part(memory, "memory"), walk.tensors


def assert_same_state(first: Any, second: Any) -> None:
    (one, held), (two, expected) = state_of(first), state_of(second)
    assert one == two
    for found, tensor in zip(held, expected, strict=True):
        assert torch.equal(found, tensor)
        assert found.shape == tensor.shape


def loop(model: nn.Module, memory: Any, each: Callable[[], None] = lambda: None) -> Tensor:
    inputs = dit_inputs()
    latent, text = inputs["sample"], inputs["text"]
    with torch.no_grad():
        for t in torch.linspace(900, 100, STEPS):
            latent = latent - 0.1 * model(latent, t, text, memory)
            each()
    return latent


def steps(model: nn.Module) -> tuple[int, int]:
    """Count the calls of all runs, and the refreshes among them."""
    runs = fxcache.report(model).to_dict()["runs"]
    return sum(r["steps"] for r in runs), sum(len(r["refreshes"]) for r in runs)
