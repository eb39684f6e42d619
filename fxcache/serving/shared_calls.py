"""Calls one graph for the rows of several requests."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from fxcache.call import Call
from fxcache.codecs.codec import CacheEntry
from fxcache.graph_inputs import InputKind, OutputKind
from fxcache.rewrite.variant import Variant
from fxcache.rewrite.variant_signature import (
    NO_ENTRIES,
    NO_TENSORS,
    Outputs,
    TensorSpec,
    VariantSignature,
    batch_size,
)
from fxcache.rewrite.variants import Variants
from fxcache.serving.calls import Calls
from fxcache.serving.rows import join_by, require_rows, split_by

Compiler = Callable[[nn.Module], Callable[..., Any]]


class RequestRows(NamedTuple):
    """The rows of one request in a shared call.

    Attributes:
        call: Its arguments.
        shared: The values from which the graph continues.
        entries: Its cached values, by the number of the cache point.
    """

    call: Call
    shared: Sequence[Any] = ()
    entries: Mapping[int, CacheEntry] = NO_ENTRIES


class SharedCalls:
    """Calls graphs for the rows of several requests, and counts the calls.

    Args:
        calls: Joins the arguments.
        compiler: A function that is applied to each graph, such as ``torch.compile``; None for
            eager calls.
    """

    def __init__(self, calls: Calls, compiler: Compiler | None) -> None:
        self._calls, self._compiler = calls, compiler
        self._callables = WeakKeyDictionary[Variant, Callable[..., Any]]()

    def run(
        self,
        variants: Variants,
        graph: Variant,
        parts: Sequence[RequestRows],
        coefficients: Mapping[Hashable, Tensor] = NO_TENSORS,
    ) -> list[Outputs]:
        """Call ``graph`` once. Return what it computed for each part.

        Args:
            variants: The variants to which the graph belongs.
            graph: The graph.
            parts: The requests' parts, which differ in their rows only.
            coefficients: The coefficients, which are the same for all parts.
        """
        signature, call = graph.signature, self._calls.joined([part.call for part in parts])
        self._calls.require_served(variants.program, call)
        size = len(call.latent)
        inputs = signature.bind(
            call.tensors,
            (),
            joined_shared(signature, parts, size),
            joined_entries(signature, parts, size),
            coefficients,
        )
        outputs = signature.unpack(self._callable(variants, graph)(*inputs))
        counts = [len(part.call.latent) for part in parts]
        return split_outputs(signature, outputs, counts, copies=self._compiler is not None)

    def _callable(self, variants: Variants, graph: Variant) -> Callable[..., Any]:
        """Return the graph, compiled if there is a compiler."""
        if graph not in self._callables:
            require_rows(graph.signature, batch_size(variants.program), variants.program.model)
            compiler = self._compiler
            self._callables[graph] = compiler(graph.module) if compiler else graph.function
        return self._callables[graph]


def joined_shared(
    signature: VariantSignature, parts: Sequence[RequestRows], size: int
) -> dict[int, Tensor]:
    """Return the values of the prefix that the graph takes, by number."""
    specs = inputs_of(signature, InputKind.SHARED)
    return {
        number: join_by(spec, [part.shared[number] for part in parts], size)
        for number, spec in specs.items()
    }


def joined_entries(
    signature: VariantSignature, parts: Sequence[RequestRows], size: int
) -> dict[int, CacheEntry]:
    """Return entries that hold the rows of all parts, for the points that the graph reads."""
    specs, entries = inputs_of(signature, InputKind.CACHED), {}
    for number in signature.reads:
        own = [part.entries[number] for part in parts]
        buffers = [
            join_by(specs[number, slot], [entry.buffers[slot] for entry in own], size)
            for slot in range(len(own[0].buffers))
        ]
        entries[number] = CacheEntry(tuple(buffers), own[0].steps)
    return entries


def inputs_of(signature: VariantSignature, kind: InputKind) -> dict[Any, TensorSpec | None]:
    """Return the inputs of one kind by their keys."""
    return {spec.source.key: spec.tensor for spec in signature.inputs if spec.source.kind is kind}


def split_outputs(
    signature: VariantSignature, outputs: Outputs, counts: Sequence[int], copies: bool
) -> list[Outputs]:
    """Return the outputs of each part. Results are copies of its rows.

    Args:
        signature: The graph's signature.
        outputs: What the graph returned.
        counts: The rows of each part.
        copies: Whether all values must be copies, because the next call may overwrite them.
    """

    def split(kind: OutputKind, values: Sequence[Any], copied: bool) -> list[list[Any]]:
        specs = [spec.tensor for spec in signature.outputs if spec.sink.kind is kind]
        by_value = [split_by(s, v, counts) for s, v in zip(specs, values, strict=True)]
        rows = zip(*by_value, strict=True) if by_value else [()] * len(counts)
        return [[kept(value, copied) for value in values] for values in rows]

    signals = [] if outputs.signal is None else [outputs.signal]
    parts = zip(
        split(OutputKind.RESULT, outputs.results, copied=True),
        split(OutputKind.CACHED, list(outputs.cached.values()), copies),
        split(OutputKind.SIGNAL, signals, copies),
        split(OutputKind.SHARED, outputs.shared, copies),
        strict=True,
    )
    return [
        Outputs(
            results,
            dict(zip(outputs.cached, cached, strict=True)),
            signal[0] if signal else None,
            shared,
        )
        for results, cached, signal, shared in parts
    ]


def kept(value: Any, copied: bool) -> Any:
    """Return ``value``, or a copy of it if it is a tensor."""
    return value.clone() if copied and isinstance(value, Tensor) else value
