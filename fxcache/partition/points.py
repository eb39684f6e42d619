"""Many cache points: the residual branches of attention blocks and of their layers."""

import operator
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from torch import fx

from fxcache.analysis.cost import op_name
from fxcache.analysis.streams import MOVES, SCALES, Shortcut
from fxcache.errors import CutError
from fxcache.partition.cut import CachePoint
from fxcache.partition.frontier import Frontier, Points
from fxcache.partition.region import streams_between
from fxcache.policies import Caches
from fxcache.program import is_tensor, module_paths

Groups = Mapping[str, Points]  # the points that are refreshed together, by group name


def groups_of(frontier: Frontier, caches: Caches) -> Groups:
    """Return the cache points of one kind, by the name of their group.

    Raises:
        CutError: The model has none.
    """
    groups = FINDERS[caches](frontier)
    if not groups:
        raise CutError(
            f"{frontier.program.model} has no numbered blocks with attention that add to a stream",
            where=f"{caches.value} to cache",
            remedy="use a policy that caches at one cut: Uniform, TeaCache, FirstBlock, …",
        )
    return groups


def blocks(frontier: Frontier) -> Groups:
    """Return the residual branches of each outermost attention block, by the path of the block."""
    groups: dict[str, Points] = {}
    for path in attention_blocks(frontier):
        inside_another = any(path.startswith(f"{other}.") for other in groups)
        points = () if inside_another else frontier.span(path, path)
        if points and all(p.along_stream for p in points):
            groups[path] = tuple(branch_alone(frontier, path, point) for point in points)
    return groups


def layers(frontier: Frontier) -> Groups:
    """The residual branches of the layers in the innermost attention blocks, by layer path."""
    by_layer: dict[str, dict[fx.Node, None]] = defaultdict(dict)
    for block in innermost_blocks(frontier):
        for output in added(frontier, block):
            by_layer[layer_of(output, block)][output] = None
    return {name: tuple(map(CachePoint, outputs)) for name, outputs in by_layer.items()}


def attention(frontier: Frontier) -> Groups:
    """Return the outputs of all attention layers in the innermost blocks, as one group."""
    outputs: dict[fx.Node, None] = {}
    for block in innermost_blocks(frontier):
        inside = (path for path in frontier.modules if path.startswith(f"{block}."))
        children = {f"{block}.{path.removeprefix(f'{block}.').split('.')[0]}" for path in inside}
        for child in sorted(children):
            if any(map(attends, frontier.modules.get(child, ()))):
                values = frontier.module_outputs.get(child, ())
                outputs |= dict.fromkeys(filter(is_tensor, values))
    return {"attention": tuple(map(CachePoint, outputs))} if outputs else {}


def components(frontier: Frontier) -> Groups:
    """Return the layers grouped by their path inside the block, such as ``attn1``."""
    kinds: dict[str, Points] = defaultdict(tuple)
    for path, points in layers(frontier).items():
        kinds[kind_of(path)] += points
    return dict(kinds)


FINDERS: Mapping[Caches, Callable[[Frontier], Groups]] = {
    Caches.BLOCKS: blocks,
    Caches.ATTENTION: attention,
    Caches.LAYERS: layers,
    Caches.COMPONENTS: components,
}


def attention_blocks(frontier: Frontier) -> list[str]:
    """Numbered modules with attention that the latent passes through, outer ones first."""
    paths = [
        path
        for path, nodes in frontier.modules.items()
        if path.rpartition(".")[2].isdigit()
        and any(attends(node) and frontier.needs.on_latent(node) for node in nodes)
    ]
    return sorted(paths, key=lambda path: path.count("."))


def innermost_blocks(frontier: Frontier) -> list[str]:
    """Return the attention blocks that contain no other attention block."""
    paths = attention_blocks(frontier)
    return [p for p in paths if not any(other.startswith(f"{p}.") for other in paths)]


def attends(node: fx.Node) -> bool:
    """Return whether ``node`` is an attention operator, or a softmax, which implies attention."""
    return any(part in op_name(node) for part in ("scaled_dot_product", "softmax"))


def branch_alone(frontier: Frontier, path: str, point: CachePoint) -> CachePoint:
    """Cache ``f(x)`` itself instead of ``(x + f(x)) - x``, if the block adds only one value.

    ``point`` stays as it is if the block adds several values.
    """
    if op_name(point.value) != "add" or not isinstance(point.shortcut, Shortcut):
        return point
    streams = streams_between(frontier.needs, frontier.modules[path], frontier.modules[path])
    branch = streams.branch(point.value)
    alone = branch is not None and len(streams.added) == 1 and not point.shortcut.nodes
    return CachePoint(branch) if alone and branch is not None else point


def added(frontier: Frontier, block: str) -> Iterator[fx.Node]:
    """The values that ``block`` adds to its streams, before gates and scales."""
    nodes = frontier.modules[block]
    streams = streams_between(frontier.needs, nodes, nodes)
    for addition in sorted(streams.added, key=frontier.needs.index.__getitem__):
        onward = streams.passed[addition]
        for source in addition.all_input_nodes:
            if source is not onward and frontier.needs.on_latent(source):
                yield unscaled(source, frontier)


def unscaled(node: fx.Node, frontier: Frontier) -> fx.Node:
    """Return the value that ``node`` is a scaled, cast or reshaped copy of."""
    tensor = node
    while op_name(node) in SCALES | MOVES | {"dropout"} or node.target is operator.getitem:
        sources = [n for n in node.all_input_nodes if frontier.needs.on_latent(n)]
        if len(sources) != 1:
            break
        (node,) = sources
        tensor = node if is_tensor(node) else tensor  # some operators return several
    return tensor


def layer_of(output: fx.Node, block: str) -> str:
    """Return the path of the child of ``block`` that computes ``output``."""
    inside = [path for path in module_paths(output) if path.startswith(f"{block}.")]
    if not inside:
        return f"{block}.{output.name}"
    child, *_ = inside[0].removeprefix(f"{block}.").split(".")
    return f"{block}.{child}"


def kind_of(path: str) -> str:
    """Return the part of a layer's path after the index of its block."""
    parts = path.split(".")
    numbered = max(i for i, part in enumerate(parts) if part.isdigit())
    return ".".join(parts[numbered + 1 :])
