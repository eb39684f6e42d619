"""Replaces ``norm(stream + cached)``, and the scale and shift after it, by one kernel."""

import torch
from torch import fx

from fxcache.analysis.cost import op_name
from fxcache.codecs.history import FORECAST
from fxcache.codecs.quantized_rows import RESTORED
from fxcache.codecs.residual import SUM
from fxcache.operators import operator_of
from fxcache.program import note_of, value_of
from fxcache.rewrite.patterns.matching import (
    arguments_of,
    first_input,
    only_user,
    other_of,
    read_again,
    replace_with_piece,
    require_one_dtype,
)
from fxcache.rewrite.patterns.pattern import Pattern, UnfitError


def normalises_a_sum(node: fx.Node) -> bool:
    """Return whether ``node`` is a LayerNorm or RMSNorm of a stream plus a cached value."""
    return (
        op_name(node) in ("layer_norm", "rms_norm") and note_of(first_input(node), SUM) is not None
    )


def fuse_norm(graph: fx.Graph, norm: fx.Node) -> None:
    """Insert the kernel. It also returns the sum if a later node reads it."""
    total, rms, given = first_input(norm), op_name(norm) == "rms_norm", arguments_of(norm)
    stream, cached = note_of(total, SUM)  # type: ignore[misc]
    if len(given["normalized_shape"]) != 1:
        raise UnfitError("the normalisation covers more than the last dimension")
    weight, bias, eps = given["weight"], given.get("bias"), given["eps"]
    if eps is None:
        if value_of(norm).dtype is not torch.float32:
            raise UnfitError("the default of epsilon depends on the version of torch")
        eps = torch.finfo(torch.float32).eps
    terms, weights = note_of(cached, FORECAST) or ([cached], None)
    last, scale, adds_one, shift = modulation_after(norm)
    require_one_dtype(stream, *terms, norm, last, weight, bias, scale, shift)
    steps, row_scale = note_of(cached, RESTORED) or (None, None)
    if row_scale is not None:
        if value_of(row_scale).dim() > 3:
            raise UnfitError("the cached value has a scale for each channel, not for each token")
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
    """Return the last node of ``norm * scale + shift``, scale, whether 1 is added, and shift.

    Scale and shift are ``[B, C]`` or ``[B, 1, C]``; None if absent.
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
    """Return the operand to which ``factor`` adds 1, and True; ``factor`` and False otherwise.

    The 1 may be added before or after the dimension of tokens. A hoisted factor has no addition.
    """
    inner = first_input(factor) if op_name(factor) == "unsqueeze" else factor
    return (first_input(inner), True) if is_one_more(inner) else (factor, False)


def is_one_more(node: fx.Node) -> bool:
    return op_name(node) == "add" and node.args[1:] == (1,) and not node.kwargs


def per_sample(value: fx.Node, norm: fx.Node) -> bool:
    """Return whether ``value`` is ``[B, 1, C]`` for a ``norm`` ``[B, T, C]``."""
    tokens = value_of(norm).shape
    return len(tokens) == 3 and value_of(value).shape == (tokens[0], 1, tokens[2])


PATTERN = Pattern("residual_norm_modulate", normalises_a_sum, fuse_norm)
