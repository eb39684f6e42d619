"""The signature of a graph: the names and kinds of its inputs and outputs, and their order."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from fxcache.codecs.codec import CacheEntry
from fxcache.errors import RewriteError
from fxcache.graph_inputs import (
    ORDER,
    ByNumber,
    InputKind,
    OutputKind,
    Sink,
    Source,
    kind_of,
    sinks_of,
    source_of,
)
from fxcache.program import Program, Role, output_node, value_of

NO_ENTRIES: Mapping[int, CacheEntry] = {}
NO_TENSORS: Mapping[Hashable, Tensor] = {}
NO_VALUES: Mapping[int, Tensor] = {}


@dataclass(frozen=True)
class TensorSpec:
    """The shape, dtype and strides of a tensor.

    Attributes:
        shape: The sizes. A size that may vary is a string.
        dtype: The dtype.
        stride: The stride of each dimension in elements. A stride that may vary is a string.
        batch_dim: The dimension of the batch; None if there is none.
    """

    shape: tuple[int | str, ...]
    dtype: torch.dtype
    stride: tuple[int | str, ...]
    batch_dim: int | None


class InputSpec(NamedTuple):
    """One input of a graph.

    Attributes:
        name: The path of the argument in the call, such as ``added_cond_kwargs.time_ids``, or the
            name of the placeholder.
        source: The source of its value.
        tensor: The description of its value; None for coefficients and moments.
    """

    name: str
    source: Source
    tensor: TensorSpec | None


class OutputSpec(NamedTuple):
    """One output of a graph; ``tensor`` is None for a constant, such as None."""

    sink: Sink
    tensor: TensorSpec | None


class Outputs(NamedTuple):
    """The values that a graph returned.

    Attributes:
        results: The flat results of the module.
        cached: Values to store, by the number of their cache point.
        signal: The signal that the policy observes, if the graph computes it.
        shared: The values from which variants continue.
    """

    results: Sequence[Any]
    cached: Mapping[int, Tensor]
    signal: Tensor | None
    shared: Sequence[Tensor]


@dataclass(frozen=True)
class VariantSignature:
    """The inputs and outputs of one graph, in its own order.

    Inputs are ordered by kind: user, hoisted, shared, cached, buffer, coefficient, moment.

    Raises:
        RewriteError: They are not, which is a defect of fxcache.
    """

    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]

    def __post_init__(self) -> None:
        ranks = [ORDER.index(spec.source.kind) for spec in self.inputs]
        if any(before > after for before, after in pairwise(ranks)):
            raise RewriteError(
                "the inputs of a graph are not ordered by kind",
                where=", ".join(spec.name for spec in self.inputs),
                remedy="report this as a bug in fxcache, with the model's configuration",
            )

    def keys(self, kind: InputKind) -> tuple[Any, ...]:
        """Return the keys of the inputs of one kind, in order."""
        return tuple(spec.source.key for spec in self.inputs if spec.source.kind is kind)

    @cached_property
    def num_user(self) -> int:
        """How many inputs are arguments of the call."""
        return len(self.keys(InputKind.USER))

    @cached_property
    def hoisted(self) -> tuple[int, ...]:
        """The numbers of the hoisted values that the graph takes."""
        return self.keys(InputKind.HOISTED)

    @cached_property
    def shared(self) -> tuple[int, ...]:
        """The numbers of the prefix's values that the graph takes."""
        return self.keys(InputKind.SHARED)

    @cached_property
    def reads(self) -> tuple[int, ...]:
        """The numbers of the cache points that the graph reads."""
        return tuple(dict.fromkeys(number for number, _ in self.keys(InputKind.CACHED)))

    @cached_property
    def stores(self) -> tuple[int, ...]:
        """The numbers of the cache points whose buffers the graph writes."""
        return tuple(dict.fromkeys(number for number, _ in self.keys(InputKind.BUFFER)))

    @cached_property
    def coefficients(self) -> tuple[Hashable, ...]:
        """The names of the coefficients that the graph takes."""
        return self.keys(InputKind.COEFFICIENT)

    @cached_property
    def moments(self) -> tuple[Any, ...]:
        """The statistics of cached values that are inputs of the graph."""
        return self.keys(InputKind.MOMENT)

    @cached_property
    def writes(self) -> tuple[int, ...]:
        """The numbers of the cache points whose values the graph returns."""
        return tuple(o.sink.key for o in self.outputs if o.sink.kind is OutputKind.CACHED)  # type: ignore[misc]

    @cached_property
    def num_results(self) -> int:
        """The number of outputs that are results of the module. They come first."""
        return sum(o.sink.kind is OutputKind.RESULT for o in self.outputs)

    @cached_property
    def _splits(self) -> tuple[int, bool]:
        """The index of the first cached or shared output, and whether a signal precedes it."""
        signals = any(o.sink.kind is OutputKind.SIGNAL for o in self.outputs)
        return self.num_results + signals, signals

    def bind(
        self,
        user: Sequence[Tensor],
        hoisted: ByNumber = (),
        shared: Sequence[Tensor] | Mapping[int, Tensor] = (),
        cached: Mapping[int, CacheEntry] = NO_ENTRIES,
        coefficients: Mapping[Hashable, Tensor] = NO_TENSORS,
        moments: Mapping[Hashable, Tensor] = NO_TENSORS,
    ) -> tuple[Tensor, ...]:
        """Return the graph's inputs, in order.

        Args:
            user: All tensors of the call, in the order of ``Program.inputs``.
            hoisted: All hoisted values, by number.
            shared: The values that the prefix shares, by number.
            cached: The entry of each cache point, by its number.
            coefficients: The coefficients by name.
            moments: The statistics by their ``Moments``.
        """
        inputs = list(user)
        if self.hoisted:
            inputs += [hoisted[number] for number in self.hoisted]
        if self.shared:
            inputs += [shared[number] for number in self.shared]
        for number in (*self.reads, *self.stores):
            inputs += cached[number].buffers
        if self.coefficients:
            inputs += [coefficients[name] for name in self.coefficients]
        if self.moments:
            inputs += [moments[which] for which in self.moments]
        return tuple(inputs)

    def unpack(self, values: Sequence[Any]) -> Outputs:
        """Split the values that the graph returned by their kind."""
        if len(values) == self.num_results:
            return Outputs(values, NO_VALUES, None, ())
        start, signals = self._splits
        results, rest = values[: self.num_results], values[start:]
        signal = values[start - 1] if signals else None
        if self.writes:
            return Outputs(results, dict(zip(self.writes, rest, strict=True)), signal, ())
        return Outputs(results, NO_VALUES, signal, rest)


