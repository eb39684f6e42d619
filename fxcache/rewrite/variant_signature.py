"""The interface of a graph: its inputs and outputs by name and kind, and one way to fill them."""

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
    """What a tensor looks like.

    Attributes:
        shape: Its sizes; a string stands for one that may vary.
        dtype: Its dtype.
        stride: In elements, by dimension; a string stands for one that may vary.
        batch_dim: The dimension along which requests are batched; None where there is none.
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
        source: Where its value comes from.
        tensor: What it looks like; None for coefficients and moments.
    """

    name: str
    source: Source
    tensor: TensorSpec | None


class OutputSpec(NamedTuple):
    """One output of a graph; ``tensor`` is None for a constant, such as None."""

    sink: Sink
    tensor: TensorSpec | None


class Outputs(NamedTuple):
    """What a graph returned.

    Attributes:
        results: What the module returns, flat.
        cached: Values to store, by the number of their cache point.
        signal: What the policy observes, where the graph computes it.
        shared: What variants continue from.
    """

    results: Sequence[Any]
    cached: Mapping[int, Tensor]
    signal: Tensor | None
    shared: Sequence[Tensor]


@dataclass(frozen=True)
class VariantSignature:
    """The inputs and outputs of one graph, in its own order.

    Inputs are ordered by kind: user, hoisted, shared, cached, coefficient, moment.

    Raises:
        RewriteError: They are not, which is a defect of fxcache.
    """

    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]

    def __post_init__(self) -> None:
        ranks = [ORDER.index(spec.source.kind) for spec in self.inputs]
        if any(before > after for before, after in pairwise(ranks)):
            raise RewriteError(
                "a graph takes its inputs in another order than that of their kinds",
                where=", ".join(spec.name for spec in self.inputs),
                remedy="report this as a bug in fxcache, with the model's configuration",
            )

    def keys(self, kind: InputKind) -> tuple[Any, ...]:
        """The keys of the inputs of one kind, in order."""
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
    def coefficients(self) -> tuple[Hashable, ...]:
        """The names of the coefficients that the graph takes."""
        return self.keys(InputKind.COEFFICIENT)

    @cached_property
    def moments(self) -> tuple[Any, ...]:
        """The statistics of cached values that the graph takes."""
        return self.keys(InputKind.MOMENT)

    @cached_property
    def writes(self) -> tuple[int, ...]:
        """The numbers of the cache points whose values the graph returns."""
        return tuple(o.sink.key for o in self.outputs if o.sink.kind is OutputKind.CACHED)  # type: ignore[misc]

    @cached_property
    def num_results(self) -> int:
        """How many outputs the module returns. They come first."""
        return sum(o.sink.kind is OutputKind.RESULT for o in self.outputs)

    @cached_property
    def _splits(self) -> tuple[int, bool]:
        """Where the cached or the shared outputs begin, and whether a signal comes first."""
        signals = any(o.sink.kind is OutputKind.SIGNAL for o in self.outputs)
        return self.num_results + signals, signals

    def bind(
        self,
        user: Sequence[Tensor],
        hoisted: Sequence[Tensor] = (),
        shared: Sequence[Tensor] = (),
        cached: Mapping[int, CacheEntry] = NO_ENTRIES,
        coefficients: Mapping[Hashable, Tensor] = NO_TENSORS,
        moments: Mapping[Hashable, Tensor] = NO_TENSORS,
    ) -> tuple[Tensor, ...]:
        """The graph's inputs, in order.

        Args:
            user: All tensors of the call, as ``Program.inputs`` has them.
            hoisted: All hoisted values, by number.
            shared: All values that the prefix shares, by number.
            cached: What is stored, by the number of the cache point.
            coefficients: By name.
            moments: By what they are statistics of.
        """
        inputs = list(user)
        if self.hoisted:
            inputs += [hoisted[number] for number in self.hoisted]
        if self.shared:
            inputs += [shared[number] for number in self.shared]
        for number in self.reads:
            inputs += cached[number].buffers
        if self.coefficients:
            inputs += [coefficients[name] for name in self.coefficients]
        if self.moments:
            inputs += [moments[which] for which in self.moments]
        return tuple(inputs)

    def unpack(self, values: Sequence[Any]) -> Outputs:
        """What the graph returned, by what it is for."""
        if len(values) == self.num_results:
            return Outputs(values, NO_VALUES, None, ())
        start, signals = self._splits
        results, rest = values[: self.num_results], values[start:]
        signal = values[start - 1] if signals else None
        if self.writes:
            return Outputs(results, dict(zip(self.writes, rest, strict=True)), signal, ())
        return Outputs(results, NO_VALUES, signal, rest)


def signature_of(graph: fx.Graph, program: Program) -> VariantSignature:
    """The signature of a graph that was rewritten from ``program``."""
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
    """The size of the latent's first dimension, an int or a symbol; None where it has none."""
    latent: Tensor = value_of(program.placeholders_of(Role.LATENT)[0])
    return latent.shape[0] if latent.dim() else None


def spec_of(value: Any, batch: Any) -> TensorSpec | None:
    """What ``value`` looks like; None where it is no tensor.

    Its first dimension is taken to be the batch where it is as large as the latent's.
    """
    if not isinstance(value, Tensor):
        return None
    batched = value.dim() > 0 and str(value.shape[0]) == str(batch)
    shape, stride = map(sizes, (value.shape, value.stride()))
    return TensorSpec(shape, value.dtype, stride, 0 if batched else None)


def sizes(values: Sequence[Any]) -> tuple[int | str, ...]:
    """Sizes as ints, and those that may vary as the names of their symbols."""
    return tuple(v if isinstance(v, int) else str(v) for v in values)
