"""A cut: which values are cached, and what that saves."""

from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from torch import fx

from fxcache.policies import Signal

SPAN = ".."  # between the first and the last module of a residual cut's name


@dataclass(frozen=True)
class Cut:
    """What a reuse step takes from the cache instead of computing it.

    All numbers are for the batch and the size that were captured.

    Attributes:
        name: The module path of the cached value, or ``first..last`` for the modules that a
            residual cut spans.
        skip_index: The number of the U-Net's skip connection that the value meets, 0 at the
            outermost. None elsewhere.
        mode: ``"feature"`` if the value itself is cached, ``"residual"`` if the difference between
            two points of a stream is.
        full_flops: FLOPs of the full variant, two per multiply-add.
        reuse_flops: FLOPs of the cached-skip variant, two per multiply-add.
        reuse_flops_by_op: ``reuse_flops`` by kind: ``"conv"``, ``"linear"``, ``"attention"`` and
            ``"other"``.
        cache_bytes: Bytes that are kept between steps, in the dtype of the capture.
        cached_tensors: How many tensors these are.
        blocks_skipped: How many of the model's numbered blocks a reuse step does nothing of.
    """

    name: str
    skip_index: int | None
    mode: Literal["feature", "residual"]
    full_flops: int
    reuse_flops: int
    reuse_flops_by_op: dict[str, int]
    cache_bytes: int
    cached_tensors: int
    blocks_skipped: int

    @property
    def share_saved(self) -> float:
        """The share of the full variant's FLOPs that a reuse step saves, 0 to 1."""
        return 1 - self.reuse_flops / self.full_flops

    def to_dict(self) -> dict[str, Any]:
        """Describe the cut as JSON can hold it: all attributes, and ``share_saved``."""
        return asdict(self) | {"share_saved": round(self.share_saved, 6)}


class Afresh(Protocol):
    """What a reuse step computes in a value's place, before it adds what is cached."""

    @property
    def end(self) -> fx.Node:
        """The value that the computation leads to."""

    @property
    def leaves(self) -> tuple[fx.Node, ...]:
        """The values that it is computed from."""

    @property
    def flops(self) -> Mapping[str, int]:
        """FLOPs by kind."""

    def insert(self, graph: fx.Graph, copied: Mapping[fx.Node, fx.Node]) -> fx.Node:
        """Compute it in ``graph``, at its insertion point; ``copied`` has the leaves."""


@dataclass(frozen=True, eq=False)
class CachePoint:
    """One cached value.

    Without ``shortcut`` the value itself is cached; with it, its difference from the shortcut,
    which a reuse step computes afresh and adds.
    """

    value: fx.Node
    shortcut: Afresh | None = None

    @property
    def along_stream(self) -> bool:
        """Whether the shortcut was found by following a stream, not by likeness alone."""
        return self.shortcut is not None and self.shortcut.end is self.value

    @property
    def needed(self) -> tuple[fx.Node, ...]:
        """What a reuse step must compute in the value's place."""
        return self.shortcut.leaves if self.shortcut else ()

    @property
    def flops(self) -> Mapping[str, int]:
        """FLOPs by kind of computing the shortcut: at a reuse, and at a refresh besides."""
        return self.shortcut.flops if self.shortcut else {}


@dataclass(frozen=True, eq=False)
class SignalPoint:
    """A value to observe: ``value``, less its shortcut where it has one.

    ``of_timestep_alone``: known for every step as soon as the timesteps are.
    """

    kind: Signal
    value: fx.Node
    shortcut: Afresh | None
    of_timestep_alone: bool

    @property
    def needed(self) -> tuple[fx.Node, ...]:
        """The nodes that it is computed from."""
        return (self.value, *(self.shortcut.leaves if self.shortcut else ()))


@dataclass(frozen=True, eq=False)
class CutPlan:
    """The chosen cut in one program: what is cached, and why this cut.

    ``groups``: by name, the points that a step refreshes or reuses together. ``signal``: what the
    policy observes, if anything.
    """

    cut: Cut
    groups: Mapping[str, tuple[CachePoint, ...]]
    reason: str
    signal: SignalPoint | None = None

    @property
    def points(self) -> tuple[CachePoint, ...]:
        """All cache points, group by group."""
        return tuple(point for points in self.groups.values() for point in points)

    @property
    def named_points(self) -> dict[str, CachePoint]:
        """All cache points in order, by ``{group}.{number in it}``."""
        return {
            f"{group}.{i}": point
            for group, points in self.groups.items()
            for i, point in enumerate(points)
        }

    def numbers(self, names: Set[str]) -> tuple[int, ...]:
        """The numbers, among all, of the points in the groups of these names."""
        groups = (name for name, points in self.groups.items() for _ in points)
        return tuple(i for i, name in enumerate(groups) if name in names)
