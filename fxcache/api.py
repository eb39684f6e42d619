"""The public functions."""

from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar, overload

import torch
from torch import nn

from fxcache.arguments import Arguments, Hoist, PlanLike
from fxcache.calibration.calibration import (
    calibrated,
    measurement_for,
    recording,
    require_options,
)
from fxcache.calibration.fingerprint import fingerprint
from fxcache.calibration.plan import Plan
from fxcache.capture.capture import capture as capture_program
from fxcache.config import CacheConfig, CaptureConfig
from fxcache.errors import ConfigError
from fxcache.forecasts import Forecast
from fxcache.integrations.diffusers import example_inputs as inputs_from_config
from fxcache.partition.choose import AUTO, CutRequest, require_cut_request
from fxcache.partition.cut import Cut
from fxcache.partition.frontier import Frontier
from fxcache.policies import GuidanceCache, Policy
from fxcache.report.pipeline import PipelineReport
from fxcache.report.report import Report, report_of
from fxcache.runtime.denoisers import denoisers_of, is_pipeline, warn_unless_denoiser
from fxcache.runtime.module import (
    detach,
    engine_of,
    install,
    install_all,
    untouched,
    unwrapped,
)
from fxcache.runtime.pipeline import (
    attach_pipeline,
    detach_pipeline,
    optimized_modules,
    require_engine,
)
from fxcache.runtime.session import Session, require_key, require_num_steps
from fxcache.signature import Signature

M = TypeVar("M")


