"""A cut: which value is cached, and what that saves."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import fx


@dataclass(frozen=True)
class Cut:
    """A value that a reuse step takes from the cache instead of computing it.

    ``name``: module path of the value. ``skip_index``: number of the U-Net skip connection that
    the value meets, 0 at the outermost (None elsewhere). ``mode``: ``"feature"``, the value
    itself. ``full_flops`` and ``reuse_flops``: FLOPs of the two variants, two per multiply-add;
    ``reuse_flops_by_op`` splits the latter into conv, linear, attention and other.
    ``cache_bytes``: what is kept between steps, for the captured batch and size.
    """

    name: str
    skip_index: int | None
    mode: Literal["feature"]
    full_flops: int
    reuse_flops: int
    reuse_flops_by_op: dict[str, int]
    cache_bytes: int

    @property
    def share_saved(self) -> float:
        """Share of the full variant's FLOPs that a reuse step does not do, 0 to 1."""
        return 1 - self.reuse_flops / self.full_flops

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"share_saved": round(self.share_saved, 6)}


@dataclass(frozen=True)
class CutPlan:
    """The chosen cut in one program: the nodes whose values are cached, and why this cut."""

    cut: Cut
    values: tuple[fx.Node, ...]
    reason: str
