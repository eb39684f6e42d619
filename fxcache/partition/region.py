"""Residual cuts: the cache points that let a reuse step skip a region between two modules."""

import operator
from collections.abc import Iterable, Set

from torch import fx

from fxcache.analysis.cost import op_name
from fxcache.analysis.dependence import Dependence
from fxcache.analysis.streams import ADDS, Shortcut, Streams, same_kind
from fxcache.partition.cut import CachePoint
from fxcache.program import is_tensor, nbytes_of, value_of

# An exit of the region moves through these to a smaller value, such as the image part of a stream.
NARROWING = frozenset({"slice", "narrow", "select", "view", "reshape", "squeeze", "unsqueeze"})


def cache_points(
    needs: Dependence, first: list[fx.Node], last: list[fx.Node]
) -> tuple[CachePoint, ...]:
    """Return the cache points that replace the region from module ``first`` to module ``last``.

    The region is the set of nodes that depend on the latent in ``first`` and that ``last`` needs.
    Each value of the region that a node outside reads is a cache point. There may be several, such
    as one for the image stream and one for the text stream.

    Args:
        needs: The dependences of the program.
        first: The nodes of the first module.
        last: The nodes of the last module.

    Returns:
        The cache points; empty if ``last`` does not come after ``first``.
    """
    region = region_between(needs, first, last)
    ends = [narrowed(value) for value in exits(region, needs)]
    region |= needs.mask(node for end in ends for node in end)
    streams = Streams(needs, region)
    entries = entries_of(streams.inside, needs)
    points = {}
    for *_, value in ends:
        shortcut = streams.shortcut(value) or only_like(value, entries)
        if shortcut is None or not shortcut.exact:  # an exact shortcut needs no cache
            points[value] = CachePoint(value, shortcut)
    return tuple(points.values())


def region_between(needs: Dependence, first: list[fx.Node], last: list[fx.Node]) -> int:
    """Mask of the nodes that depend on the latent in ``first`` and that ``last`` needs."""
    started = [n for n in first if needs.on_latent(n)]
    region = needs.between(started, [n for n in last if needs.on_latent(n)])
    return region | needs.mask(additions_after(set(needs.members(region)), needs))


def streams_between(needs: Dependence, first: list[fx.Node], last: list[fx.Node]) -> Streams:
    """Return the streams through the region from ``first`` to ``last``."""
    return Streams(needs, region_between(needs, first, last))


def additions_after(inside: set[fx.Node], needs: Dependence) -> set[fx.Node]:
    """Return the residual additions after a region, if the parent of the blocks makes them."""
    entries, grown = set(entries_of(inside, needs)), set(inside)
    for node in needs.nodes:
        sources = {n for n in node.all_input_nodes if needs.on_latent(n)}
        if (
            op_name(node) in ADDS
            and sources & grown
            and all(n in grown or n in entries for n in sources)
        ):
            grown.add(node)
    return grown - inside


def exits(region: int, needs: Dependence) -> list[fx.Node]:
    """Return the tensors of a region that nodes outside it read, in graph order."""
    nodes = needs.members(region)
    inside = set(nodes)
    tensors: dict[fx.Node, None] = {}
    for node in nodes:
        if any(user not in inside for user in node.users):
            tensors |= dict.fromkeys([node] if is_tensor(node) else tensors_of(node))
    return list(tensors)


def tensors_of(node: fx.Node) -> Iterable[fx.Node]:
    """Return the ``getitem`` nodes of a node that yields several tensors."""
    return [user for user in node.users if user.target is operator.getitem]


def narrowed(value: fx.Node) -> list[fx.Node]:
    """The nodes from ``value`` to the smallest part of it, if only that part is read later."""
    chain = best = [value]
    while len(chain[-1].users) == 1:
        (user,) = chain[-1].users
        if op_name(user) not in NARROWING:
            break
        chain = [*chain, user]
        if nbytes_of(user) < nbytes_of(best[-1]):
            best = chain
    return best


def entries_of(inside: Set[fx.Node], needs: Dependence) -> list[fx.Node]:
    """Return the values outside a region that it reads and that depend on the latent."""
    sources = dict.fromkeys(s for node in inside for s in node.all_input_nodes)
    return [s for s in sources if s not in inside and needs.on_latent(s)]


def only_like(value: fx.Node, entries: list[fx.Node]) -> Shortcut | None:
    """The only entry with the shape and dtype of ``value``, as its shortcut; None if not unique.

    This is for blocks that do more to their stream than add to it. Their difference from the entry
    still changes less between steps than the value itself.
    """
    like = [e for e in entries if is_tensor(e) and same_kind(value_of(e), value_of(value))]
    return Shortcut(like[0], (), {}, (like[0],)) if len(like) == 1 else None
