"""From what the user asked for to one cut plan, with the reason."""

from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from typing import Literal

from torch import fx

from fxcache.errors import ConfigError, CutError
from fxcache.partition.cut import SPAN, CachePoint, Cut, CutPlan
from fxcache.partition.frontier import ENOUGH, Frontier, Points
from fxcache.partition.partial import partially_evaluated_groups
from fxcache.partition.points import groups_of
from fxcache.partition.signals import find
from fxcache.policies import Caches, Policy

One = int | str | tuple[str, str] | Cut
CutRequest = One | list[One]
Choice = tuple[Cut, Points, str]
Nodes = tuple[fx.Node, ...]
AUTO: Literal["auto"] = "auto"


def require_cut_request(cut: object) -> CutRequest:
    """``cut`` if it is of a kind that ``choose`` takes; ConfigError otherwise."""
    if isinstance(cut, list) and cut:
        return [require_cut_request(one) for one in cut]  # type: ignore[misc]
    if isinstance(cut, int | str | Cut) and not isinstance(cut, bool):
        return cut
    if isinstance(cut, tuple) and len(cut) == 2 and all(isinstance(end, str) for end in cut):
        return cut
    raise ConfigError(
        f"cut={cut!r} is a {type(cut).__name__}",
        where="optimize(cut=...)",
        remedy="pass a skip index, a module path, a pair of module paths (the first and the last "
        'to skip), a Cut from list_cuts(), a list of those, or "auto"',
    )


def choose(
    frontier: Frontier,
    request: CutRequest,
    policy: Policy | None = None,
    partial_evaluation: bool = False,
) -> CutPlan:
    """The plan for ``request``, with what ``policy`` observes.

    ``partial_evaluation``: what is computed from cached values alone is computed when they are.

    ``"auto"`` takes what the policy caches: the attention blocks or layers of Block Caching and the
    like, one by one; for all others one cut, see ``automatic``. Each cut of a list is refreshed or
    reused by itself.

    Raises CutError if there is no such cut, it saves nothing, or the latent would not reach the
    output past it; ConfigError if the policy was calibrated for other cache points.
    """
    observes = policy.observes if policy else None
    signal = find(frontier, observes.signals) if observes else None
    observed = signal.needed if signal else ()
    if request == AUTO and policy and policy.caches is not Caches.CUT:
        groups, reason = groups_of(frontier, policy.caches), f"{policy.caches.value}, one by one"
    else:
        requests = request if isinstance(request, list) else [request]
        chosen = [requested(frontier, one, observed) for one in requests]
        groups = {cut.name: points for cut, points, _ in chosen}
        reason = "; ".join(reason for *_, reason in chosen)
    points = tuple(point for held in groups.values() for point in held)
    cut = frontier.price(points, few(groups), observed)
    if partial_evaluation:
        whole = cut
        groups = partially_evaluated_groups(frontier, groups)
        points = tuple(point for held in groups.values() for point in held)
        cut = replace(frontier.price(points, cut.name, observed), skip_index=cut.skip_index)
        saved = 1 - cut.reuse_flops / whole.reuse_flops
        reason += f"; partial evaluation saves {saved:.1%} of a reuse step's FLOPs"
    require_usable(frontier, cut, points, observed)
    require_points(policy, groups)
    return CutPlan(cut, groups, reason, signal)


def requested(frontier: Frontier, request: One, observed: Nodes) -> Choice:
    """One cut, what it caches, and why it was chosen."""
    if request == AUTO:
        return automatic(frontier, observed)
    if isinstance(request, int):
        return by_index(frontier, request)
    name = request.name if isinstance(request, Cut) else request
    if isinstance(name, str):
        first, spans, last = name.partition(SPAN)
        if not spans:
            return by_path(frontier, name)
        name = (first, last)
    return by_span(frontier, *name)


def require_points(policy: Policy | None, groups: Iterable[str]) -> None:
    """ConfigError unless ``policy`` decides about these groups of cache points."""
    calibrated, found = policy.points if policy else None, frozenset(groups)
    if calibrated is None or calibrated == found:
        return
    raise ConfigError(
        f"{type(policy).__name__} was calibrated for other cache points: not for "
        f"{few(sorted(found - calibrated))}, but for {few(sorted(calibrated - found))}",
        where="optimize(policy=...)",
        remedy="calibrate the policy for this model: fxcache calibrate",
    )


def few(names: Iterable[str]) -> str:
    """A few of ``names``."""
    ordered = list(names)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return ", ".join(ordered[:3]) + more or "none"


