"""The engine of an optimised module, and what it captured."""

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


def num_captures(model: nn.Module) -> int:
    """How many kinds of call were captured."""
    return len(optimized_engine(model).captures)
