"""The class of an optimised module: its ``forward`` dispatches each call to the variants."""

import copyreg
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from torch import nn

from fxcache._torch import compiler_callback, hidden_from_dynamo
from fxcache.program import OURS
from fxcache.runtime.class_swap import ClassSwap, Swapped
from fxcache.runtime.engine import Engine
from fxcache.runtime.settings import Settings
from fxcache.runtime.trajectory.caller import announcing

DISPATCHES = "fxcache_dispatches"  # marks the forward of optimised classes


class Optimized:
    """Mixed into the class of every optimised module, in front of its own class."""


def members(original: type[nn.Module]) -> dict[str, Any]:
    """The members of the optimised class of ``original``."""

    def reduce(self: nn.Module, _protocol: Any) -> Any:
        """Copies and pickles are optimised with the same settings, with nothing captured yet."""
        engine: Engine = self._fxcache  # type: ignore[assignment]
        with engine.weights_resident():
            state = {k: v for k, v in vars(self).items() if k != OURS}
        return rebuild, (original, engine.settings), state

    found: dict[str, Any] = {"forward": dispatching_forward(original), "__reduce_ex__": reduce}
    if listened_to := getattr(original, "cache_context", None):
        found["cache_context"] = announcing(listened_to)
    return found


def dispatching_forward(original: type[nn.Module]) -> Callable[..., Any]:
    """The ``forward`` that dispatches each call to the engine.

    Only its own frame is hidden from Dynamo; the variant it calls is compiled whole. What it calls
    besides is hidden together with all that it calls.
    """
    begin = hidden_from_dynamo(Engine.begin)
    decide = hidden_from_dynamo(Engine.decide)
    finish = hidden_from_dynamo(Engine.finish)

    @partial(hidden_from_dynamo, recursive=False)
    @wraps(original.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        engine: Engine = self._fxcache  # type: ignore[assignment]
        with engine.call_lock:
            if vars(self).get(OURS) is not engine:  # replaced while this call waited
                return type(self).forward(self, *args, **kwargs)
            compiled = compiler_callback() is not None
            step = begin(engine, self, args, kwargs, compiled)
            try:
                results = step.module(*step.inputs)
                if step.variant is None:
                    decide(engine, step, results)
                    results = step.module(*step.inputs)
                return finish(engine, step, results)
            except BaseException:
                step.trajectory.end_call(complete=False)
                raise

    setattr(forward, DISPATCHES, True)
    return forward


OPTIMIZED_CLASSES = ClassSwap(Optimized, members, Swapped)


def optimized_class(original: type[nn.Module]) -> type[nn.Module]:
    """A subclass of ``original`` that goes by its name and dispatches each call."""
    return OPTIMIZED_CLASSES.of(original)


def rebuild(original: type[nn.Module], settings: Settings) -> nn.Module:
    """An empty instance of ``original``, optimised; its state is set next."""
    module: nn.Module = copyreg.__newobj__(original)  # type: ignore[attr-defined]
    module.__dict__[OURS] = Engine(original, settings)
    module.__class__ = optimized_class(original)
    return module
