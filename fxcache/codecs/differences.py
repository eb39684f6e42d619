"""A value is stored with its differences between refreshes, and read by a forecast."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, fx

from fxcache._torch import copy_all, divided_differences, zero_all
from fxcache.codecs.codec import (
    CacheEntry,
    Codec,
    Coefficients,
    ReadContext,
    Slot,
)
from fxcache.forecasts import Forecast
from fxcache.graph_inputs import InputKind, Source, add_input
from fxcache.step import Step

KEPT = 256  # coefficient tensors that stay on their device
WEIGHTS = "weights"  # the key of the coefficients, and the name of their placeholder
FORECAST = "fxcache_forecast"  # notes the stored terms and the weights on what is read
aten = torch.ops.aten


@dataclass(frozen=True)
class Differences(Codec):
    """Stores a value F and its differences D_1 … D_n; reads F + Σ_i w_i D_i.

    One input, ``weights`` [P, n], holds the weights of all P points that a variant reads.

    Args:
        forecast: Gives the weights, and the number n of differences.
    """

    forecast: Forecast

    def slots(self, value: Tensor) -> tuple[Slot, ...]:
        differences = (Slot(value, suffix=f"_{i}") for i in range(1, self.forecast.order + 1))
        return (Slot(value), *differences)

    def coefficient_inputs(self, graph: fx.Graph, numbers: Sequence[int]) -> dict[int, fx.Node]:
        if not numbers:
            return {}
        weights = add_input(graph, WEIGHTS, Source(InputKind.COEFFICIENT, WEIGHTS))
        rows = {}
        with graph.inserting_before(graph.find_nodes(op="placeholder")[-1].next):
            for row, number in enumerate(numbers):
                rows[number] = graph.call_function(aten.select.int, (weights, 0, row))
        return rows

    def decode(
        self, graph: fx.Graph, stored: list[fx.Node], like: fx.Node, coefficient: fx.Node | None
    ) -> fx.Node:
        total, *differences = stored
        for column, difference in enumerate(differences):
            weight = graph.call_function(aten.select.int, (coefficient, 0, column))
            term = graph.call_function(aten.mul.Tensor, (difference, weight))
            total = graph.call_function(aten.add.Tensor, (total, term))
            term.meta, total.meta = dict(difference.meta), dict(difference.meta)
        total.meta = {**like.meta, FORECAST: (total, stored, coefficient)}
        return total

    def coefficients(self) -> Coefficients:
        return Weights(self.forecast)

    def write(
        self, entries: Sequence[CacheEntry], values: list[Tensor], step: int, fresh: bool
    ) -> None:
        by_history: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, entry in enumerate(entries):
            entry.statistics.clear()
            restarts = fresh or step <= entry.step
            entry.distance = 1 if restarts else step - entry.step
            entry.known = 0 if restarts else min(entry.known + 1, self.forecast.order)
            entry.step = step
            by_history[entry.distance, entry.known].append(index)
        for (distance, known), indices in by_history.items():
            stored = [entries[i].buffers for i in indices]
            new = [values[i] for i in indices]
            if known:
                self._update(stored, new, distance, known)
            else:
                copy_all([buffers[0] for buffers in stored], new)
                zero_all([difference for buffers in stored for difference in buffers[1:]])

    def _update(
        self,
        stored: list[tuple[Tensor, ...]],
        values: list[Tensor],
        distance: int,
        known: int,
    ) -> None:
        """Store ``values``, and the differences 1 … ``known``: each needs the one before it."""
        for order in range(known + 1):
            buffers = [of_value[order] for of_value in stored]
            following = divided_differences(values, buffers, distance) if order < known else []
            copy_all(buffers, values)
            values = following


class Weights(Coefficients):
    """The weights [P, order] of a forecast; equal ones are copied to a device once."""

    def __init__(self, forecast: Forecast):
        self._forecast = forecast
        self._tensor = lru_cache(KEPT)(weights_tensor)

    def require(self, step: Step) -> None:
        self._forecast.require(step)

    def at(self, context: ReadContext) -> dict[Hashable, Tensor]:
        read = [context.entries[number] for number in context.reads]
        weights, step = self._forecast.weights, context.step
        rows = tuple(weights(entry.age(step.index), entry.distance, step) for entry in read)
        like = read[0].buffers[0]
        dtype = torch.promote_types(like.dtype, torch.float32)
        return {WEIGHTS: self._tensor(rows, like.device, dtype)}


def weights_tensor(
    rows: tuple[tuple[float, ...], ...], device: torch.device, dtype: torch.dtype
) -> Tensor:
    """``rows`` as a tensor, which a step in inference mode does not own."""
    with torch.inference_mode(False):
        return torch.tensor(rows, dtype=dtype, device=device)
