"""The public functions that optimise a model, and those for optimised ones."""

from collections.abc import Hashable, Sequence
from typing import TypeVar, overload

import torch
from torch import nn

from fxcache.arguments import Arguments, Hoist, PlanLike
from fxcache.capture.config import CaptureConfig
from fxcache.checks import require_integer_value
from fxcache.config import CacheConfig
from fxcache.forecasts import Forecast
from fxcache.partition.request import AUTO, CutRequest
from fxcache.policies import GuidanceCache, Policy
from fxcache.report.pipeline import PipelineReport
from fxcache.report.report import Report, report_of
from fxcache.runtime.denoisers import (
    denoisers_of,
    is_pipeline,
    module_of,
    warn_unless_denoiser,
)
from fxcache.runtime.module import (
    detach,
    engine_of,
    install,
    install_all,
    require_no_optimized_inside,
    unwrapped,
)
from fxcache.runtime.pipeline import (
    attach_pipeline,
    detach_pipeline,
    optimized_components,
    optimized_modules,
    require_engine,
)
from fxcache.runtime.session import Session, length_of, require_key

M = TypeVar("M")


def optimize(
    model: M,
    policy: Policy | PlanLike | None = None,
    *,
    plan: PlanLike | None = None,
    forecast: Forecast | None = None,
    cut: CutRequest = AUTO,
    cache: CacheConfig | None = None,
    hoist: Hoist = "auto",
    guidance: GuidanceCache | None = None,
    capture: CaptureConfig | None = None,
) -> M:
    """Make a denoiser, or all denoisers of a pipeline, reuse cached values between steps.

    ``model`` changes in place. Called again, the function replaces all settings by the new ones:
    captures that still fit are kept, cached values are forgotten. After an error ``model`` is as it
    was before.

    Args:
        model: A denoiser in eval mode, or a pipeline. A pipeline is an object with ``components``;
            those that take a timestep at each step are optimised. Each call of an optimised
            pipeline is one run.
        policy: Which steps refresh, by default ``ProtectedEnds(interval=3)``. A plan or its path
            may be passed instead.
        plan: A plan or its path, as ``calibrate`` and ``fxcache tune`` make it: a policy with its
            cut and its forecast. Pass either ``policy`` or ``plan``, and a plan without ``cut`` and
            ``forecast``.
        forecast: How cached values are extrapolated to a reuse step, such as ``Taylor(order=1)`` or
            ``Hermite(order=2)``. By default the policy decides; most policies extrapolate nothing.
        cut: What is cached: a skip index (0 is outermost), a module path, a pair of module paths
            (the first and the last that a reuse step skips), the last calls of a module that
            iterates (``"solver[-2:]"``), a ``Cut`` from ``list_cuts``, a list of these, or
            ``"auto"``: the skip connection or run of blocks that saves the most FLOPs.
        cache: In which form values are cached, and how many.
        hoist: ``"once"`` computes what depends on the conditioning alone once a run, such as the
            text's keys and values, bit for bit as before. ``"auto"`` does the same, and does not
            warn if a loop prevents it. ``"table"`` also computes what depends on the timestep, such
            as modulations, for all of the schedule at once, equal up to the order of summation.
            With None, each step computes everything.
        guidance: How often both halves of classifier-free guidance are computed, by default always.
        capture: How the model is captured, and whether at once. By default the first call of each
            combination of shapes, dtypes, devices and options captures. A model from
            ``fxcache.load`` keeps the options with which its graphs were captured.

    Returns:
        ``model`` itself.

    Raises:
        ConfigError: An option has a value that it cannot have, two options exclude each other, or a
            pipeline has no denoiser.
        StateError: The model contains an optimised one, or is being calibrated.
        ModeError: The model is in train mode, and a layer acts on it.
        PlanError: The plan was made for another model.
        ModelFileError: The plan cannot be read.
        CaptureError: The model cannot be captured; also at the first call.
        NotADenoiserError: The output does not depend on the latent; also at the first call.
        CutError: The cut does not exist, or saves nothing; also at the first call.
    """
    arguments = Arguments.of(policy, plan, forecast, cut, cache, hoist, guidance, capture)
    if is_pipeline(model):
        denoisers = denoisers_of(model)
        install_all([(m, arguments.engine(m, name)) for name, m in denoisers.items()])
        attach_pipeline(model, denoisers)
    else:
        module = unwrapped(model, "fxcache.optimize")
        engine = arguments.engine(module)
        warn_unless_denoiser(module, stacklevel=2)
        install(module, engine)
    return model


