"""Drift correction: adds the drift that a calibration measured to cached values."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Self

import torch
from torch import Tensor, fx

from fxcache.codecs.codec import Coefficients, ReadContext
from fxcache.codecs.scale_shift import channel_dim, equal, over_positions
from fxcache.errors import PlanError
from fxcache.graph_inputs import InputKind, Source, add_input
from fxcache.partition.cut import CachePoint, CutPlan
from fxcache.program import shape_of, value_of
from fxcache.step import Step, require_length

MAX_TENSORS = 4096  # the greatest number of coefficient tensors to keep on their device
DRIFT = "drift_"  # the prefix of the names of placeholders, and of the keys of coefficients
APPLIED = "applied"  # the key of that tensor; names of points end in a number
aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class DriftCorrection:
    """The change of each cache point's channel means from step to step.

    Error-Optimized Cache (2501.19243).

    Attributes:
        trends: ``[steps, parts, C]`` for each point, by the name ``{group}.{i}`` of point i of a
            group: the mean at a step minus the mean at the step before. There are two parts for
            the halves of a guided batch, and one part for any other batch.
        applied: ``[steps]``, whether the correction helps at the step. None for all steps.
    """

    trends: Mapping[str, Tensor]
    applied: Tensor | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DriftCorrection) and equal(self.weights, other.weights)

    @property
    def weights(self) -> dict[str, Tensor]:
        """All tensors by name. ``of`` makes a correction from them."""
        return {**self.trends, **({} if self.applied is None else {APPLIED: self.applied})}

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> Self:
        """Return the correction with these ``weights``."""
        trends = dict(weights)
        applied = trends.pop(APPLIED, None)
        return cls(trends, applied)

    def helps(self, step: int) -> bool:
        """Return whether the correction is applied at ``step``."""
        return self.applied is None or bool(self.applied[step])

    @cached_property
    def parts(self) -> int:
        """The number of parts of a batch with separate trends, 1 or 2."""
        return max(trend.shape[1] for trend in self.trends.values())

    @cached_property
    def num_steps(self) -> int:
        """The number of steps of the runs that were calibrated."""
        return len(next(iter(self.trends.values())))

    def require_match(self, plan: CutPlan) -> None:
        """Raise PlanError unless the correction was calibrated for the points of ``plan``."""
        whole = all(t.dim() == 3 for t in self.trends.values())
        if not whole or len({len(t) for t in self.weights.values()}) != 1:
            raise PlanError(
                "the correction lacks a tensor [steps, parts, channels] for each point, all with "
                "the same number of steps",
                where="optimize(plan=...)",
                remedy="calibrate it again",
            )
        mine = {name: t.shape[-1] for name, t in self.trends.items()}
        points = plan.named_points.items()
        expected = {name: channels(point) for name, point in points}
        differing = [n for n in sorted(mine | expected) if mine.get(n) != expected.get(n)]
        if differing:
            name = differing[0]
            raise PlanError(
                f"the correction was calibrated for other cache points: it has {mine.get(name)} "
                f"channels for {name}, and {expected.get(name)} are needed",
                where="optimize(plan=...)",
                remedy="calibrate it again for this model and plan",
            )

    def between(self, name: str, cached: int, now: int) -> Tensor:
        """Return the drift of a point from step ``cached`` to step ``now``: [parts, C], fp64."""
        drift = self.trends[name][cached + 1 : now + 1].double().sum(0)
        return drift if self.helps(now) else torch.zeros_like(drift)


class DriftCoefficients(Coefficients):
    """Computes the drift [B, C] of each point that a step reads."""

    def __init__(self, correction: DriftCorrection, plan: CutPlan):
        self._correction, self._names = correction, tuple(plan.named_points)
        self._tensor = lru_cache(MAX_TENSORS)(self._compute)

    def require(self, step: Step) -> None:
        require_length("the correction", self._correction.num_steps, step)

    def at(self, context: ReadContext) -> dict[Hashable, Tensor]:
        step = context.step
        found: dict[Hashable, Tensor] = {}
        for number in context.reads:
            entry = context.entries[number]
            like = entry.buffers[0]
            found[f"{DRIFT}{number}"] = self._tensor(
                self._names[number],
                entry.steps[0],
                step.index,
                len(like),
                context.phase,
                like.device,
                like.dtype,
            )
        return found

    def _compute(
        self,
        name: str,
        cached: int,
        now: int,
        rows: int,
        part: int | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Tensor:
        """Return the drift for a batch of ``rows``; ``part`` is the part that the batch is."""
        with torch.inference_mode(False), torch.no_grad():
            drift = self._correction.between(name, cached, now)
            if part is not None and len(drift) > 1:
                drift = drift[part : part + 1]
            return drift.repeat_interleave(rows // len(drift), dim=0).to(device, dtype)


def drift_input(graph: fx.Graph, number: int) -> fx.Node:
    """Add an input to ``graph`` for the drift of cache point ``number``."""
    name = f"{DRIFT}{number}"
    return add_input(graph, name, Source(InputKind.COEFFICIENT, name))


def channels(point: CachePoint) -> int:
    """Return the number of channels of the value at ``point``."""
    shape = shape_of(value_of(point.value))
    return int(shape[channel_dim(len(shape))])


def add_drift(graph: fx.Graph, cached: fx.Node, drift: fx.Node) -> fx.Node:
    """Insert the sum of ``cached`` and the ``drift`` [B, C] of its channels into ``graph``."""
    drift = over_positions(graph, drift, value_of(cached).dim())
    moved = graph.call_function(aten.add.Tensor, (cached, drift))
    moved.meta = dict(cached.meta)
    return moved
