"""Stores the values of the last refreshes, and reads an extrapolation of them."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor, fx

from fxcache._torch import copy_all
from fxcache.codecs.codec import CacheEntry, Codec, Coefficients, ReadContext, Slot
from fxcache.errors import ConfigError
from fxcache.forecasts import Forecast
from fxcache.graph_inputs import InputKind, Source, add_input
from fxcache.step import Step

MAX_TENSORS = 256  # the greatest number of coefficient tensors to keep on their device
WEIGHTS = "weights"  # the key of the coefficients, and the name of their placeholder
FORECAST = "fxcache_forecast"  # the key of a note: stored values and weights of a forecast
aten = torch.ops.aten


@dataclass(frozen=True)
class History(Codec):
    """Stores the values F_0, … F_n of the last refreshes, and reads F_0 + Σ_i c_i (F_i - F_{i+1}).

    The coefficients c_i express the forecast's weights of divided differences in differences of
    neighbouring values. Neighbours are close, so that their difference has little rounding error.
    A refresh only copies values. One input, ``weights`` [P, n], holds the coefficients of all P
    points that a variant reads.

    Args:
        forecast: The forecast. Its order is n.
    """

    forecast: Forecast

    def slots(self, value: Tensor) -> tuple[Slot, ...]:
        older = (Slot(value, suffix=f"_{i}") for i in range(1, self.forecast.order + 1))
        return (Slot(value), *older)

    def coefficient_inputs(self, graph: fx.Graph, numbers: Sequence[int]) -> dict[int, fx.Node]:
        if not numbers:
            return {}
        weights = add_input(graph, WEIGHTS, Source(InputKind.COEFFICIENT, WEIGHTS))
        rows = {}
        with graph.inserting_before(graph.find_nodes(op="placeholder")[-1].next):
            for row, number in enumerate(numbers):
                rows[number] = graph.call_function(aten.select.int, (weights, 0, row))
        return rows

    def encode(self, graph: fx.Graph, value: fx.Node, stored: list[fx.Node]) -> list[fx.Node]:
        del graph
        return [value, *stored[:-1]]

    def decode(
        self, graph: fx.Graph, stored: list[fx.Node], like: fx.Node, coefficient: fx.Node | None
    ) -> fx.Node:
        total = stored[0]
        for column, (newer, older) in enumerate(pairwise(stored)):
            weight = graph.call_function(aten.select.int, (coefficient, 0, column))
            difference = graph.call_function(aten.sub.Tensor, (newer, older))
            term = graph.call_function(aten.mul.Tensor, (difference, weight))
            total = graph.call_function(aten.add.Tensor, (total, term))
            for node in (difference, term, total):
                node.meta = dict(newer.meta)
        total.meta = {**like.meta, FORECAST: (total, stored, coefficient)}
        return total

    def coefficients(self) -> Coefficients:
        return HistoryWeights(self.forecast)

    def write(self, entries: Sequence[CacheEntry], values: list[Tensor]) -> None:
        for level in range(self.forecast.order, 0, -1):  # the oldest first
            copy_all([e.buffers[level] for e in entries], [e.buffers[level - 1] for e in entries])
        copy_all([entry.buffers[0] for entry in entries], values)

    def complete(self, entries: Sequence[CacheEntry], step: int, fresh: bool) -> None:
        order = self.forecast.order
        older = [() if fresh or step <= e.steps[0] else e.steps[:order] for e in entries]
        begun = [entry for entry, steps in zip(entries, older, strict=True) if not steps]
        for level in range(1, order + 1):  # the first value fills the history
            copy_all([e.buffers[level] for e in begun], [e.buffers[0] for e in begun])
        for entry, steps in zip(entries, older, strict=True):
            entry.steps = (step, *steps)
            entry.statistics.clear()


class HistoryWeights(Coefficients):
    """Computes the coefficients [P, n] of a forecast."""

    def __init__(self, forecast: Forecast):
        self._forecast = forecast
        self._tensor = lru_cache(MAX_TENSORS)(weights_tensor)

    def require(self, step: Step) -> None:
        self._forecast.require(step)

    def at(self, context: ReadContext) -> dict[Hashable, Tensor]:
        step, rows = context.step, {}
        read = [context.entries[number] for number in context.reads]
        for steps in {entry.steps for entry in read}:
            distance = steps[0] - steps[1] if len(steps) > 1 else 1
            weights = required_weights(self._forecast, step.index - steps[0], distance, step)
            rows[steps] = in_neighbours(weights, steps)
        like = read[0].buffers[0]
        dtype = torch.promote_types(like.dtype, torch.float32)
        table = tuple(rows[entry.steps] for entry in read)
        return {WEIGHTS: self._tensor(table, like.device, dtype)}


def required_weights(forecast: Forecast, age: int, distance: int, step: Step) -> Sequence[float]:
    """Return the weights of a forecast. Raise ConfigError if there are not as many as its order."""
    weights: object = forecast.weights(age, distance, step)
    if isinstance(weights, tuple | list) and len(weights) == forecast.order:
        return weights
    raise ConfigError(
        f"the weights of a forecast of order {forecast.order} are {weights!r}",
        where=f"{type(forecast).__name__}.weights",
        remedy=f"return a tuple of numbers, {forecast.order} of them",
    )


def in_neighbours(weights: Sequence[float], steps: Sequence[int]) -> tuple[float, ...]:
    """Convert weights of divided differences to coefficients of differences of neighbours.

    Args:
        weights: w_1 … w_n for the divided differences D_1 … D_n, see ``Forecast``.
        steps: The steps of the known values, the newest first. If there are fewer than n + 1, the
            highest differences are left out.

    Returns:
        c_0 … c_{n-1}, with Σ w_i D_i = Σ c_j (F_j - F_{j+1}).
    """
    found = [0.0] * len(weights)
    distances = [newer - older for newer, older in pairwise(steps)]
    # For each value, its difference of the current order, as coefficients of the neighbours.
    differences = [
        [1 / distance if j == k else 0.0 for j in range(len(weights))]
        for k, distance in enumerate(distances)
    ]
    for weight in weights[: len(distances)]:
        found = [total + weight * own for total, own in zip(found, differences[0], strict=True)]
        differences = [
            [(a - b) / distance for a, b in zip(newer, older, strict=True)]
            for (newer, older), distance in zip(pairwise(differences), distances, strict=False)
        ]
    return tuple(found)


def weights_tensor(
    rows: tuple[tuple[float, ...], ...], device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return ``rows`` as a tensor that is no inference tensor."""
    with torch.inference_mode(False):
        return torch.tensor(rows, dtype=dtype, device=device)
