"""Turns the user's ``cut`` option into one cut plan, with the reason for the choice."""

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
    """Check the type of the option ``cut``.

    Raises:
        ConfigError: ``choose`` accepts no value of this type.
    """
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
    """Choose the cut plan for a request.

    A policy with many cache points, such as Block Caching, names the kind of blocks or layers that
    ``"auto"`` caches. For every other policy, ``"auto"`` is one cut (see ``automatic``).

    Args:
        frontier: The possible cuts of the program.
        request: The option ``cut``. Each cut of a list is refreshed or reused on its own.
        policy: The policy that will decide about the plan.
        partial_evaluation: Whether to move cuts behind linear maps of the cached values, so that a
            reuse step does not compute these maps of cached values again.

    Raises:
        CutError: The cut does not exist, it saves nothing, or no output depends on the latent of a
            reuse step.
        ConfigError: The policy was calibrated for other cache points.
    """
    observes = policy.observes if policy else None
    signal = find(frontier, observes.signals) if observes else None
    observed = signal.needed if signal else ()
    if request == AUTO and policy and policy.caches is not Caches.CUT:
        groups = groups_of(frontier, policy.caches)
        reason = f"the policy caches {policy.caches.value}"
    else:
        requests = request if isinstance(request, list) else [request]
        chosen = [requested(frontier, one, observed) for one in requests]
        groups = {cut.name: points for cut, points, _ in chosen}
        reason = "; ".join(reason for *_, reason in chosen)
    points = tuple(point for group in groups.values() for point in group)
    cut = frontier.price(points, few(groups), observed)
    if partial_evaluation:
        whole = cut
        groups = partially_evaluated_groups(frontier, groups)
        points = tuple(point for group in groups.values() for point in group)
        cut = replace(frontier.price(points, cut.name, observed), skip_index=cut.skip_index)
        saved = 1 - cut.reuse_flops / whole.reuse_flops
        reason += f"; partial evaluation saves {saved:.1%} of a reuse step's FLOPs"
    require_usable(frontier, cut, points, observed)
    require_points(policy, groups)
    return CutPlan(cut, groups, reason, signal)


def requested(frontier: Frontier, request: One, observed: Nodes) -> Choice:
    """The cut for one request, its cache points, and the reason for the choice."""
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
    """Raise ConfigError unless the policy was calibrated for these groups of cache points."""
    calibrated, actual = policy.points if policy else None, frozenset(groups)
    if calibrated is None or calibrated == actual:
        return
    raise ConfigError(
        f"{type(policy).__name__} was calibrated for other cache points: not for "
        f"{few(sorted(actual - calibrated))}, but for {few(sorted(calibrated - actual))}",
        where="optimize(policy=...)",
        remedy="calibrate the policy for this model: fxcache calibrate",
    )


def few(names: Iterable[str]) -> str:
    """The first three of ``names``, and the number of the others, for messages."""
    ordered = list(names)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return ", ".join(ordered[:3]) + more or "none"


def require_usable(frontier: Frontier, cut: Cut, points: Points, observed: Nodes) -> None:
    """Raise CutError if a plan cannot work.

    A plan works if an output of a reuse step depends on the latent, and if a reuse step saves
    FLOPs. The observed values must not depend on cached values, which belong to an earlier step.
    """
    if not set(frontier.program.latents) & set(frontier.live(points)):
        raise CutError(
            f"with {cut.name} cached, no output of {frontier.program.model} depends on the latent: "
            "every reuse step would return the result of the last refresh",
            where=f"cut={cut.name!r}",
            remedy=f"choose a value that a skip connection bypasses, or a pair of modules whose "
            f"residual to cache: {offered(frontier)}",
        )
    if any(frontier.needs.needs(node, point.value) for node in observed for point in points):
        raise CutError(
            f"{cut.name} is cached, but the policy observes a value that is computed from it",
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
    """Choose the cut that saves the most FLOPs; of equal ones, the one with the fewest bytes.

    Cuts at skip connections come first. In a U-Net the best one is the outermost, as in the
    experiments of DeepCache. If none of them saves half of the FLOPs, cuts along streams compete
    too, and the longest run of blocks wins, as in TeaCache. If the observed values need the first
    block of a stream at every step, the cut begins behind that block.
    """
    skips: list[tuple[Cut, Points]] = [
        (frontier.feature(value), (CachePoint(value),)) for value in frontier.skips
    ]
    by_cost = partial(expense, frontier, observed)
    best = min(skips, key=by_cost, default=None)
    if best is None or best[0].share_saved < ENOUGH:
        first = 2 if observed else 1  # the policy may observe the first block itself
        starts = [block for stack in frontier.stacks for block in stack.blocks[:first]]
        spans = [(frontier.price(p, name), p) for name, p in frontier.spans(starts).items()]
        best = min(skips + spans, key=by_cost, default=None)
    if best is None:
        raise CutError(
            f"{frontier.program.model} has neither a skip connection that bypasses work nor "
            "repeated blocks that add to a residual stream",
            where='cut="auto"',
            remedy="pass cut= with the path of a module whose output can be cached, or with a "
            "pair of paths: the first and the last module to skip",
        )
    kind = "streams" if best[0].mode == "residual" else "skip connections"
    return *best, f"saves the most FLOPs of all {kind}"


def expense(
    frontier: Frontier, observed: Nodes, candidate: tuple[Cut, Points]
) -> tuple[bool, int, int]:
    """The sort key of a candidate: wasted stream work, FLOPs of a reuse step, bytes of the cache.

    Stream work is wasted if a reuse step computes it only for the observed values.
    """
    cut, points = candidate
    if not observed:
        return False, cut.reuse_flops, cut.cache_bytes
    used, all_computed = set(frontier.live(points)), frontier.live(points, observed)
    unused = (n for n in all_computed if n in frontier.costs.nodes and n not in used)
    wasted = cut.mode == "residual" and any(map(frontier.needs.on_latent, unused))
    return wasted, frontier.costs.total(all_computed), cut.cache_bytes


def by_index(frontier: Frontier, index: int) -> Choice:
    """The cut at the skip connection with this index."""
    if not 0 <= index < len(frontier.skips):
        raise CutError(
            f"{frontier.program.model} has no skip index {index}",
            where=f"cut={index}",
            remedy=f"choose one of: {offered(frontier)}",
        )
    value = frontier.skips[index]
    reason = f"skip index {index} was requested"
    return frontier.feature(value), (CachePoint(value),), reason


def by_path(frontier: Frontier, name: str) -> Choice:
    """The cut that caches the output of the module at this path."""
    named = frontier.named_values
    if name in named:
        value = named[name]
        reason = f"{name} was requested"
        return frontier.feature(value), (CachePoint(value),), reason
    several = frontier.module_outputs.get(name, [])
    raise CutError(
        f"{name} has {len(several)} outputs that depend on the latent; a cut caches one tensor"
        if several
        else f"{frontier.program.model} has no module named {name!r} with an output to cache",
        where=f"cut={name!r}",
        remedy=f"choose one of: {nearby(name, frontier)}",
    )


def by_span(frontier: Frontier, first: str, last: str) -> Choice:
    """The residual cut that skips all modules from ``first`` to ``last``."""
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
            f"{last} computes nothing from the values of {first} that depend on the latent",
            where=f"cut={name!r}",
            remedy="name the first module to skip, then the last, in the order in which they run",
        )
    cut = frontier.price(points, name)
    return cut, points, f"{first} to {last} was requested"


def nearby(name: str, frontier: Frontier) -> str:
    """Paths that resemble ``name``, for messages."""
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
