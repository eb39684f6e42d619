"""Fusion: cache reads, and the ops that follow them, replaced by one kernel each.

``rewrite/reads.py`` notes on the nodes that it makes what they compute; patterns start from there.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from fxcache.analysis.cost import op_name
from fxcache.program import (
    after_inputs,
    dtype_name,
    module_paths,
    new_input,
    noted,
    remove_dead,
    value_of,
)
from fxcache.rewrite import operators
from fxcache.rewrite.operators import DTYPES, operator_of
from fxcache.rewrite.quantized import RESTORED
from fxcache.rewrite.reads import FORECAST, KEPT, SUM

MOMENTS = "fxcache_moments"  # notes that a placeholder is for these statistics


class Moments(NamedTuple):
    """Statistics of the value at a cache ``point``: the first of ``channels`` in ``groups``.

    They change when it does, and not from one reuse to the next.
    """

    point: int
    groups: int
    channels: int

    def of(self, value: Tensor) -> Tensor:
        """See ``fxcache::group_moments``."""
        operator = operator_of("concat_group_norm_silu", "group_moments")
        found: Tensor = operator(value, self.groups, self.channels, 0)
        return found


@dataclass(frozen=True)
class Fusion:
    """A place where ``kernel`` could run: in the module ``where``. It does unless ``why_not``."""

    kernel: str
    where: str
    why_not: str = ""


class UnfitError(Exception):
    """Why a kernel does not fit."""


@dataclass(frozen=True)
class Pattern:
    """``begins``: whether a node may be the first of what the kernel replaces, from there on."""

    kernel: str
    begins: Callable[[fx.Node], bool]
    replace: Callable[[fx.Graph, fx.Node], None]


def fuse(graph: fx.Graph, device: torch.device) -> list[Fusion]:
    """Put kernels into ``graph`` wherever one fits. All places where one could, in order."""
    found = []
    for pattern in PATTERNS:
        for node in [n for n in graph.nodes if pattern.begins(n)]:
            where, why_not = (module_paths(node) or [""])[-1], ""
            try:
                if not pattern.begins(node):
                    raise UnfitError("another kernel computes what it reads")
                if device.type not in operators.DEVICES:
                    raise UnfitError(f"on {device.type}, ATen's own ops run")
                pattern.replace(graph, node)
            except UnfitError as reason:
                why_not = str(reason)
            found.append(Fusion(pattern.kernel, where, why_not))
        remove_dead(graph)
    return found


def normalises_a_sum(node: fx.Node) -> bool:
    """LayerNorm or RMSNorm of a stream to which what is cached was just added."""
    return op_name(node) in ("layer_norm", "rms_norm") and noted(source_of(node), SUM) is not None


def fuse_norm(graph: fx.Graph, norm: fx.Node) -> None:
    """``norm(stream + cached)``, and the scale and shift that follow, in one pass."""
    total, rms, given = source_of(norm), op_name(norm) == "rms_norm", arguments_of(norm)
    stream, cached = noted(total, SUM)  # type: ignore[misc]
    if len(given["normalized_shape"]) != 1:
        raise UnfitError("it normalises more than the last dimension")
    weight, bias, eps = given["weight"], given.get("bias"), given["eps"]
    if eps is None:
        if value_of(norm).dtype is not torch.float32:
            raise UnfitError("what epsilon stands for by default depends on the version of torch")
        eps = torch.finfo(torch.float32).eps
    terms, weights = noted(cached, FORECAST) or ([cached], None)
    last, scale, adds_one, shift = modulation_after(norm)
    require_one_dtype(stream, *terms, norm, last, weight, bias, scale, shift)
    steps, row_scale = noted(cached, RESTORED) or (None, None)
    if row_scale is not None:
        if value_of(row_scale).dim() > 3:
            raise UnfitError("what is cached has a scale for each channel, not for each token")
        terms = [steps]
    keeps_total = read_again(graph, total, norm, last)
    with graph.inserting_after(last):
        affine, modulation = (weight, bias), (scale, shift)
        options = (eps, rms, keeps_total, row_scale, adds_one)
        operands = (stream, list(terms), weights, *affine, *modulation, *options)
        call = graph.call_function(operator_of("residual_norm_modulate"), operands)
    replace_with_piece(graph, last, call, 0)
    if keeps_total:
        replace_with_piece(graph, total, call, 1)


def modulation_after(norm: fx.Node) -> tuple[fx.Node, fx.Node | None, bool, fx.Node | None]:
    """The last node of ``norm * scale + shift``; scale, whether 1 is added to it, and shift.

    Each ``[B, C]`` or ``[B, 1, C]``, where there is one.
    """
    last, scale, adds_one, shift = norm, None, False, None
    product = only_user(norm, "mul")
    if product is not None and (factor := other_of(product, norm)) and per_sample(factor, norm):
        scale, adds_one = less_one(factor)
        last = product
    following = only_user(last, "add")
    if following is not None and (added := other_of(following, last)) and per_sample(added, norm):
        shift, last = added, following
    return last, scale, adds_one, shift


def less_one(factor: fx.Node) -> tuple[fx.Node, bool]:
    """What 1 is added to in ``factor``; itself where there is nothing, as where it is hoisted.

    One may be added before the dimension of tokens is, or after it.
    """
    inner = source_of(factor) if op_name(factor) == "unsqueeze" else factor
    return (source_of(inner), True) if is_one_more(inner) else (factor, False)


def is_one_more(node: fx.Node) -> bool:
    return op_name(node) == "add" and node.args[1:] == (1,) and not node.kwargs


def per_sample(value: fx.Node, norm: fx.Node) -> bool:
    """Whether ``value`` is ``[B, 1, C]`` for a ``norm`` ``[B, T, C]``."""
    tokens = value_of(norm).shape
    return len(tokens) == 3 and value_of(value).shape == (tokens[0], 1, tokens[2])


def fuse_concat(graph: fx.Graph, norm: fx.Node) -> None:
    """``silu(group_norm(cat([cached, fresh], 1)))``, and the concatenation if it is read again."""
    whole, given = source_of(norm), arguments_of(norm)
    join = arguments_of(whole)
    joined, weight, bias = join["tensors"], given["weight"], given["bias"]
    if join["dim"] != 1 or len(joined) != 2 or not is_read(joined[0]):
        raise UnfitError("what is cached is not the first of two tensors, joined by channels")
    kept = noted(joined[0], KEPT)
    if kept is None:
        raise UnfitError("what is cached is forecast, or restored from eight bits, before")
    activation = only_user(norm, "silu")
    if activation is None:
        raise UnfitError("no SiLU, and nothing else, reads what is normalised")
    if weight is None or bias is None:
        raise UnfitError("it normalises without weight and bias")
    require_one_dtype(*joined, norm, weight, bias)
    channels, groups = int(value_of(norm).shape[1]), given["num_groups"]
    (number,) = kept
    moments = moments_of(graph, joined[0], Moments(number, groups, channels))
    keeps_joined = read_again(graph, whole, norm, activation)
    with graph.inserting_after(activation):
        operands = (*joined, weight, bias, groups, given["eps"], moments, keeps_joined)
        call = graph.call_function(operator_of("concat_group_norm_silu"), operands)
    replace_with_piece(graph, activation, call, 0)
    if keeps_joined:
        replace_with_piece(graph, whole, call, 1)


def moments_of(graph: fx.Graph, cached: fx.Node, which: Moments) -> fx.Node:
    """The input of ``graph`` for ``which``; a new one where there is none yet."""
    found = next((n for n in graph.nodes if noted(n, MOMENTS) == (which,)), None)
    if found is None:
        with graph.inserting_before(after_inputs(graph)):
            found = new_input(graph, f"moments_of_{cached.name}")
        found.meta[MOMENTS] = (found, which)
    return found


def moments_read(graph: fx.Graph) -> tuple[Moments, ...]:
    """What ``graph`` is given of cached values' statistics, in the order of its inputs."""
    notes = (noted(node, MOMENTS) for node in graph.nodes)
    return tuple(note[0] for note in notes if note is not None)


