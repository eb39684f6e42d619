"""The in-place class swap, and the ``forward`` that dispatches to the variants."""

import copyreg
import functools
from types import MethodType
from typing import Any

import torch
from torch import nn

from fxcache._torch import compiled_original, hidden_from_dynamo
from fxcache.errors import ConfigError, StateError
from fxcache.program import OURS
from fxcache.runtime.context import announcing
from fxcache.runtime.engine import Engine
from fxcache.runtime.mode import require_eval
from fxcache.runtime.settings import Settings

DISPATCHES = "fxcache_dispatches"  # marks the forward of optimised classes


class Optimized:
    """Mixed into the class of every optimised module, in front of its own class."""


def engine_of(module: nn.Module) -> Engine | None:
    """The engine of an optimised module; None for any other."""
    return vars(module).get(OURS) if isinstance(module, Optimized) else None


def attach(module: nn.Module, settings: Settings) -> Engine:
    """Make ``module`` an optimised one in place."""
    original = type(module)
    require_no_optimized_inside(module)
    swapped = optimized_class(original)
    engine = Engine(original, settings)
    take_over_forward(module, original, swapped)
    module.__dict__[OURS] = engine
    module.__class__ = swapped
    return engine


def detach(module: nn.Module) -> None:
    """Undo ``attach``: nothing stays behind."""
    engine: Engine = module.__dict__[OURS]
    original = engine.signature.original
    with engine.at_rest():
        take_over_forward(module, type(module), original)
        module.__class__ = original
        del module.__dict__[OURS]


def unwrapped(model: nn.Module) -> nn.Module:
    """The module itself, out of torch.compile's wrapper; ConfigError for what is no module."""
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"{type(model).__name__} is not a torch.nn.Module",
            where="fxcache",
            remedy="pass the denoiser itself, such as pipe.unet",
        )
    return compiled_original(model) or model


def untouched(model: nn.Module, caller: str) -> nn.Module:
    """The module itself; ModeError in train mode, StateError if it is optimised already."""
    module = unwrapped(model)
    require_eval(module)
    require_not_optimized(module, caller)
    return module


def require_not_optimized(module: nn.Module, caller: str) -> None:
    if engine_of(module) is not None:
        raise StateError(
            f"{type(module).__name__} is optimised already",
            where=caller,
            remedy="call fxcache.restore(model) first",
        )


def require_no_optimized_inside(module: nn.Module) -> None:
    """StateError if a submodule is optimised already: it cannot be traced."""
    inside = [p for p, m in module.named_modules() if isinstance(m, Optimized) and p]
    if inside:
        raise StateError(
            f"{type(module).__name__} contains an optimised module",
            where=inside[0],
            remedy="restore() that one first, or leave the outer one as it is",
        )


def take_over_forward(module: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> None:
    """Where a ``forward`` on the instance hides that of the class, put ``new``'s inside it.

    accelerate's hooks call ``_old_forward``. Hooks and helpers taken off again (accelerate's,
    DeepCache's) leave the class's own forward on the instance, which can go.

    Raises StateError if the instance's forward is anything else: it would bypass fxcache silently.
    """
    own = vars(module)
    if is_bound(own.get("_old_forward"), old):
        own["_old_forward"] = MethodType(new.forward, module)
    elif is_bound(own.get("forward"), old):
        del own["forward"]
    elif "forward" in own:
        raise StateError(
            f"a forward set on the instance hides the one of {old.__name__}",
            where=object.__repr__(own["forward"]),
            remedy="optimize the module before what set it, or delete module.forward first",
        )


def is_bound(method: object, kind: type[nn.Module]) -> bool:
    """Whether ``method`` is ``kind.forward`` bound to an instance.

    One optimised class's forward is as good as another's: a copied module has the source's.
    """
    if not isinstance(method, MethodType):
        return False
    dispatches = hasattr(method.__func__, DISPATCHES) and issubclass(kind, Optimized)
    return dispatches or method.__func__ is kind.forward


def optimized_class(original: type[nn.Module]) -> type[nn.Module]:
    """A subclass of ``original`` that goes by its name and dispatches each call.

    Only ``forward``'s own frame is hidden from Dynamo; the variant it calls is compiled whole.
    What it calls besides is hidden together with all that it calls.
    """
    begin = torch.compiler.disable(Engine.begin)
    decide = torch.compiler.disable(Engine.decide)
    finish = torch.compiler.disable(Engine.finish)

    @hidden_from_dynamo
    @functools.wraps(original.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        engine: Engine = self._fxcache  # type: ignore[assignment]
        with engine.turn:
            ticket = begin(engine, self, args, kwargs)
            try:
                results = ticket.module(*ticket.tensors)
                if ticket.undecided:
                    decide(engine, ticket, results)
                    results = ticket.module(*ticket.tensors)
                return finish(engine, ticket, results)
            except BaseException:
                ticket.trajectory.end_call(complete=False)
                raise

    setattr(forward, DISPATCHES, True)

    def reduce(self: nn.Module, _protocol: Any) -> Any:
        """Copies and pickles are optimised with the same settings, with nothing captured yet."""
        engine: Engine = self._fxcache  # type: ignore[assignment]
        with engine.at_rest():
            state = {k: v for k, v in vars(self).items() if k != OURS}
        return rebuild, (original, engine.settings), state

    class Equal(type(original)):  # type: ignore[misc]
        """Classes that equal ``original``: diffusers' ``from_pipe`` looks types up in a list."""

        def __eq__(cls, other: object) -> bool:
            return cls is other or other is original

        def __hash__(cls) -> int:
            return hash(original)

    members: dict[str, Any] = {
        "forward": forward,
        "__reduce_ex__": reduce,
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
    }
    if listened_to := getattr(original, "cache_context", None):
        members["cache_context"] = announcing(listened_to)
    return Equal(original.__name__, (Optimized, original), members)


def rebuild(original: type[nn.Module], settings: Settings) -> nn.Module:
    """An empty instance of ``original``, optimised; its state is set next."""
    module: nn.Module = copyreg.__newobj__(original)  # type: ignore[attr-defined]
    module.__dict__[OURS] = Engine(original, settings)
    module.__class__ = optimized_class(original)
    return module
