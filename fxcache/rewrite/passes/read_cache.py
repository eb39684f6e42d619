"""Cache reads: replaces values by reads of the cache. Their computation becomes dead."""

from collections.abc import Mapping

from fxcache.codecs import residual
from fxcache.codecs.drift import add_drift, drift_input
from fxcache.codecs.format import CacheFormat
from fxcache.codecs.scale_shift import ScaleShiftLayers
from fxcache.partition.cut import CachePoint
from fxcache.rewrite.draft import Draft, Property
from fxcache.rewrite.pass_manager import Pass


def read_cache(
    points: Mapping[int, CachePoint], form: CacheFormat, adjusted: ScaleShiftLayers | None
) -> Pass:
    """Return a pass that replaces the values at ``points``, by number, with cached values.

    Before: ``x = conv(deep); y = cat([x, skip])``. After: ``y = cat([cached_0, skip])``.

    At a residual cut, before: ``x = block(embedded); y = head(x)``. After:
    ``y = head(embedded + cached_0)``.

    At a warm start, before: ``z2 = f(z1); z3 = f(z2); y = head(z3)``. After:
    ``z3 = f(cached_0); y = head(z3)``. Stored tensors are decoded, and the result is corrected and
    adjusted as ``form`` says.
    """

    def run(draft: Draft) -> None:
        graph, nodes = draft.graph, draft.nodes
        stored = {n: form.codec.inputs(graph, n, point.value) for n, point in points.items()}
        coefficients = form.codec.coefficient_inputs(graph, tuple(points))
        drifts = {n: drift_input(graph, n) for n in points if form.drift}
        for number, point in points.items():
            value = nodes[point.read_at]
            with graph.inserting_before(value):
                coefficient = coefficients.get(number)
                cached = form.codec.decode(graph, stored[number], point.value, coefficient)
                if form.drift:
                    cached = add_drift(graph, cached, drifts[number])
                if adjusted:
                    cached = adjusted.insert(graph, point, cached, nodes)
                restored = residual.decode(graph, point, cached, nodes)
            value.replace_all_uses_with(restored)
            nodes[point.read_at] = restored

    return Pass(
        "read cache",
        run,
        requires=frozenset({Property.ALL_NODES}),
        ensures=frozenset({Property.CACHE_READ}),
    )
