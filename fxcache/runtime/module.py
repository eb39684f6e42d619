"""The in-place class swap, and the ``forward`` that dispatches to the variants."""

import copyreg
import functools
from types import MethodType
from typing import Any

import torch
from torch import nn

from fxcache.errors import StateError
from fxcache.runtime.engine import Engine, Settings
from fxcache.runtime.watch import OURS


class Optimized:
    """Mixed into the class of every optimised module, in front of its own class."""


def engine_of(module: nn.Module) -> Engine | None:
    """The engine of an optimised module; None for any other."""
    return vars(module).get(OURS) if isinstance(module, Optimized) else None


def attach(module: nn.Module, settings: Settings) -> Engine:
    """Make ``module`` an optimised one in place."""
    original = type(module)
    engine = Engine(original, settings)
    swapped = optimized_class(original)
    move_inside_hook(module, swapped)
    module.__dict__[OURS] = engine
    module.__class__ = swapped
    return engine


def detach(module: nn.Module) -> None:
    """Undo ``attach``: nothing stays behind."""
    engine: Engine = module.__dict__.pop(OURS)
    module.__class__ = engine.original
    if hooked(module):
        module.__dict__["_old_forward"] = MethodType(engine.original.forward, module)


def hooked(module: nn.Module) -> bool:
    """Whether accelerate's hook has put a ``forward`` on the instance, hiding that of its class."""
    return "forward" in vars(module) and "_old_forward" in vars(module)


def move_inside_hook(module: nn.Module, swapped: type[nn.Module]) -> None:
    """Let an accelerate hook on the instance call the optimised forward.

    Raises StateError if something else hides ``forward``: the swap would be bypassed silently.
    """
    if hooked(module):
        module.__dict__["_old_forward"] = MethodType(swapped.forward, module)
    elif "forward" in vars(module):
        raise StateError(
            f"a forward set on the instance hides the one of {type(module).__name__}",
            where=repr(vars(module)["forward"])[:200],
            remedy="optimize the module before what set it, or delete module.forward first",
        )


@functools.cache
def optimized_class(original: type[nn.Module]) -> type[nn.Module]:
    """A subclass of ``original`` that goes by its name and dispatches each call.

    Only ``forward``'s own frame is hidden from Dynamo; the variant it calls is compiled whole.
    What it calls besides is hidden together with all that it calls.
    """
    begin = torch.compiler.disable(Engine.begin)
    finish = torch.compiler.disable(Engine.finish)

    @torch.compiler.disable(recursive=False)
    @functools.wraps(original.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        engine: Engine = self._fxcache  # type: ignore[assignment]
        ticket = begin(engine, self, args, kwargs)
        results = ticket.variant(*ticket.tensors)
        return finish(engine, ticket, results)

    def reduce(self: nn.Module, protocol: Any) -> Any:
        """Copies and pickles are optimised with the same settings, with nothing captured yet."""
        state = {k: v for k, v in vars(self).items() if k != OURS}
        return rebuild, (original, self._fxcache.settings), state  # type: ignore[union-attr]

    members = {
        "forward": forward,
        "__reduce_ex__": reduce,
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
    }
    return type(original.__name__, (Optimized, original), members)


def rebuild(original: type[nn.Module], settings: Settings) -> nn.Module:
    """An empty instance of ``original``, optimised; its state is set next."""
    module: nn.Module = copyreg.__newobj__(original)  # type: ignore[attr-defined]
    module.__dict__[OURS] = Engine(original, settings)
    module.__class__ = optimized_class(original)
    return module
