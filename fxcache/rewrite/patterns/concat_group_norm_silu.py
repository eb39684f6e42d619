"""``silu(group_norm(cat([cached, fresh], 1)))`` by one kernel."""

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
    """Normalisation by groups of a concatenation that holds what is cached."""
    if op_name(node) != "group_norm" or op_name(first_input(node)) != "cat":
        return False
    return any(map(is_read, first_input(node).all_input_nodes))


def fuse_concat(graph: fx.Graph, norm: fx.Node) -> None:
    """``silu(group_norm(cat([cached, fresh], 1)))``, and the concatenation if it is read again."""
    whole, given = first_input(norm), arguments_of(norm)
    join = arguments_of(whole)
    joined, weight, bias = join["tensors"], given["weight"], given["bias"]
    if join["dim"] != 1 or len(joined) != 2 or not is_read(joined[0]):
        raise UnfitError("what is cached is not the first of two tensors, joined by channels")
    number = cached_point(joined[0])
    if number is None:
        raise UnfitError("what is cached is forecast, or restored from eight bits, before")
    activation = only_user(norm, "silu")
    if activation is None:
        raise UnfitError("no SiLU, and nothing else, reads what is normalised")
    if weight is None or bias is None:
        raise UnfitError("it normalises without weight and bias")
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
    """The input of ``graph`` for ``which``; a new one where there is none yet."""
    taken = inputs_of(graph, InputKind.MOMENT).items()
    found = next((node for node, source in taken if source.key == which), None)
    source = Source(InputKind.MOMENT, which)
    return found or add_input(graph, f"moments_of_{cached.name}", source)


PATTERN = Pattern("concat_group_norm_silu", normalises_a_concatenation, fuse_concat)
