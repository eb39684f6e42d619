"""Computes the FLOPs of both variants of a model for each block, from its captured graph."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from torch import fx

from bench.planning import model_and_call
from fxcache.capture.capture import capture
from fxcache.partition.choose import choose
from fxcache.partition.cut import Cut
from fxcache.partition.frontier import Frontier
from fxcache.partition.request import AUTO
from fxcache.program import module_paths
from fxcache.signature import Signature


@dataclass(frozen=True)
class Part:
    """A part of a model.

    Attributes:
        name: The name in the picture.
        share: The share of the full variant's FLOPs in this part, 0 to 1.
        reused: The share of the full variant's FLOPs that a reuse step computes in this part.
    """

    name: str
    share: float
    reused: float


@dataclass(frozen=True)
class CutModel:
    """A model with its cut, and its parts in the order in which they run."""

    name: str
    cut: Cut
    parts: tuple[Part, ...]

    @property
    def summary(self) -> str:
        """The FLOPs of both variants, and the size of the cache."""
        full, reuse = self.cut.full_flops / 1e9, self.cut.reuse_flops / 1e9
        cached = self.cut.cache_bytes / 2**20
        percent = f"{reuse / full:.1%}" if reuse / full >= 0.001 else "less than 0.1%"
        return (
            f"full: {full:,.0f} GFLOPs; cached-skip: {reuse:,.0f} GFLOPs "
            f"({percent} of these); cached: {cached:.0f} MiB in float32"
        )


def cut_model(name: str, part_of: Callable[[str], str]) -> CutModel:
    """Capture and cut a model on meta. ``part_of`` returns the part of a module path."""
    model, inputs = model_and_call(name)
    signature = Signature(type(model))
    frontier = Frontier(capture(model, signature, signature.call((), inputs)))
    plan = choose(frontier, AUTO)
    live = set(frontier.live(plan.points))
    shares: dict[str, float] = defaultdict(float)
    reused: dict[str, float] = defaultdict(float)
    for node in frontier.program.graph.nodes:
        if node not in frontier.costs.nodes:
            continue
        share = frontier.costs.total([node]) / frontier.full_flops
        part = part_of(innermost(node))
        shares[part] += share
        reused[part] += share * (node in live)
    return CutModel(name, plan.cut, tuple(Part(n, s, reused[n]) for n, s in shares.items()))


def innermost(node: fx.Node) -> str:
    """Return the path of the innermost module in which the node was traced."""
    paths = module_paths(node)
    return paths[-1] if paths else ""


def layer_of_unet(path: str) -> str:
    """Return the layer of a U-Net: a residual block with its attention, or a resampler."""
    first, *rest = path.split(".")
    if first in ("down_blocks", "up_blocks"):
        block, kind, number = rest[:3]
        side = first.removesuffix("_blocks")
        if kind == "downsamplers":
            return f"{side} {block}, downsampler"
        # The upsampler belongs to the layer before it: no skip connection ends in between.
        layer = "2" if kind == "upsamplers" else number
        return f"{side} {block}, layer {layer}"
    return {"mid_block": "middle", "time_embedding": "timestep"}.get(first, first)


def block_of_transformer(path: str) -> str:
    """Return the numbered block of a transformer, or the module outside of the blocks."""
    first, *rest = path.split(".")
    return f"{first}.{rest[0]}" if first.endswith("blocks") else first


def stable_diffusion() -> CutModel:
    """Return Stable Diffusion 1.5, cut at the outermost skip connection."""
    return cut_model("Stable Diffusion 1.5, 512×512", layer_of_unet)


def flux() -> CutModel:
    """Return FLUX.1, cut along the stream of the image."""
    return cut_model("FLUX.1, 1024×1024", block_of_transformer)
