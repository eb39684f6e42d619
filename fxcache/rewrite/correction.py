"""Error correction: what is cached moves on as calibration saw it move, by step and channel."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor, fx

from fxcache.errors import PlanError
from fxcache.partition.cut import CachePoint, CutPlan
from fxcache.program import shape_of, value_of
from fxcache.rewrite.adjustment import channel_dim, equal, named_points, over_positions

TREND = "trend_"  # begins the names of placeholders for it
APPLIED = "applied"  # no point's name, which ends in a number
aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Correction:
    """For each cache point, how its mean over all positions changes from step to step.

    Error-Optimized Cache (2501.19243). ``trends``: ``{group}.{i}`` [steps, parts, C] for point i of
    a group: its mean at a step less that at the step before. Two parts are the halves of a guided
    batch, one is all of any. ``applied`` [steps]: the steps that it helps; None for all.
    """

    trends: Mapping[str, Tensor]
    applied: Tensor | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Correction) and equal(self.weights, other.weights)

    @property
    def weights(self) -> dict[str, Tensor]:
        """All of it by name; ``of`` takes it back."""
        return {**self.trends, **({} if self.applied is None else {APPLIED: self.applied})}

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> Self:
        trends = dict(weights)
        applied = trends.pop(APPLIED, None)
        return cls(trends, applied)

    def helps(self, step: int) -> bool:
        return self.applied is None or bool(self.applied[step])

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
        whole = all(t.dim() == 3 for t in self.trends.values())
        if not whole or len({len(t) for t in self.weights.values()}) != 1:
            raise PlanError(
                "the correction does not hold [steps, parts, channels] for each point, for as many "
                "steps each",
                where="optimize(plan=...)",
                remedy="calibrate it again",
            )
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
    trend = over_positions(graph, trend, value_of(cached).dim())
    moved = graph.call_function(aten.add.Tensor, (cached, trend))
    moved.meta = dict(cached.meta)
    return moved
