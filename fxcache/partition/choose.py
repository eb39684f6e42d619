"""From what the user asked for to one cut plan, with the reason."""

from difflib import get_close_matches
from typing import Literal

from torch import fx

from fxcache.errors import ConfigError, CutError
from fxcache.partition.cut import Cut, CutPlan
from fxcache.partition.frontier import Frontier

CutRequest = int | str | Cut
AUTO: Literal["auto"] = "auto"


def require_cut_request(cut: object) -> CutRequest:
    """``cut`` if it is of a kind that ``choose`` takes; ConfigError otherwise."""
    if isinstance(cut, bool) or not isinstance(cut, int | str | Cut):
        raise ConfigError(
            f"cut={cut!r} is a {type(cut).__name__}",
            where="optimize(cut=...)",
            remedy='pass a skip index, a module path, a Cut from frontier(), or "auto"',
        )
    return cut


def choose(frontier: Frontier, request: CutRequest) -> CutPlan:
    """The plan for ``request``.

    ``"auto"`` takes the skip connection whose cut saves the most FLOPs, of equal ones the one
    that caches fewest bytes: in U-Nets the outermost, as DeepCache's own experiments do.

    Raises CutError if there is no such cut, it saves nothing, or the latent would not reach the
    output past it.
    """
    if request == AUTO:
        value, reason = automatic(frontier), "saves the most FLOPs of all skip connections"
    elif isinstance(request, int):
        value, reason = by_index(frontier, request), f"skip index {request} was asked for"
    else:
        name = request.name if isinstance(request, Cut) else request
        value, reason = by_name(frontier, name), f"{name} was asked for"
    return plan(frontier, value, reason)


def plan(frontier: Frontier, value: fx.Node, reason: str) -> CutPlan:
    """The checked plan that caches ``value``."""
    cut = frontier.price(value)
    if frontier.program.latent not in frontier.live(value):
        raise CutError(
            f"past {cut.name} no output of {frontier.program.model} depends on the latent: "
            "a reuse step would return what the last refresh returned",
            where=f"cut={cut.name!r}",
            remedy=f"choose a value that a skip connection bypasses: {offered(frontier)}",
        )
    if cut.reuse_flops >= cut.full_flops:
        raise CutError(
            f"caching {cut.name} saves nothing: a reuse step needs all {cut.full_flops:,} FLOPs",
            where=f"cut={cut.name!r}",
            remedy=f"choose a later value: {offered(frontier)}",
        )
    return CutPlan(cut, (value,), reason)


def automatic(frontier: Frontier) -> fx.Node:
    if not frontier.skips:
        raise CutError(
            f"{frontier.program.model} has no skip connection that bypasses work",
            where='cut="auto"',
            remedy="pass cut= with the path of a module whose output can be cached",
        )
    prices = {value: frontier.price(value) for value in frontier.skips}
    return min(prices, key=lambda v: (prices[v].reuse_flops, prices[v].cache_bytes))


def by_index(frontier: Frontier, index: int) -> fx.Node:
    if 0 <= index < len(frontier.skips):
        return frontier.skips[index]
    raise CutError(
        f"{frontier.program.model} has no skip index {index}",
        where=f"cut={index}",
        remedy=f"choose one of: {offered(frontier)}",
    )


def by_name(frontier: Frontier, name: str) -> fx.Node:
    named = frontier.named_values
    if name in named:
        return named[name]
    several = frontier.module_outputs.get(name, [])
    what = (
        f"{name} has {len(several)} outputs that change with the latent; a cut is one tensor"
        if several
        else f"{frontier.program.model} has no module named {name!r} with an output to cache"
    )
    inside = [path for path in named if path.startswith(f"{name}.")]
    near = inside[-3:] or get_close_matches(name, named, n=3, cutoff=0.3)
    raise CutError(
        what,
        where=f"cut={name!r}",
        remedy=f"choose one of: {', '.join(near) if near else offered(frontier)}",
    )


def offered(frontier: Frontier) -> str:
    """The skip connections by index and name, for messages."""
    listed = [f"{i} ({frontier.name(v)})" for i, v in enumerate(frontier.skips)]
    return ", ".join(listed) or "a module path (this graph has no skip connections)"
