"""Finds the denoisers among the components of a pipeline."""

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from fxcache.errors import ConfigError, FxcacheWarning
from fxcache.runtime.module import innermost, unwrapped
from fxcache.signature import is_timestep_name

DENOISERS = ("unet", "transformer", "prior", "decoder")  # names of components of pipelines

LOAD = "load the components of the modular pipeline first, by load_components or update_components"


def is_pipeline(candidate: object) -> bool:
    """Return whether ``candidate`` is callable and has modules among its ``components``.

    Those of a modular pipeline are None until they are loaded.
    """
    if isinstance(candidate, nn.Module | type) or not callable(candidate):
        return False
    components = getattr(candidate, "components", None)
    return isinstance(components, Mapping) and any(
        isinstance(component, nn.Module | None) for component in components.values()
    )


def denoisers_of(pipeline: Any) -> dict[str, nn.Module]:
    """Return the denoisers among the pipeline's components by name, without their wrappers.

    Raises:
        ConfigError: The pipeline has none.
    """
    found: dict[str, nn.Module] = {}
    for name, component in pipeline.components.items():
        if isinstance(component, nn.Module) and is_denoiser(name, innermost(component)):
            found[name] = unwrapped(component, "fxcache.optimize")
    if not found:
        names = ", ".join(f"{k} ({type(v).__name__})" for k, v in pipeline.components.items())
        raise ConfigError(
            f"no component of {type(pipeline).__name__} is a denoiser: {names}",
            where=type(pipeline).__name__,
            remedy=LOAD
            if None in pipeline.components.values() and hasattr(pipeline, "load_components")
            else "pass a pipeline with a component whose forward takes a timestep, or the "
            "denoiser itself",
        )
    return found


def module_of(model: object, caller: str) -> nn.Module:
    """Return the module inside its wrappers, for a function that takes no pipeline.

    Args:
        model: The module.
        caller: The public function that was called, for errors.

    Raises:
        ConfigError: ``model`` is a pipeline or another object, or a DataParallel that copies it.
    """
    if not is_pipeline(model):
        return unwrapped(model, caller)
    components: Mapping[str, object] = model.components  # type: ignore[attr-defined]
    names = [
        name
        for name, component in components.items()
        if isinstance(component, nn.Module) and is_denoiser(name, innermost(component))
    ]
    found = " or ".join(f"pipe.{name}" for name in names) or "the module"
    needless = " Each call of an optimised pipeline is one run, and needs no session."
    raise ConfigError(
        f"{type(model).__name__} is a pipeline, and {caller} takes one module",
        where=caller,
        remedy=f"pass its denoiser: {found}." + (needless if caller == "fxcache.session" else ""),
    )


def is_denoiser(name: str, module: nn.Module) -> bool:
    """Return whether a pipeline calls its component ``name`` once a step with the noisy latent.

    ControlNets are called once a step too, but they only serve the denoiser. A component with the
    name of a denoiser may give its timestep any name, if it takes a second input.
    """
    kind = type(module)
    by_name = not set(name.split("_")).isdisjoint(DENOISERS)
    if encodes(kind) or (not by_name and "controlnet" in f"{name} {kind.__name__}".lower()):
        return False
    return takes_timestep(kind) or (by_name and takes_second_input(kind))


def takes_timestep(kind: type[nn.Module]) -> bool:
    """Return whether a parameter of ``kind.forward`` has a usual name for a timestep."""
    return any(is_timestep_name(name) or "timestep" in name for name in inputs_of(kind))


def takes_second_input(kind: type[nn.Module]) -> bool:
    """Return whether ``kind.forward`` requires more than one input."""
    required = [p for p in inputs_of(kind).values() if p.default is p.empty]
    return len(required) > 1


def encodes(kind: type[nn.Module]) -> bool:
    """Return whether ``kind`` is an autoencoder: pipelines call its ``encode`` and ``decode``."""
    return callable(getattr(kind, "encode", None)) or callable(getattr(kind, "decode", None))


def inputs_of(kind: type[nn.Module]) -> dict[str, inspect.Parameter]:
    """Return the parameters of ``kind.forward``, without ``self``."""
    return dict(list(inspect.signature(kind.forward).parameters.items())[1:])


def warn_unless_denoiser(module: nn.Module, stacklevel: int) -> None:
    """Warn if ``module`` does not look like one that a sampling loop calls once a step.

    A required second input of any name may be a timestep, so it suffices.
    """
    kind = type(module)
    if takes_timestep(kind) or (takes_second_input(kind) and not encodes(kind)):
        return
    called = "; pipelines call its encode and decode" if encodes(kind) else ""
    warnings.warn(
        f"{kind.__name__}.forward takes no timestep{called}. fxcache reuses values only if a "
        "sampling loop calls the module once a step. Optimize the denoiser, such as pipe.unet or "
        "pipe.transformer, or the whole pipeline.",
        FxcacheWarning,
        stacklevel=stacklevel + 1,
    )
