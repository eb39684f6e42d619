"""Stores and reads values without change."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, fx

from fxcache._torch import copy_all
from fxcache.codecs.codec import CacheEntry, Codec, Slot


@dataclass(frozen=True)
class Identity(Codec):
    """Stores a value and reads it without change."""

    stores_as_is: ClassVar[bool] = True

    def slots(self, value: Tensor) -> tuple[Slot, ...]:
        return (Slot(value),)

    def encode(self, graph: fx.Graph, value: fx.Node, stored: list[fx.Node]) -> list[fx.Node]:
        del graph, stored
        return [value]

    def decode(
        self, graph: fx.Graph, stored: list[fx.Node], like: fx.Node, coefficient: fx.Node | None
    ) -> fx.Node:
        del graph, like, coefficient
        (cached,) = stored
        return cached

    def write(self, entries: Sequence[CacheEntry], values: list[Tensor]) -> None:
        copy_all([entry.buffers[0] for entry in entries], values)
