"""From what the user asked for to one cut plan, with the reason."""

from difflib import get_close_matches
from typing import Literal

from fxcache.errors import ConfigError, CutError
from fxcache.partition.cut import SPAN, CachePoint, Cut, CutPlan
from fxcache.partition.frontier import ENOUGH, Frontier, Points

CutRequest = int | str | tuple[str, str] | Cut
AUTO: Literal["auto"] = "auto"


def require_cut_request(cut: object) -> CutRequest:
    """``cut`` if it is of a kind that ``choose`` takes; ConfigError otherwise."""
    if isinstance(cut, int | str | Cut) and not isinstance(cut, bool):
        return cut
    if isinstance(cut, tuple) and len(cut) == 2 and all(isinstance(end, str) for end in cut):
        return cut
    raise ConfigError(
        f"cut={cut!r} is a {type(cut).__name__}",
        where="optimize(cut=...)",
        remedy="pass a skip index, a module path, a pair of module paths (the first and the last "
        'to skip), a Cut from frontier(), or "auto"',
    )


def choose(frontier: Frontier, request: CutRequest) -> CutPlan:
    """The plan for ``request``.

    ``"auto"`` takes the skip connection whose cut saves the most FLOPs, of equal ones the one
    that caches fewest bytes: in U-Nets the outermost, as DeepCache's own experiments do. Where
    none saves half, it takes the longest run of blocks that streams pass through, as TeaCache does.

    Raises CutError if there is no such cut, it saves nothing, or the latent would not reach the
    output past it.
    """
    if request == AUTO:
        return automatic(frontier)
    if isinstance(request, int):
        return by_index(frontier, request)
    name = request.name if isinstance(request, Cut) else request
    if isinstance(name, str):
        first, spans, last = name.partition(SPAN)
        if not spans:
            return by_path(frontier, name)
        name = (first, last)
    return by_span(frontier, *name)


def checked(frontier: Frontier, cut: Cut, points: Points, reason: str) -> CutPlan:
    """The plan that caches ``points``, if it can be used."""
    if not set(frontier.program.latents) & set(frontier.live(points)):
        raise CutError(
            f"past {cut.name} no output of {frontier.program.model} depends on the latent: "
            "a reuse step would return what the last refresh returned",
            where=f"cut={cut.name!r}",
            remedy=f"choose a value that a skip connection bypasses, or a pair of modules between "
            f"which to cache the difference: {offered(frontier)}",
        )
    if cut.reuse_flops >= cut.full_flops:
        raise CutError(
            f"caching {cut.name} saves nothing: a reuse step needs all {cut.full_flops:,} FLOPs",
            where=f"cut={cut.name!r}",
            remedy=f"choose a later value: {offered(frontier)}",
        )
    return CutPlan(cut, points, reason)


def automatic(frontier: Frontier) -> CutPlan:
    skips: list[tuple[Cut, Points]] = [
        (frontier.feature(value), (CachePoint(value),)) for value in frontier.skips
    ]
    best = min(skips, key=cheapest, default=None)
    if best is None or best[0].share_saved < ENOUGH:
        starts = [stack.blocks[0] for stack in frontier.stacks]
        spans = [(frontier.price(p, name), p) for name, p in frontier.spans(starts).items()]
        best = min(skips + spans, key=cheapest, default=None)
    if best is None:
        raise CutError(
            f"{frontier.program.model} has neither a skip connection that bypasses work nor "
            "repeated blocks that add to a stream",
            where='cut="auto"',
            remedy="pass cut= with the path of a module whose output can be cached, or with a "
            "pair of paths: the first and the last module to skip",
        )
    kind = "streams" if best[0].mode == "residual" else "skip connections"
    return checked(frontier, *best, f"saves the most FLOPs of all {kind}")


def cheapest(candidate: tuple[Cut, Points]) -> tuple[int, int]:
    cut, _ = candidate
    return cut.reuse_flops, cut.cache_bytes


def by_index(frontier: Frontier, index: int) -> CutPlan:
    if not 0 <= index < len(frontier.skips):
        raise CutError(
            f"{frontier.program.model} has no skip index {index}",
            where=f"cut={index}",
            remedy=f"choose one of: {offered(frontier)}",
        )
    value = frontier.skips[index]
    reason = f"skip index {index} was asked for"
    return checked(frontier, frontier.feature(value), (CachePoint(value),), reason)


def by_path(frontier: Frontier, name: str) -> CutPlan:
    named = frontier.named_values
    if name in named:
        value = named[name]
        reason = f"{name} was asked for"
        return checked(frontier, frontier.feature(value), (CachePoint(value),), reason)
    several = frontier.module_outputs.get(name, [])
    raise CutError(
        f"{name} has {len(several)} outputs that change with the latent; a cut is one tensor"
        if several
        else f"{frontier.program.model} has no module named {name!r} with an output to cache",
        where=f"cut={name!r}",
        remedy=f"choose one of: {nearby(name, frontier)}",
    )


def by_span(frontier: Frontier, first: str, last: str) -> CutPlan:
    name = f"{first}{SPAN}{last}"
    for path in (first, last):
        if path not in frontier.modules:
            raise CutError(
                f"{frontier.program.model} has no module named {path!r} that computes anything",
                where=f"cut={name!r}",
                remedy=f"choose one of: {nearby(path, frontier)}",
            )
    points = frontier.span(first, last)
    if not points:
        raise CutError(
            f"{last} computes nothing from what {first} does with the latent",
            where=f"cut={name!r}",
            remedy="name the first module to skip, then the last, in the order in which they run",
        )
    cut = frontier.price(points, name)
    return checked(frontier, cut, points, f"{first} to {last} was asked for")


def nearby(name: str, frontier: Frontier) -> str:
    """Names like ``name``, for messages."""
    inside = [path for path in frontier.named_values if path.startswith(f"{name}.")]
    near = inside[-3:] or get_close_matches(name, frontier.modules, n=3, cutoff=0.3)
    return ", ".join(near) if near else offered(frontier)


def offered(frontier: Frontier) -> str:
    """The skip connections by index and name, and the stacks of blocks, for messages."""
    listed = [f"{i} ({frontier.name(v)})" for i, v in enumerate(frontier.skips)]
    if not listed:
        ends = ((s.blocks[0], s.blocks[-1]) for s in frontier.stacks)
        listed = [f"({first!r}, {last!r})" for first, last in ends]
    return ", ".join(listed) or "a module path (there are no skip connections or repeated blocks)"
