"""The engine of an optimised module, and what it captured."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from fxcache.rewrite.variants import Variants
from fxcache.runtime.engine import Engine
from fxcache.runtime.module import engine_of


def optimized_engine(model: nn.Module) -> Engine:
    """The engine of ``model``, which is optimised."""
    engine = engine_of(model)
    assert engine is not None
    return engine


def variants_of(model: nn.Module) -> Variants:
    """The variants of the only kind of call that was captured."""
    (variants,) = optimized_engine(model).captures.values()
    return variants


@contextmanager
def interrupted(
    model: nn.Module,
    graph: nn.Module,
    before: Callable[[], object] = lambda: None,
    after: Callable[[], object] = lambda: None,
) -> Iterator[None]:
    """Call functions before and after each eager run of ``graph`` inside the block."""
    made = [v for each in optimized_engine(model).captures.values() for v in each.made.values()]
    (variant,) = (variant for variant in made if variant.module is graph)
    run = variant.function

    def function(*inputs: Any) -> Any:
        before()
        results = run(*inputs)
        after()
        return results

    vars(variant)["function"] = function
    try:
        yield
    finally:
        vars(variant)["function"] = run


def num_captures(model: nn.Module) -> int:
    """How many kinds of call were captured."""
    return len(optimized_engine(model).captures)
