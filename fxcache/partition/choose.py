"""Turns the user's ``cut`` option into one cut plan, with the reason for the choice."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

from torch import fx

from fxcache.errors import ConfigError, CutError
from fxcache.partition.cut import CachePoint, Cut, CutPlan
from fxcache.partition.frontier import ENOUGH, Frontier, Points
from fxcache.partition.partial import partially_evaluated_groups
from fxcache.partition.points import groups_of
from fxcache.partition.request import AUTO, Choice, CutRequest, One, named_cut, offered
from fxcache.partition.signals import find
from fxcache.policies import Caches, Policy

Nodes = tuple[fx.Node, ...]


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

    A call that fills a cache object of the model, such as keys and values, has outputs that need
    every block. If ``"auto"`` finds no cut for it, the plan caches nothing: such a call runs in
    full, and calls that only read the object have a plan of their own.

    Raises:
        CutError: The cut does not exist, it saves nothing, or no output depends on the latent of a
            reuse step.
        ConfigError: The policy was calibrated for other cache points.
    """
    try:
        return saving_plan(frontier, request, policy, partial_evaluation)
    except CutError as error:
        if request != AUTO or frontier.program.state is None:
            raise
        return CutPlan(frontier.price((), "nothing"), {}, f"it fills a cache object: {error.what}")


def saving_plan(
    frontier: Frontier, request: CutRequest, policy: Policy | None, partial_evaluation: bool
) -> CutPlan:
    """Return a plan that saves FLOPs, as ``choose`` does; CutError if there is none."""
    observes = policy.observes if policy else None
    signal = find(frontier, observes.signals) if observes else None
    observed = signal.needed if signal else ()
    groups, reason = requested_groups(frontier, request, policy, observed)
    points = tuple(point for group in groups.values() for point in group)
    cut = frontier.price(points, few(groups), observed)
    if partial_evaluation:
        whole = cut
        groups = partially_evaluated_groups(frontier, groups)
        points = tuple(point for group in groups.values() for point in group)
        cut = replace(frontier.price(points, cut.name, observed), skip_index=cut.skip_index)
        saved = replace(cut, full_flops=whole.reuse_flops).share_saved
        reason += f"; partial evaluation saves {saved:.1%} of a reuse step's FLOPs"
    require_usable(frontier, cut, points, observed)
    require_points(policy, groups)
    return CutPlan(cut, groups, reason, signal)


def requested_groups(
    frontier: Frontier, request: CutRequest, policy: Policy | None, observed: Nodes
) -> tuple[Mapping[str, Points], str]:
    """The groups of cache points for a request, and the reason for the choice."""
    if request == AUTO and policy and policy.caches is not Caches.CUT:
        reason = f"the policy caches {policy.caches.value}"
        return groups_of(frontier, policy.caches), reason
    requests = request if isinstance(request, list) else [request]
    chosen = [requested(frontier, one, observed) for one in requests]
    groups = {cut.name: points for cut, points, _ in chosen}
    return groups, "; ".join(reason for *_, reason in chosen)


def requested(frontier: Frontier, request: One, observed: Nodes) -> Choice:
    """The cut for one request, its cache points, and the reason for the choice."""
    return automatic(frontier, observed) if request == AUTO else named_cut(frontier, request)


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
    if any(frontier.needs.needs(node, point.read_at) for node in observed for point in points):
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
    block of a stream at every step, the cut begins behind that block. If blocks that are modules
    do not save half either, streams of additions compete too.
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
        if best is None or best[0].share_saved < ENOUGH:
            added = frontier.spans_of_additions(first)
            spans += [(frontier.price(p, name), p) for name, p in added.items()]
            best = min(skips + spans, key=by_cost, default=None)
    if best is None:
        raise CutError(
            f"{frontier.program.model} has neither a skip connection that bypasses work nor "
            "a residual stream to which several branches are added",
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
