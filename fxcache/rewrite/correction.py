"""Error correction: what is cached moves on as calibration saw it move, by step and channel."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, fx

from fxcache.errors import PlanError
from fxcache.partition.cut import CachePoint, CutPlan
from fxcache.program import shape_of, value_of
from fxcache.rewrite.adjustment import channel_dim, channels_last, named_points

TREND = "trend_"  # begins the names of placeholders for it
aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Correction:
    """For each cache point, how its mean over all positions changes from step to step.

    Error-Optimized Cache (2501.19243). ``trends``: ``{group}.{i}`` [steps, parts, C] for point i of
    a group: its mean at a step less that at the step before; zero where that would not help. Two
    parts are the halves of a guided batch, one is all of any.
    """

    trends: Mapping[str, Tensor]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Correction)
            and self.trends.keys() == other.trends.keys()
            and all(torch.equal(t, other.trends[name]) for name, t in self.trends.items())
        )

    @cached_property
    def parts(self) -> int:
        """Of the batch, each with trends of its own."""
        return max(trend.shape[1] for trend in self.trends.values())

    @cached_property
    def num_steps(self) -> int:
        """Of the runs that it was calibrated on."""
        return len(next(iter(self.trends.values())))

    def require_match(self, plan: CutPlan) -> None:
        """PlanError unless it was calibrated for the points of ``plan``."""
        mine = {name: t.shape[-1] for name, t in self.trends.items()}
        points = named_points(plan).items()
        expected = {name: channels(point) for name, point in points}
        differing = [n for n in sorted(mine | expected) if mine.get(n) != expected.get(n)]
        if differing:
            name = differing[0]
            raise PlanError(
                f"the correction was calibrated for other cache points: for {name} it has "
                f"{mine.get(name)} channels, needed are {expected.get(name)}",
                where="optimize(plan=...)",
                remedy="calibrate it again for this model and plan",
            )


def channels(point: CachePoint) -> int:
    """How many channels the value at ``point`` has."""
    shape = shape_of(value_of(point.value))
    return int(shape[channel_dim(len(shape))])


def add_trend(graph: fx.Graph, cached: fx.Node, trend: fx.Node) -> fx.Node:
    """``cached`` and the ``trend`` [B, C] of its channels, in ``graph``, at its insertion point."""
    rank = value_of(cached).dim()
    for _ in range(rank - 2):
        at = 1 if channels_last(rank) else -1
        trend = graph.call_function(aten.unsqueeze.default, (trend, at))
    moved = graph.call_function(aten.add.Tensor, (cached, trend))
    moved.meta = dict(cached.meta)
    return moved