def restore(model: M) -> M:
    """Undo ``optimize``.

    The model has its original class and ``forward`` again, and offloaded weights are back on their
    device. Cached values and captures are freed. A model that is not optimised stays as it is, so
    the function may be called twice, or after an ``optimize`` that failed.

    Args:
        model: A module or a pipeline.

    Returns:
        ``model`` itself.

    Raises:
        ConfigError: ``model`` is neither a module nor a pipeline.
        StateError: The module is not optimised, but contains an optimised one.
    """
    if is_pipeline(model):
        for module in optimized_components(model).values():
            detach(module)
        detach_pipeline(model)
        return model
    module = unwrapped(model, "fxcache.restore")
    if engine_of(module) is None:
        require_no_optimized_inside(module, "pass that one to fxcache.restore")
    else:
        detach(module)
    return model


def clear(model: object) -> None:
    """Drop all cached values, and keep the captures.

    The next call refreshes.

    Args:
        model: An optimised module, or a pipeline with optimised components.

    Raises:
        StateError: Neither the model nor a component of it is optimised.
    """
    for module in optimized_modules(model, "fxcache.clear").values():
        require_engine(module, "fxcache.clear").clear()


def session(
    model: nn.Module,
    *,
    num_steps: int | None = None,
    timesteps: Sequence[float] | torch.Tensor | None = None,
    key: Hashable = None,
) -> Session:
    """Open a run for a sampling loop of your own.

    Use it as ``with fxcache.session(model, num_steps=50):`` around the loop. Entering the block
    starts a run, and all calls inside belong to it. If each half of classifier-free guidance is a
    call of its own, their conditioning tensors tell the two halves apart.

    Args:
        model: An optimised module.
        num_steps: The number of calls in the run, for policies that need its length. If guidance
            calls the model twice a step, count one of the two.
        timesteps: The list or 1-D tensor that the loop goes through. Its length is taken for
            ``num_steps``.
        key: The name of one request. Its cached values outlive the block, so requests that take
            turns can open a session around each step.

    Returns:
        The session, a context manager that is not open yet.

    Raises:
        StateError: The module is not optimised.
        ConfigError: ``model`` is a pipeline, ``num_steps`` is not a positive whole number,
            ``timesteps`` has no length, or ``key`` cannot be hashed.
    """
    module = module_of(model, "fxcache.session")
    require_engine(module, "fxcache.session")
    if timesteps is not None and num_steps is None:
        num_steps = length_of(timesteps)
    if num_steps is not None:
        require_integer_value(num_steps, "num_steps", "fxcache.session(num_steps=...)", 1)
    require_key(key)
    return Session(module, num_steps, key)


@overload
def report(model: nn.Module) -> Report: ...  # type: ignore[overload-overlap]
@overload
def report(model: object) -> PipelineReport: ...
def report(model: object) -> Report | PipelineReport:
    """Report what was captured, cut, cached and decided, with times.

    Print the report, or take it as data with ``.to_dict()``.

    Args:
        model: An optimised module, or a pipeline with optimised components.

    Returns:
        A ``Report`` for a module, a ``PipelineReport`` for a pipeline.

    Raises:
        StateError: Neither the model nor a component of it is optimised.
    """
    modules = optimized_modules(model, "fxcache.report")
    reports = {n: report_of(m, require_engine(m, "fxcache.report")) for n, m in modules.items()}
    return PipelineReport(type(model).__name__, reports) if is_pipeline(model) else reports[""]
