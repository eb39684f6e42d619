"""Scale-shift adjustment: the timestep scales and shifts each channel of a cached value."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from fxcache.errors import CutError, PlanError
from fxcache.partition.cut import CachePoint, CutPlan
from fxcache.partition.frontier import Frontier
from fxcache.partition.signals import timestep_embedding
from fxcache.program import shape_of, value_of

ADJUSTMENT = "adjustment:"  # the prefix of its weights in a graph; names of modules have no colon
aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class ScaleShift:
    """A linear layer from the timestep embedding to a scale and a shift, for each cache point.

    Block Caching (2312.03209, section 3.3).

    Attributes:
        weights: ``{group}.{i}.weight`` [2 C, E] and ``{group}.{i}.bias`` [2 C] for point i of a
            group. The first C outputs are the scale, the others the shift.
    """

    weights: Mapping[str, Tensor]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ScaleShift) and equal(self.weights, other.weights)

    def require_match(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Raise PlanError unless the weights have the ``expected`` names and shapes."""
        mine = {name: tuple(w.shape) for name, w in self.weights.items()}
        names = sorted(mine.keys() | expected.keys())
        differing = [n for n in names if mine.get(n) != expected.get(n)]
        if differing:
            name = differing[0]
            raise PlanError(
                f"the adjustment was trained for other cache points: {name} has the shape "
                f"{mine.get(name)}, and {expected.get(name)} is needed",
                where="optimize(plan=...)",
                remedy="train it again for this model and plan",
            )


@dataclass(frozen=True, eq=False)
class ScaleShiftLayers:
    """An adjustment for the graphs of one program.

    Attributes:
        embedding: The node of the program's timestep embedding, ``[B, E]``.
        names: The name of the layer of each cache point.
        weights: The layers' weights by name, on the device and in the dtype of the embedding.
    """

    embedding: fx.Node
    names: Mapping[CachePoint, str]
    weights: Mapping[str, Tensor]

    def insert(
        self, graph: fx.Graph, point: CachePoint, cached: fx.Node, copied: Mapping[fx.Node, fx.Node]
    ) -> fx.Node:
        """Compute ``cached * (1 + scale) + shift`` in ``graph``, at its insertion point."""
        name, rank = self.names[point], value_of(point.value).dim()
        layer = [graph.get_attr(f"{name}.{part}") for part in ("weight", "bias")]
        inputs = (copied[self.embedding], *layer)
        modulation = graph.call_function(aten.linear.default, inputs)
        modulation = over_positions(graph, modulation, rank)
        halves = graph.call_function(aten.chunk.default, (modulation, 2, channel_dim(rank)))
        scale, shift = (graph.call_function(operator.getitem, (halves, i)) for i in range(2))
        factor = graph.call_function(aten.add.Tensor, (scale, 1))
        scaled = graph.call_function(aten.mul.Tensor, (cached, factor))
        adjusted = graph.call_function(aten.add.Tensor, (scaled, shift))
        adjusted.meta = dict(cached.meta)
        return adjusted

    def flops(self, point: CachePoint) -> int:
        """FLOPs of the point's linear layer."""
        batch, _ = shape_of(value_of(self.embedding))
        return 2 * batch * self.weights[f"{self.names[point]}.weight"].numel()


def scale_shift(frontier: Frontier, plan: CutPlan, adjustment: ScaleShift) -> ScaleShiftLayers:
    """Return the layers of ``adjustment`` for one program; raise PlanError if it does not fit."""
    embedding = require_embedding(frontier)
    adjustment.require_match(layer_shapes(frontier, plan))
    like: Tensor = value_of(embedding)
    names = {p: f"{ADJUSTMENT}{name}" for name, p in plan.named_points.items()}
    weights = {
        f"{ADJUSTMENT}{n}": w.to(like.device, like.dtype) for n, w in adjustment.weights.items()
    }
    return ScaleShiftLayers(embedding, names, weights)


def zeros(frontier: Frontier, plan: CutPlan) -> dict[str, Tensor]:
    """Return the weights of an adjustment that changes nothing, for all points of ``plan``."""
    like: Tensor = value_of(require_embedding(frontier))
    return {
        name: torch.zeros(shape, dtype=like.dtype, device=like.device)
        for name, shape in layer_shapes(frontier, plan).items()
    }


def layer_shapes(frontier: Frontier, plan: CutPlan) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the weights; raise CutError if a point has no channels."""
    batch, width = shape_of(value_of(require_embedding(frontier)))
    found: dict[str, tuple[int, ...]] = {}
    for name, point in plan.named_points.items():
        shape = shape_of(value_of(point.value))
        if len(shape) < 2 or batch not in (1, shape[0]):
            raise CutError(
                f"{name} has the shape {list(shape)}, which does not fit the timestep embedding's "
                f"{[batch, width]}",
                where="scale-shift adjustment",
                remedy="use the plan without an adjustment",
            )
        doubled = 2 * shape[channel_dim(len(shape))]
        found |= {f"{name}.weight": (doubled, width), f"{name}.bias": (doubled,)}
    return found


def require_embedding(frontier: Frontier) -> fx.Node:
    """Return the timestep embedding ``[B, E]``; raise CutError if blocks do not share one."""
    found = timestep_embedding(frontier)
    if found is None or value_of(found.value).dim() != 2:
        raise CutError(
            f"{frontier.program.model} has no timestep embedding that all its blocks share",
            where="scale-shift adjustment",
            remedy="use the plan without an adjustment",
        )
    return found.value


def equal(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    """Return whether both hold equal tensors under the same names."""
    return some.keys() == others.keys() and all(torch.equal(t, others[n]) for n, t in some.items())


def over_positions(graph: fx.Graph, by_channel: fx.Node, rank: int) -> fx.Node:
    """Reshape ``by_channel`` [B, C] so that it broadcasts over the positions of ``rank`` dims."""
    for _ in range(rank - 2):
        at = 1 if channels_last(rank) else -1
        by_channel = graph.call_function(aten.unsqueeze.default, (by_channel, at))
    return by_channel


def channels_last(rank: int) -> bool:
    """Return whether the channels of a value with ``rank`` dimensions come last, as in tokens."""
    return rank <= 3


def channel_dim(rank: int) -> int:
    return -1 if channels_last(rank) else 1
