"""A cut: the values to cache, and the work that this saves."""

from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from torch import fx

from fxcache.policies import Signal

SPAN = ".."  # the separator of the first and the last module in a residual cut's name


@dataclass(frozen=True)
class Cut:
    """The values that a reuse step reads from the cache instead of computing them.

    All numbers are for the batch and the size that were captured.

    Attributes:
        name: The module path of the cached value, or ``first..last`` for the modules that a
            residual cut spans.
        skip_index: The index of the U-Net's skip connection at the cut, 0 for the outermost. None
            if the cut is not at a skip connection.
        mode: ``"feature"`` if the value itself is cached, ``"residual"`` if the difference between
            two points of a stream is.
        full_flops: FLOPs of the full variant, two per multiply-add.
        reuse_flops: FLOPs of the cached-skip variant, two per multiply-add.
        reuse_flops_by_op: ``reuse_flops`` by kind: ``"conv"``, ``"linear"``, ``"attention"`` and
            ``"other"``.
        cache_bytes: Bytes that are cached between steps, in the dtype of the capture.
        cached_tensors: The number of cached tensors.
        blocks_skipped: The number of numbered blocks that a reuse step skips entirely.
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
        return 1 - self.reuse_flops / self.full_flops if self.full_flops else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Describe the cut as JSON can hold it: all attributes, and ``share_saved``."""
        return asdict(self) | {"share_saved": round(self.share_saved, 6)}


class Recomputation(Protocol):
    """The computation of a shortcut, to which a reuse step adds the cached difference."""

    @property
    def end(self) -> fx.Node:
        """The value that the computation leads to."""

    @property
    def leaves(self) -> tuple[fx.Node, ...]:
        """The values that the computation reads."""

    @property
    def flops(self) -> Mapping[str, int]:
        """FLOPs by kind."""

    def insert(self, graph: fx.Graph, copied: Mapping[fx.Node, fx.Node]) -> fx.Node:
        """Insert the computation of this part into ``graph`` at its insertion point.

        Args:
            graph: The graph of a variant.
            copied: The node in ``graph`` for each of the leaves.
        """


@dataclass(frozen=True, eq=False)
class CachePoint:
    """One cached value.

    Attributes:
        value: The value that a reuse step does not compute.
        shortcut: None to cache the value itself. Otherwise the difference from the shortcut is
            cached; a reuse step computes the shortcut and adds the cached difference.
        start: An earlier iterate of an iteration that ends with ``value``. A reuse step begins
            there with the cached value, and caches the value that it computes. None if the value
            is no iterate.
    """

    value: fx.Node
    shortcut: Recomputation | None = None
    start: fx.Node | None = None

    @property
    def read_at(self) -> fx.Node:
        """The node that a reuse step replaces with the cached value."""
        return self.value if self.start is None else self.start

    @property
    def along_stream(self) -> bool:
        """Whether the shortcut follows a stream, and was not chosen for its shape alone."""
        return self.shortcut is not None and self.shortcut.end is self.value

    @property
    def needed(self) -> tuple[fx.Node, ...]:
        """The nodes that a reuse step must compute to replace the value."""
        return self.shortcut.leaves if self.shortcut else ()

    @property
    def flops(self) -> Mapping[str, int]:
        """FLOPs of the shortcut by kind. Reuse steps and refresh steps both compute it."""
        return self.shortcut.flops if self.shortcut else {}


@dataclass(frozen=True, eq=False)
class SignalPoint:
    """A value that a policy observes.

    Attributes:
        kind: The kind of signal.
        value: The node whose value is observed.
        shortcut: Subtracted from the value before it is observed; None to observe the value.
        of_timestep_alone: Whether the value depends on no other input than the timestep. Then it
            can be computed for all steps as soon as their timesteps are known.
    """

    kind: Signal
    value: fx.Node
    shortcut: Recomputation | None
    of_timestep_alone: bool

    @property
    def needed(self) -> tuple[fx.Node, ...]:
        """The nodes that the observed value is computed from."""
        return (self.value, *(self.shortcut.leaves if self.shortcut else ()))


@dataclass(frozen=True, eq=False)
class CutPlan:
    """The chosen cut of one program.

    Attributes:
        cut: The cut with its costs.
        groups: The cache points by the name of their group. A step refreshes or reuses all points
            of a group together.
        reason: Why this cut was chosen.
        signal: The value that the policy observes; None if it observes none.
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
        """All cache points in order, by ``{group}.{index in the group}``."""
        return {
            f"{group}.{i}": point
            for group, points in self.groups.items()
            for i, point in enumerate(points)
        }

    def may_write_in_place(self, reused: Set[str]) -> bool:
        """Return whether a step that reuses these groups writes values, and reads none of them."""
        read = [self.points[number] for number in self.numbers(reused)]
        return len(read) < len(self.points) and all(point.start is None for point in read)

    def numbers(self, names: Set[str]) -> tuple[int, ...]:
        """Return the indices in ``points`` of the cache points in the groups of these names."""
        groups = (name for name, points in self.groups.items() for _ in points)
        return tuple(i for i, name in enumerate(groups) if name in names)
