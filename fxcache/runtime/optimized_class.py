"""The class of an optimised module: its ``forward`` dispatches each call to the variants."""

import copyreg
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from torch import nn

from fxcache._torch import compiler_callback, hidden_from_dynamo
from fxcache.program import STATE_KEY
from fxcache.runtime.class_swap import ClassSwap, Swapped
from fxcache.runtime.engine import Engine
from fxcache.runtime.settings import Settings
from fxcache.runtime.trajectory.caller import announcing

DISPATCHES = "fxcache_dispatches"  # marks the forward of optimised classes


class Optimized:
    """A base of the class of every optimised module, after the module's own class."""


def members(original: type[nn.Module]) -> dict[str, Any]:
    """Return the members of the optimised class of ``original``."""

    def reduce(self: nn.Module, _protocol: Any) -> Any:
        """Make copies and pickles optimised modules with the same settings, without captures."""
        engine: Engine = self._fxcache  # type: ignore[assignment]
        with engine.weights_resident():
            state = {k: v for k, v in vars(self).items() if k != STATE_KEY}
        return rebuild, (original, engine.settings), state

    found: dict[str, Any] = {"forward": dispatching_forward(original), "__reduce_ex__": reduce}
    if listened_to := getattr(original, "cache_context", None):
        found["cache_context"] = announcing(listened_to)
    return found


def dispatching_forward(original: type[nn.Module]) -> Callable[..., Any]:
    """Return the ``forward`` that dispatches each call to the engine.

    Dynamo does not trace the frame of ``forward``, and compiles the variant that it calls as a
    whole. The other functions are hidden from Dynamo with everything that they call.
    """
    begin = hidden_from_dynamo(Engine.begin)
    decide = hidden_from_dynamo(Engine.decide)
    finish = hidden_from_dynamo(Engine.finish)

    @partial(hidden_from_dynamo, recursive=False)
    @wraps(original.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        engine: Engine = self._fxcache  # type: ignore[assignment]
        with engine.call_lock:
            if vars(self).get(STATE_KEY) is not engine:  # replaced while this call waited
                return type(self).forward(self, *args, **kwargs)
            compiled = compiler_callback() is not None
            step = begin(engine, self, args, kwargs, compiled)
            if step is None:
                return original.forward(self, *args, **kwargs)
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
    """Return a subclass of ``original`` with the same name that dispatches each call."""
    return OPTIMIZED_CLASSES.of(original)


def rebuild(original: type[nn.Module], settings: Settings) -> nn.Module:
    """Return an empty optimised instance of ``original``. The caller sets its state."""
    module: nn.Module = copyreg.__newobj__(original)  # type: ignore[attr-defined]
    module.__dict__[STATE_KEY] = Engine(original, settings)
    module.__class__ = optimized_class(original)
    return module
