"""Optimises a module in place by swapping its class, and undoes it."""

from collections.abc import Iterable
from contextlib import ExitStack
from types import MethodType

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from fxcache._torch import compiled_original
from fxcache.capture.weight_hooks import DIFFUSERS_HOOKS
from fxcache.errors import ConfigError, StateError
from fxcache.program import STATE_KEY
from fxcache.runtime.class_swap import without_swap
from fxcache.runtime.engine import Engine
from fxcache.runtime.mode import require_eval
from fxcache.runtime.optimized_class import DISPATCHES, Optimized, optimized_class
from fxcache.runtime.settings import Settings


def engine_of(module: nn.Module) -> Engine | None:
    """The engine of an optimised module; None for any other."""
    return vars(module).get(STATE_KEY) if isinstance(module, Optimized) else None


def prepare(module: nn.Module, settings: Settings) -> Engine:
    """Return an engine that runs ``module`` under ``settings``. The module does not change yet.

    If the module is optimised already, the engine takes over the captures that still fit.
    """
    previous = engine_of(module)
    if previous is None:
        require_no_optimized_inside(module)
        return Engine(type(module), settings)
    if previous.recorder is not None:
        raise StateError(
            f"{type(module).__name__} is being calibrated",
            where="fxcache.optimize",
            remedy="call fxcache.optimize after the calibration",
        )
    engine = Engine(previous.signature.original, settings)
    engine.inherit(previous)
    return engine


def install(module: nn.Module, engine: Engine) -> None:
    """Let ``engine`` run ``module``, in place of the module's own forward or of another engine.

    Running calls end with the old engine. Later calls find no cached values.
    """
    previous = engine_of(module)
    if previous is None:
        original = type(module)
        swapped = optimized_class(original)
        take_over_forward(module, original, swapped)
        module.__dict__[STATE_KEY] = engine
        module.__class__ = swapped
        return
    with previous.weights_resident():
        module.__dict__[STATE_KEY] = engine
    previous.clear()


def attach(module: nn.Module, settings: Settings, like: Engine | None = None) -> Engine:
    """Optimise ``module`` in place. Take over the captures of ``like``, its earlier engine."""
    engine = prepare(module, settings)
    if like:
        engine.inherit(like)
    install(module, engine)
    return engine


def install_all(engines: Iterable[tuple[nn.Module, Engine]]) -> None:
    """Install each engine on its module. After an error, all modules are as before."""
    with ExitStack() as undo:
        for module, engine in engines:
            previous = engine_of(module)
            install(module, engine)
            undo.callback(install, module, previous) if previous else undo.callback(detach, module)
        undo.pop_all()


def detach(module: nn.Module) -> None:
    """Undo ``install``. Classes that other libraries put on top stay."""
    engine: Engine = module.__dict__[STATE_KEY]
    with engine.weights_resident():
        restored = without_swap(type(module))
        take_over_forward(module, type(module), restored)
        module.__class__ = restored
        del module.__dict__[STATE_KEY]


def unwrapped(model: object, caller: str) -> nn.Module:
    """Return the module inside the wrappers of torch.compile and of data parallelism.

    Args:
        model: The module.
        caller: The public function that was called, for errors.

    Raises:
        ConfigError: ``model`` is no module, or a DataParallel that copies it at every call.
    """
    if not isinstance(model, nn.Module):
        named = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise ConfigError(
            f"{named} is not a torch.nn.Module",
            where=caller,
            remedy="pass the denoiser, such as pipe.unet; optimize, restore, report and clear also "
            "take a pipeline",
        )
    if isinstance(model, DataParallel) and len(model.device_ids) > 1:
        raise ConfigError(
            "DataParallel copies its module to each device at every call",
            where=f"DataParallel(device_ids={model.device_ids})",
            remedy="run one process a device (DistributedDataParallel), or pass model.module and "
            "call that",
        )
    return innermost(model)


def innermost(model: nn.Module) -> nn.Module:
    """Return the module inside torch.compile, DataParallel and DistributedDataParallel."""
    inner = compiled_original(model)
    if isinstance(model, DataParallel | DistributedDataParallel):
        inner = model.module
    return innermost(inner) if isinstance(inner, nn.Module) else model


def untouched(model: nn.Module, caller: str) -> nn.Module:
    """Return the module. Raise ModeError in train mode, and StateError if it is optimised."""
    module = unwrapped(model, caller)
    require_eval(module)
    require_not_optimized(module, caller)
    return module


def require_not_optimized(module: nn.Module, caller: str) -> None:
    """Raise StateError if ``module`` is optimised."""
    if engine_of(module) is not None:
        raise StateError(
            f"{type(module).__name__} is optimised already",
            where=caller,
            remedy="call fxcache.restore(model) first",
        )


def require_no_optimized_inside(
    module: nn.Module, remedy: str = "restore() that one first, or leave the outer one as it is"
) -> None:
    """Raise StateError with this ``remedy`` if a submodule is optimised: it cannot be traced."""
    inside = [p for p, m in module.named_modules() if isinstance(m, Optimized) and p]
    if inside:
        raise StateError(
            f"{type(module).__name__} contains an optimised module",
            where=inside[0],
            remedy=remedy,
        )


def take_over_forward(module: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> None:
    """Make a ``forward`` on the instance call the forward of ``new``.

    The hooks of accelerate and diffusers keep the forward that they call, which is replaced. Hooks
    and helpers that were removed (accelerate's, DeepCache's) leave the class's forward on the
    instance, which is deleted.

    Raises:
        StateError: The instance has another ``forward``, which would bypass fxcache.
    """
    own = vars(module)
    if is_bound(own.get("_old_forward"), old):
        own["_old_forward"] = MethodType(new.forward, module)
    elif place := hooked_forward(module, old):
        setattr(*place, MethodType(new.forward, module))
    elif is_bound(own.get("forward"), old):
        del own["forward"]
    elif "forward" in own:
        raise StateError(
            f"a forward set on the instance hides the one of {old.__name__}",
            where=object.__repr__(own["forward"]),
            remedy="optimize the module before what set it, or delete module.forward first",
        )


def hooked_forward(module: nn.Module, old: type[nn.Module]) -> tuple[object, str] | None:
    """Return the object and its attribute in which a hook of diffusers keeps ``old.forward``."""
    for reference in getattr(vars(module).get(DIFFUSERS_HOOKS), "_fn_refs", ()):
        for name in ("original_forward", "forward"):
            if is_bound(getattr(reference, name), old):
                return reference, name
    return None


def is_bound(method: object, kind: type[nn.Module]) -> bool:
    """Return whether ``method`` is ``kind.forward`` bound to an instance.

    A forward of any optimised class counts: a copied module has that of its source.
    """
    if not isinstance(method, MethodType):
        return False
    dispatches = hasattr(method.__func__, DISPATCHES) and issubclass(kind, Optimized)
    return dispatches or method.__func__ is kind.forward