def optimize(
    model: M,
    policy: Policy | PlanLike | None = None,
    *,
    plan: PlanLike | None = None,
    forecast: Forecast | None = None,
    cut: CutRequest = AUTO,
    cache: CacheConfig | None = None,
    hoist: Hoist = None,
    guidance: GuidanceCache | None = None,
    capture: CaptureConfig | None = None,
) -> M:
    """Make a denoiser, or all denoisers of a pipeline, reuse deep values between steps.

    ``model`` changes in place. Called again, the function replaces all settings by the new ones:
    captures that still fit are kept, cached values are forgotten. After an error ``model`` is as it
    was before.

    Args:
        model: A denoiser, or a pipeline: an object with ``components``, of which those that take a
            timestep at each step are optimised. Each call of an optimised pipeline is one run.
        policy: Which steps refresh, by default ``Uniform(interval=3)``. Or a plan, or its path.
        plan: What ``calibrate`` or ``fxcache tune`` found: a policy with its cut. Or its path.
        forecast: How cached values are extrapolated to a reuse step, such as ``Taylor(order=1)`` or
            ``Hermite(order=2)``. By default as the policy's method does, mostly not at all.
        cut: What is cached: a skip index (0 is outermost), a module path, a pair of module paths
            (the first and the last that a reuse step skips), a Cut from ``list_cuts``, a list of
            these, or ``"auto"``: the skip connection or run of blocks that saves the most FLOPs.
        cache: In which form values are cached, and how many.
        hoist: ``"once"`` computes what depends on the conditioning alone once a run, such as the
            text's keys and values, bit for bit as before. ``"table"`` also computes what depends on
            the timestep, such as modulations, for all of the schedule at once, equal up to the
            order of summation.
        guidance: How often both halves of classifier-free guidance are computed, by default always.
        capture: How the model is captured, and whether at once. By default the first call of each
            kind (shapes, dtypes, options) captures.

    Returns:
        ``model`` itself.

    Raises:
        ConfigError: An option has a value that it cannot have, two exclude each other, or a
            pipeline has no denoiser.
        StateError: The model contains an optimised one, or is being calibrated.
        ModeError: The model is in train mode.
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
        module = unwrapped(model)
        engine = arguments.engine(module)
        warn_unless_denoiser(module, stacklevel=2)
        install(module, engine)
    return model


def restore(model: M) -> M:
    """Undo ``optimize``: the original class and forward, nothing left behind.

    Args:
        model: An optimised module, or a pipeline with optimised components.

    Returns:
        ``model`` itself.

    Raises:
        StateError: Nothing of it is optimised.
    """
    for module in optimized_modules(model, "fxcache.restore").values():
        detach(module)
    if is_pipeline(model):
        detach_pipeline(model)
    return model


def clear(model: object) -> None:
    """Drop every cached value and every trajectory. Captures are kept; the next call refreshes.

    Args:
        model: An optimised module, or a pipeline with optimised components.

    Raises:
        StateError: Nothing of it is optimised.
    """
    for module in optimized_modules(model, "fxcache.clear").values():
        require_engine(module, "fxcache.clear").clear()


def calibrate(
    model: nn.Module,
    policy: type[Policy],
    sample: Callable[[], object],
    *,
    cut: CutRequest = AUTO,
    **options: Any,
) -> Plan:
    """A plan for ``model``, with a policy of this kind fitted to what ``sample()`` shows.

    ``policy``: TeaCache, BlockCaching, SmoothCache or MagCache. ``sample`` runs the model's
    sampling loop, once or more, with as many steps as will be used; nothing is cached meanwhile.
    ``options``: the policy's own, such as its threshold.

    Raises ConfigError for policies that need no calibration, and options that they do not have;
    StateError if the model is optimised; ScheduleError if no run was seen.
    """
    module = untouched(model, "fxcache.calibrate")
    measurement = measurement_for(policy)
    require_options(policy, options)
    with recording(module, measurement, require_cut_request(cut)) as run_lengths:
        sample()
    fitted = calibrated(measurement, options)
    return Plan(fitted, cut, fingerprint(module), run_lengths=tuple(run_lengths))


def list_cuts(model: nn.Module, *args: Any, **inputs: Any) -> list[Cut]:
    """The cuts of ``model`` for these inputs, the one that saves most first.

    Those at skip connections, where these save at least half the FLOPs; else also those along
    streams, from each block to the last. Does no arithmetic: model and inputs may be on meta.
    Without inputs, those of a diffusers model's configuration are used, at batch 1.
    """
    module = unwrapped(model)
    if not args and not inputs:
        inputs = inputs_from_config(module)
    engine = engine_of(module)
    signature = engine.signature if engine else Signature(type(module))
    call = signature.call(args, inputs)
    with engine.weights_resident() if engine else nullcontext():
        return Frontier(capture_program(module, signature, call)).cuts()


def session(
    model: nn.Module,
    *,
    num_steps: int | None = None,
    timesteps: Sequence[float] | torch.Tensor | None = None,
    key: Hashable = None,
) -> Session:
    """``with fxcache.session(model, num_steps=50):`` around a custom sampling loop.

    Entering starts a run, and all calls inside belong to it. The two halves of classifier-free
    guidance, where each is a call of its own, are told apart by their conditioning tensors.

    Args:
        model: An optimised module.
        num_steps: How many calls each half makes, for policies that need to know.
        timesteps: What the loop goes through; its length stands for ``num_steps``.
        key: The name of one request, whose cached values outlive the block: requests that take
            turns open a session around each step.

    Raises:
        StateError: The module is not optimised.
        ConfigError: ``num_steps`` is no positive whole number, ``timesteps`` has no length, or
            ``key`` cannot be hashed.
    """
    module = unwrapped(model)
    require_engine(module, "fxcache.session")
    if timesteps is not None and num_steps is None:
        num_steps = length_of(timesteps)
    require_num_steps(num_steps)
    require_key(key)
    return Session(module, num_steps, key)


@overload
def report(model: nn.Module) -> Report: ...  # type: ignore[overload-overlap]
@overload
def report(model: object) -> PipelineReport: ...
def report(model: object) -> Report | PipelineReport:
    """What was captured, cut, cached and decided, with times; print it, or call ``.to_dict()``.

    Args:
        model: An optimised module, or a pipeline with optimised components.

    Returns:
        A Report for a module, a PipelineReport for a pipeline.

    Raises:
        StateError: Nothing of it is optimised.
    """
    modules = optimized_modules(model, "fxcache.report")
    reports = {n: report_of(m, require_engine(m, "fxcache.report")) for n, m in modules.items()}
    return PipelineReport(type(model).__name__, reports) if is_pipeline(model) else reports[""]


def length_of(timesteps: Sequence[float] | torch.Tensor) -> int:
    try:
        return len(timesteps)
    except TypeError:
        raise ConfigError(
            f"timesteps={timesteps!r} have no length",
            where="fxcache.session",
            remedy="pass the list or 1-D tensor that the loop goes through",
        ) from None