def normalises_a_concatenation(node: fx.Node) -> bool:
    """Normalisation by groups of a concatenation that holds what is cached."""
    if op_name(node) != "group_norm" or op_name(source_of(node)) != "cat":
        return False
    return any(map(is_read, source_of(node).all_input_nodes))


def fuse_forecast(graph: fx.Graph, total: fx.Node) -> None:
    """A cached value and its derivatives, by their weights, in one pass."""
    terms, weights = noted(total, FORECAST)  # type: ignore[misc]
    require_one_dtype(*terms, total)
    with graph.inserting_before(total):
        fused = graph.call_function(operator_of("forecast_read"), (list(terms), weights))
    fused.meta = dict(total.meta)
    total.replace_all_uses_with(fused)


PATTERNS = (
    Pattern("residual_norm_modulate", normalises_a_sum, fuse_norm),
    Pattern("concat_group_norm_silu", normalises_a_concatenation, fuse_concat),
    Pattern("forecast_read", lambda node: noted(node, FORECAST) is not None, fuse_forecast),
)


def source_of(node: fx.Node) -> fx.Node:
    """What ``node`` reads first; itself where it reads nothing."""
    return node.all_input_nodes[0] if node.all_input_nodes else node


def is_read(node: fx.Node) -> bool:
    """Whether ``node`` comes from the cache: as it is, forecast, or restored."""
    return any(noted(node, what) is not None for what in (KEPT, FORECAST, RESTORED))