def require_usable(frontier: Frontier, cut: Cut, points: Points, observed: Nodes) -> None:
    """CutError unless the latent reaches the output past ``points``, and work is saved.

    What is observed must not depend on what is cached: it would tell of the past.
    """
    if not set(frontier.program.latents) & set(frontier.live(points)):
        raise CutError(
            f"past {cut.name} no output of {frontier.program.model} depends on the latent: "
            "a reuse step would return what the last refresh returned",
            where=f"cut={cut.name!r}",
            remedy=f"choose a value that a skip connection bypasses, or a pair of modules between "
            f"which to cache the difference: {offered(frontier)}",
        )
    if any(frontier.needs.needs(node, point.value) for node in observed for point in points):
        raise CutError(
            f"{cut.name} is cached, and the policy observes what is computed from it",
            where=f"cut={cut.name!r}",
            remedy=f"choose a later cut: {offered(frontier)}",
        )
    if cut.reuse_flops >= cut.full_flops:
        raise CutError(
            f"caching {cut.name} saves nothing: a reuse step needs all {cut.full_flops:,} FLOPs",
            where=f"cut={cut.name!r}",
            remedy=f"choose a later value: {offered(frontier)}",
        )


def automatic(frontier: Frontier, observed: Nodes) -> Choice:
    """The skip connection whose cut saves the most FLOPs, of equal ones the one with fewest bytes.

    In U-Nets that is the outermost, as in DeepCache's own experiments. Where none saves half, the
    longest run of blocks that streams pass through, as TeaCache does. What a policy observes is
    computed at every step: if that takes blocks of a stream, the run begins behind them.
    """
    skips: list[tuple[Cut, Points]] = [
        (frontier.feature(value), (CachePoint(value),)) for value in frontier.skips
    ]
    by_cost = partial(expense, frontier, observed)
    best = min(skips, key=by_cost, default=None)
    if best is None or best[0].share_saved < ENOUGH:
        first = 2 if observed else 1  # the first block itself may be what is observed
        starts = [block for stack in frontier.stacks for block in stack.blocks[:first]]
        spans = [(frontier.price(p, name), p) for name, p in frontier.spans(starts).items()]
        best = min(skips + spans, key=by_cost, default=None)
    if best is None:
        raise CutError(
            f"{frontier.program.model} has neither a skip connection that bypasses work nor "
            "repeated blocks that add to a stream",
            where='cut="auto"',
            remedy="pass cut= with the path of a module whose output can be cached, or with a "
            "pair of paths: the first and the last module to skip",
        )
    kind = "streams" if best[0].mode == "residual" else "skip connections"
    return *best, f"saves the most FLOPs of all {kind}"


def expense(
    frontier: Frontier, observed: Nodes, candidate: tuple[Cut, Points]
) -> tuple[bool, int, int]:
    """What to minimise: work on a stream only to observe it, FLOPs of a reuse step, bytes."""
    cut, points = candidate
    if not observed:
        return False, cut.reuse_flops, cut.cache_bytes
    used, all_computed = set(frontier.live(points)), frontier.live(points, observed)
    unused = (n for n in all_computed if n in frontier.costs.nodes and n not in used)
    wasted = cut.mode == "residual" and any(map(frontier.needs.on_latent, unused))
    return wasted, frontier.costs.total(all_computed), cut.cache_bytes


def by_index(frontier: Frontier, index: int) -> Choice:
    if not 0 <= index < len(frontier.skips):
        raise CutError(
            f"{frontier.program.model} has no skip index {index}",
            where=f"cut={index}",
            remedy=f"choose one of: {offered(frontier)}",
        )
    value = frontier.skips[index]
    reason = f"skip index {index} was asked for"
    return frontier.feature(value), (CachePoint(value),), reason


def by_path(frontier: Frontier, name: str) -> Choice:
    named = frontier.named_values
    if name in named:
        value = named[name]
        reason = f"{name} was asked for"
        return frontier.feature(value), (CachePoint(value),), reason
    several = frontier.module_outputs.get(name, [])
    raise CutError(
        f"{name} has {len(several)} outputs that change with the latent; a cut is one tensor"
        if several
        else f"{frontier.program.model} has no module named {name!r} with an output to cache",
        where=f"cut={name!r}",
        remedy=f"choose one of: {nearby(name, frontier)}",
    )


def by_span(frontier: Frontier, first: str, last: str) -> Choice:
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
    return cut, points, f"{first} to {last} was asked for"


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
