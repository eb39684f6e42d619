"""Replaces ``silu(group_norm(cat([cached, fresh], 1)))`` by one kernel."""

from torch import fx

from fxcache.analysis.cost import op_name
from fxcache.graph_inputs import InputKind, Source, add_input, inputs_of
from fxcache.operators import operator_of
from fxcache.program import value_of
from fxcache.rewrite.moments import Moments
from fxcache.rewrite.patterns.matching import (
    arguments_of,
    cached_point,
    first_input,
    is_read,
    only_user,
    read_again,
    replace_with_piece,
    require_one_dtype,
)
from fxcache.rewrite.patterns.pattern import Pattern, UnfitError


def normalises_a_concatenation(node: fx.Node) -> bool:
    """Return whether ``node`` is a group normalisation of a concatenation with a cached value."""
    if op_name(node) != "group_norm" or op_name(first_input(node)) != "cat":
        return False
    return any(map(is_read, first_input(node).all_input_nodes))


def fuse_concat(graph: fx.Graph, norm: fx.Node) -> None:
    """Insert the kernel. It also returns the concatenation if a later node reads it."""
    whole, given = first_input(norm), arguments_of(norm)
    join = arguments_of(whole)
    joined, weight, bias = join["tensors"], given["weight"], given["bias"]
    if join["dim"] != 1 or len(joined) != 2 or not is_read(joined[0]):
        raise UnfitError("the cached value is not the first of two tensors joined along channels")
    number = cached_point(joined[0])
    if number is None:
        raise UnfitError("the cached value is forecast, or restored from eight bits")
    activation = only_user(norm, "silu")
    if activation is None:
        raise UnfitError("the normalised value is not read by a SiLU alone")
    if weight is None or bias is None:
        raise UnfitError("the normalisation has no weight or no bias")
    require_one_dtype(*joined, norm, weight, bias)
    channels, groups = int(value_of(norm).shape[1]), given["num_groups"]
    moments = moments_of(graph, joined[0], Moments(number, groups, channels))
    keeps_joined = read_again(graph, whole, norm, activation)
    with graph.inserting_after(activation):
        operands = (*joined, weight, bias, groups, given["eps"], moments, keeps_joined)
        call = graph.call_function(operator_of("concat_group_norm_silu"), operands)
    replace_with_piece(graph, activation, call, 0)
    if keeps_joined:
        replace_with_piece(graph, whole, call, 1)


def moments_of(graph: fx.Graph, cached: fx.Node, which: Moments) -> fx.Node:
    """Return the input of ``graph`` for these statistics; add it if there is none."""
    taken = inputs_of(graph, InputKind.MOMENT).items()
    found = next((node for node, source in taken if source.key == which), None)
    source = Source(InputKind.MOMENT, which)
    return found or add_input(graph, f"moments_of_{cached.name}", source)


PATTERN = Pattern("concat_group_norm_silu", normalises_a_concatenation, fuse_concat)