def signature_of(graph: fx.Graph, program: Program) -> VariantSignature:
    """Return the signature of a graph that was rewritten from ``program``."""
    batch = batch_size(program)
    inputs = []
    for index, node in enumerate(graph.find_nodes(op="placeholder")):
        source, name = source_of(node), str(node.target)
        if source is None:
            source, name = Source(InputKind.USER, index), program.inputs[index].path
        varies = kind_of(node) in (InputKind.COEFFICIENT, InputKind.MOMENT)
        spec = None if varies else spec_of(value_of(node), batch)
        inputs.append(InputSpec(name, source, spec))
    (values,) = output_node(graph).args
    nodes = [value_of(v) if isinstance(v, fx.Node) else v for v in values]  # type: ignore[union-attr]
    pairs = zip(sinks_of(graph), nodes, strict=True)
    outputs = [OutputSpec(sink, spec_of(value, batch)) for sink, value in pairs]
    return VariantSignature(tuple(inputs), tuple(outputs))


def batch_size(program: Program) -> Any:
    """Return the size of the latent's first dimension, an int or a symbol; None if it has none."""
    latent: Tensor = value_of(program.placeholders_of(Role.LATENT)[0])
    return latent.shape[0] if latent.dim() else None


def spec_of(value: Any, batch: Any) -> TensorSpec | None:
    """Return the description of ``value``; None if it is not a tensor.

    The first dimension counts as the batch if it has the same size as that of the latent.
    """
    if not isinstance(value, Tensor):
        return None
    batched = value.dim() > 0 and str(value.shape[0]) == str(batch)
    shape, stride = map(sizes, (value.shape, value.stride()))
    return TensorSpec(shape, value.dtype, stride, 0 if batched else None)


def sizes(values: Sequence[Any]) -> tuple[int | str, ...]:
    """Return sizes as ints; sizes that may vary as the names of their symbols."""
    return tuple(v if isinstance(v, int) else str(v) for v in values)
