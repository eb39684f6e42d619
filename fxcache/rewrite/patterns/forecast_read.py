"""Replaces the weighted sum of a cached value and its differences by one kernel."""

from torch import fx

from fxcache.codecs.history import FORECAST
from fxcache.operators import operator_of
from fxcache.program import note_of
from fxcache.rewrite.patterns.matching import require_one_dtype
from fxcache.rewrite.patterns.pattern import Pattern


def is_forecast(node: fx.Node) -> bool:
    """Return whether ``node`` is the result of a forecast."""
    return note_of(node, FORECAST) is not None


def fuse_forecast(graph: fx.Graph, total: fx.Node) -> None:
    """Insert the kernel in place of the forecast."""
    terms, weights = note_of(total, FORECAST)  # type: ignore[misc]
    require_one_dtype(*terms, total)
    with graph.inserting_before(total):
        fused = graph.call_function(operator_of("forecast_read"), (list(terms), weights))
    fused.meta = dict(total.meta)
    total.replace_all_uses_with(fused)


PATTERN = Pattern("forecast_read", is_forecast, fuse_forecast)
