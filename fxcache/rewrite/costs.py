"""What variants cost: FLOPs of each, and the weights that each reads."""

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
        frontier: Of the program, with the cost of each node.
        plan: What is cached.
        adjusted: The layers that adjust what is read, if there are any.
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
        """FLOPs of a whole step, its prefix included.

        Args:
            reads: The points that it takes from the cache.
            writes: The points whose values it stores.
            observed: What the prefix computes for the policy.
            hoisted: Values that were computed before the steps.
        """
        taken = tuple(reads)
        flops = self.frontier.costs.total(self.frontier.live(taken, observed, hoisted))
        flops += sum(sum(point.flops.values()) for point in (*taken, *writes))
        return flops + (sum(map(self.adjusted.flops, taken)) if self.adjusted else 0)

    def prologue_flops(self, hoisted: Hoisted) -> int:
        """FLOPs of the prologue."""
        return self._flops_of(hoisted.per_run, ())

    def timestep_flops(self, hoisted: Hoisted) -> int:
        """FLOPs of the timestep part, for one timestep."""
        return self._flops_of(hoisted.per_step, hoisted.per_run)

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
        """The distinct ``weights`` that a step reads which takes ``points`` from the cache."""
        live = self.frontier.live(points, observed, hoisted)
        read = (weights[str(n.target)] for n in live if n.op == "get_attr")
        return list({id(weight): weight for weight in read if isinstance(weight, Tensor)}.values())
