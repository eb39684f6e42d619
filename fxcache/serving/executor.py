"""Runs steps of several requests of one kind in as few calls as possible."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from fxcache.codecs.codec import ReadContext
from fxcache.errors import ConfigError
from fxcache.policies import Since
from fxcache.rewrite.variant_signature import Outputs
from fxcache.rewrite.variants import Variants
from fxcache.runtime.engine import Engine
from fxcache.runtime.features.observation import relative_l1
from fxcache.runtime.mode import require_eval
from fxcache.runtime.objects import returned
from fxcache.serving.calls import Calls
from fxcache.serving.request import Pending
from fxcache.serving.rounds import share_with_stream
from fxcache.serving.shared_calls import RequestRows, SharedCalls
from fxcache.serving.statistics import Counts
from fxcache.step import Decision

FIRST, CHANGED = "first steps", "the model, its weights or the sizes changed"
NO_OUTPUTS = Outputs((), {}, None, ())


class HasFuture(Protocol):
    """A step of a request, whose future receives its result or its error."""

    @property
    def future(self) -> "Future[Any]": ...


R = TypeVar("R")
S = TypeVar("S", bound=HasFuture)


@dataclass(slots=True, eq=False)
class Decided:
    """A step whose decision is made.

    Attributes:
        pending: The step.
        observed: What the prefix computed for it.
        decision: The decision of its policy.
        reused: The groups of cache points that it reuses.
        changes: The changes of the signal since the last refresh.
        source: Identifies the graphs, the weights and the sizes of what it computes.
        coefficients: The coefficients that its graph reads.
    """

    pending: Pending
    observed: Outputs
    decision: Decision
    reused: frozenset[str]
    changes: tuple[float, ...]
    source: object
    coefficients: Mapping[Hashable, Tensor] = field(default_factory=dict)

    @property
    def future(self) -> "Future[Any]":
        """The future of the step."""
        return self.pending.future

    @property
    def rows(self) -> int:
        """The number of its rows."""
        return self.pending.rows

    @property
    def kind(self) -> Hashable:
        """Steps of one kind can share a call. Coefficients are cached: equal ones are the same."""
        return self.reused, tuple((name, id(value)) for name, value in self.coefficients.items())


class Executor:
    """Runs steps in shared calls, and stores what they compute for each request.

    Args:
        model: The optimised module.
        engine: Its engine.
        calls: Joins calls.
        shared: Calls the graphs.
        counts: Counts the calls.
    """

    def __init__(
        self, model: nn.Module, engine: Engine, calls: Calls, shared: SharedCalls, counts: Counts
    ) -> None:
        self._model, self._engine, self._calls = model, engine, calls
        self._shared, self._counts = shared, counts

    @torch.no_grad()
    def run(self, steps: Sequence[Pending]) -> None:
        """Run steps whose calls are alike, and set the results of their futures."""
        try:
            variants = self._graphs(steps[0])
        except Exception as error:
            for step in steps:
                step.future.set_exception(error)
            return
        decided: dict[Hashable, list[Decided]] = {}
        for step, observed in self._observed(variants, steps):
            made = attempt(step, partial(self._decide, variants, step, observed))
            if made:
                decided.setdefault(made.kind, []).append(made)
        for group in decided.values():
            for chunk in self._calls.chunks(group):
                for one, outputs in together_or_alone(chunk, partial(self._outputs, variants)):
                    attempt(one, partial(self._finish, variants, one, outputs))

    def _graphs(self, step: Pending) -> Variants:
        """Return the graphs for steps like this one. Capture them if there are none."""
        require_eval(self._model)
        graphs = self._engine.graphs
        hooks = graphs.hooks.key(self._model)
        graphs.changes.notice(self._model, hooks)
        variants = graphs.find(self._model, self._calls.joined([step.call]), hooks)
        if variants.frontier.process_groups:  # each process would join other requests
            raise ConfigError(
                "several processes share the model, and their batches may differ",
                where="fxcache.serving",
                remedy="serve replicas of the model, each in one process",
            )
        return variants

    def _observed(
        self, variants: Variants, steps: Sequence[Pending]
    ) -> list[tuple[Pending, Outputs]]:
        """Return the steps with what the prefix computes for them, if there is a prefix."""
        if variants.plan.signal is None:
            return [(step, NO_OUTPUTS) for step in steps]
        run = partial(self._prefix_outputs, variants)
        chunks = self._calls.chunks(steps)
        return [pair for chunk in chunks for pair in together_or_alone(chunk, run)]

    def _prefix_outputs(self, variants: Variants, steps: Sequence[Pending]) -> list[Outputs]:
        parts = [RequestRows(step.call) for step in steps]
        return self._shared.run(variants, variants.prefix(), parts)

    def _decide(self, variants: Variants, pending: Pending, observed: Outputs) -> Decided:
        """Decide what a step reuses."""
        trajectory, source = pending.trajectory, self._engine.graphs.source(pending.call, variants)
        changes = self._changes(pending, observed.signal)
        now = trajectory.step(changes)
        if variants.coefficients:
            variants.coefficients.require(now)
        if pending.starts:
            decision = Decision(True, FIRST)
        elif trajectory.source != source:
            decision = Decision(True, CHANGED)
        else:
            decision = trajectory.policy.decide(now)
        reused = variants.reused_by(decision)
        made = Decided(pending, observed, decision, reused, changes, source)
        signature = variants.variant(reused, variants.continued).signature
        if signature.coefficients:
            assert variants.coefficients is not None
            read = ReadContext(trajectory.cache.entries, signature.reads, now)
            made.coefficients = variants.coefficients.at(read)
        return made

    def _changes(self, pending: Pending, signal: Tensor | None) -> tuple[float, ...]:
        """Return the changes of the signal since the last refresh, with that of this step."""
        trajectory = pending.trajectory
        if signal is None or trajectory.reference is None:
            return trajectory.changes
        return (*trajectory.changes, relative_l1(signal, trajectory.reference))

    def _outputs(self, variants: Variants, steps: Sequence[Decided]) -> list[Outputs]:
        """Call the graph of these steps, which share their kind."""
        first = steps[0]
        parts = [
            RequestRows(one.pending.call, one.observed.shared, one.pending.trajectory.cache.entries)
            for one in steps
        ]
        graph = variants.variant(first.reused, variants.continued)
        found = self._shared.run(variants, graph, parts, first.coefficients)
        rows = sum(one.rows for one in steps)
        self._counts.add(rows, first.decision.refresh)
        return found

    def _finish(self, variants: Variants, step: Decided, outputs: Outputs) -> None:
        """Store the values of a step, and set its result."""
        pending, source = step.pending, step.source
        trajectory = pending.trajectory
        result = returned(pending.call, list(outputs.results), variants.program)
        if outputs.cached:
            fresh = pending.starts or trajectory.source != source
            codec = variants.form.codec
            trajectory.source = None  # after an error in between, the next step refreshes
            trajectory.cache.write(outputs.cached, trajectory.index, codec, source, fresh)
        trajectory.source = source
        if step.observed.signal is not None and self._is_reference(step):
            trajectory.reference = step.observed.signal.clone()
        if pending.stream is not None:
            share_with_stream(outputs.results, pending.stream)
        refreshed = not step.reused
        trajectory.advance(refreshed, () if step.decision.refresh else step.changes)
        self._counts.add_step()
        pending.future.set_result(result)

    def _is_reference(self, step: Decided) -> bool:
        """Return whether the next signal is compared with that of this step."""
        observation = self._engine.settings.policy.observes
        since_step = observation is not None and observation.since is Since.STEP
        return step.decision.refresh or since_step


def attempt(step: HasFuture, work: Callable[[], R]) -> R | None:
    """Return the result of ``work``; None after an error, which the caller of the step receives."""
    try:
        return work()
    except Exception as error:
        step.future.set_exception(error)
        return None


def together_or_alone(
    steps: Sequence[S], work: Callable[[Sequence[S]], Sequence[R]]
) -> list[tuple[S, R]]:
    """Return the steps with their results. After an error each step is tried alone.

    So the error of one request reaches no other request.
    """
    if len(steps) == 1:
        (step,) = steps
        found = attempt(step, partial(work, steps))
        return [] if found is None else [(step, found[0])]
    try:
        return list(zip(steps, work(steps), strict=True))
    except Exception:
        return [pair for step in steps for pair in together_or_alone([step], work)]
