"""Counts what torch.compile compiles inside a block."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

NUMBER = re.compile(r"^\d+/\d+: ")  # of the compilation, before the reason
COMPILED_CALL = "_compiled_call_impl"

__all__ = [
    "Compilations",
    "compilations",
    "compiled_by",
    "compiled_calls_wrapped",
    "is_compiled",
    "not_compiled",
]


@dataclass
class Compilations:
    """What was compiled.

    Attributes:
        graphs: The number of nodes of each compiled graph.
        guards: The number of guards of each compiled graph.
        recompilations: The guard that failed, for each graph that was compiled again.
        breaks: How often each reason broke a graph.
        frames: How many frames of Python Dynamo looked at, in all calls.
    """

    graphs: list[int] = field(default_factory=list)
    guards: list[int] = field(default_factory=list)
    recompilations: list[str] = field(default_factory=list)
    breaks: dict[str, int] = field(default_factory=dict)
    frames: int = 0

    def backend(self, graph: fx.GraphModule, _: Any) -> Any:
        """Run a graph as it is: a backend for torch.compile."""
        self.graphs.append(len(graph.graph.nodes))
        return graph.forward


@contextmanager
def compilations() -> Iterator[Compilations]:
    """Count the compilations inside the block. Pass ``backend`` to ``torch.compile``.

    All that Dynamo compiled before is forgotten, also when the block ends.

    Why: guards, reasons of recompilations and graph breaks are in private records of Dynamo.
    """
    found = Compilations()
    utils = torch._dynamo.utils
    torch._dynamo.reset()
    utils.clear_compilation_metrics()
    utils.counters.clear()
    try:
        yield found
        for metrics in utils.get_compilation_metrics():
            if metrics.guard_count is not None:
                found.guards.append(metrics.guard_count)
            if metrics.recompile_reason:
                found.recompilations.append(NUMBER.sub("", str(metrics.recompile_reason)).strip())
        for reason, count in utils.counters["graph_break"].items():
            first = str(reason).strip().partition("\n")[0]
            found.breaks[first] = found.breaks.get(first, 0) + count
        found.frames = utils.counters["frames"]["total"]
    finally:
        torch._dynamo.reset()


@contextmanager
def compiled_by(module: nn.Module, backend: str | Callable[..., Any]) -> Iterator[None]:
    """Compile the calls of ``module`` with ``backend`` inside the block.

    Why: ``module.compile`` has no public way back. It sets one private attribute.
    """
    with not_compiled(module):
        module.compile(backend=backend)
        yield


def is_compiled(module: nn.Module) -> bool:
    """Return whether ``module.compile`` was called.

    Why: as for ``compiled_by``.
    """
    return module.__dict__.get(COMPILED_CALL) is not None


@contextmanager
def compiled_calls_wrapped(
    module: nn.Module, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Replace the compiled call of ``module`` by ``wrap`` of it inside the block.

    Why: torch.compile compiles hooks with the module, and compiles again for other hooks. Only the
    private attribute of ``module.compile`` is outside of what is compiled.
    """
    before = module.__dict__[COMPILED_CALL]
    module.__dict__[COMPILED_CALL] = wrap(before)
    try:
        yield
    finally:
        module.__dict__[COMPILED_CALL] = before


@contextmanager
def not_compiled(module: nn.Module) -> Iterator[None]:
    """Undo ``module.compile`` inside the block.

    Why: as for ``compiled_by``.
    """
    before = module.__dict__.pop(COMPILED_CALL, None)
    try:
        yield
    finally:
        module.__dict__.pop(COMPILED_CALL, None)
        if before is not None:
            module.__dict__[COMPILED_CALL] = before