def only_user(node: fx.Node, name: str) -> fx.Node | None:
    """The one reader of ``node``, if it is such an op, without options."""
    user, *others = [*node.users] or [node]
    return None if others or op_name(user) != name or user.kwargs else user


def other_of(node: fx.Node, one: fx.Node) -> fx.Node | None:
    """The other operand of a binary op, if it is a tensor."""
    others = [arg for arg in node.args if arg is not one]
    return others[0] if len(others) == 1 and isinstance(others[0], fx.Node) else None


def arguments_of(node: fx.Node) -> dict[str, Any]:
    """All arguments of an ATen op by name, those left out by their defaults."""
    declared: Any = node.target._schema.arguments  # type: ignore[union-attr]
    given = dict(zip((a.name for a in declared), node.args, strict=False))
    return {a.name: a.default_value for a in declared} | given | node.kwargs


def require_one_dtype(*nodes: fx.Node | None) -> None:
    """UnfitError unless all that there are have one dtype, and kernels know it."""
    found = {value_of(node).dtype for node in nodes if node is not None}
    if len(found) > 1 or not found <= set(DTYPES):
        names = ", ".join(sorted(map(dtype_name, found)))
        raise UnfitError(f"of {names}; kernels take one of {', '.join(map(dtype_name, DTYPES))}")


def read_again(graph: fx.Graph, value: fx.Node, norm: fx.Node, last: fx.Node) -> bool:
    """Whether others than ``norm`` read ``value``, all of them after ``last``."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    others = [user for user in value.users if user is not norm]
    return bool(others) and all(order[user] > order[last] for user in others)


def replace_with_piece(graph: fx.Graph, node: fx.Node, call: fx.Node, index: int) -> None:
    """Put tensor ``index`` that ``call`` returns in the place of ``node``."""
    with graph.inserting_after(call):
        taken = graph.call_function(operator.getitem, (call, index))
    taken.meta = dict(node.meta)
    for user in [user for user in node.users if user is not call]:
        user.replace_input_with(node, taken)
