"""The costs of variants: their FLOPs, and the weights that they read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from fxcache.analysis.hoisting import Hoisted
from fxcache.codecs.scale_shift import ScaleShiftLayers
from fxcache.partition.cut import CachePoint, CutPlan
from fxcache.partition.frontier import Frontier


@dataclass(frozen=True)
class VariantCosts:
    """The cost model of one program under one plan.

    Attributes:
        frontier: The program's graph, with the cost of each node.
        plan: The plan with the cache points.
        adjusted: The layers that adjust cached values; None if there are none.
    """

    frontier: Frontier
    plan: CutPlan
    adjusted: ScaleShiftLayers | None

    def step_flops(
        self,
        reads: Iterable[CachePoint],
        writes: Iterable[CachePoint],
        observed: Iterable[fx.Node],
        hoisted: Iterable[fx.Node],
    ) -> int:
        """Return the FLOPs of a whole step, including its prefix.

        Args:
            reads: The points that the step reads from the cache.
            writes: The points whose values the step stores.
            observed: The nodes that the prefix computes for the policy.
            hoisted: Values that were computed before the steps.
        """
        taken = tuple(reads)
        flops = self.frontier.costs.total(self.frontier.live(taken, observed, hoisted))
        flops += sum(sum(point.flops.values()) for point in (*taken, *writes))
        return flops + (sum(map(self.adjusted.flops, taken)) if self.adjusted else 0)

    def prologue_flops(self, hoisted: Hoisted) -> int:
        """Return the FLOPs of the prologue."""
        return self._flops_of(hoisted.per_run, ())

    def timestep_flops(self, values: tuple[fx.Node, ...], hoisted: Hoisted) -> int:
        """Return the FLOPs of some hoisted ``values`` for one timestep."""
        return self._flops_of(values, hoisted.per_run)

    def _flops_of(self, ends: tuple[fx.Node, ...], taken: tuple[fx.Node, ...]) -> int:
        if not ends:
            return 0
        live = self.frontier.needs.live_without(dict.fromkeys(taken, ()), ends)
        return self.frontier.costs.total(live)

    def weights_read(
        self,
        points: tuple[CachePoint, ...],
        observed: Iterable[fx.Node],
        hoisted: Iterable[fx.Node],
        weights: Mapping[str, Any],
    ) -> list[Tensor]:
        """Return the distinct ``weights`` of a step that reads ``points`` from the cache."""
        live = self.frontier.live(points, observed, hoisted)
        read = (weights[str(n.target)] for n in live if n.op == "get_attr")
        return list({id(weight): weight for weight in read if isinstance(weight, Tensor)}.values())
