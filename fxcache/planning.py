"""The public functions that prepare a plan: list a model's cuts, and fit a policy to it."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from torch import nn

from fxcache.calibration.calibration import (
    calibrated,
    measurement_for,
    recording,
    require_options,
)
from fxcache.calibration.fingerprint import fingerprint
from fxcache.calibration.plan import Plan
from fxcache.capture.capture import capture
from fxcache.capture.provided import capture_config_of
from fxcache.integrations.example_inputs import example_inputs
from fxcache.partition.cut import Cut
from fxcache.partition.frontier import Frontier
from fxcache.partition.request import AUTO, CutRequest, require_cut_request
from fxcache.policies import Policy
from fxcache.runtime.denoisers import module_of
from fxcache.runtime.module import engine_of, untouched
from fxcache.signature import Signature


def calibrate(
    model: nn.Module,
    policy: type[Policy],
    sample: Callable[[], object],
    *,
    cut: CutRequest = AUTO,
    **options: Any,
) -> Plan:
    """Fit a policy to a model, and return it as a plan.

    The function calls ``sample()`` once and measures what the model computes meanwhile. Nothing is
    cached: the model's results are the same bit for bit.

    Args:
        model: A denoiser in eval mode that is not optimised.
        policy: The class of the policy: ``TeaCache``, ``BlockCaching``, ``SmoothCache`` or
            ``MagCache``.
        sample: Runs the sampling loop of ``model``, once or several times, each time with as many
            steps as the plan will serve. What it returns is ignored.
        cut: What the plan caches, as for ``optimize``.
        **options: Options of the policy that are not measured, such as ``threshold=0.2``.

    Returns:
        A plan with the fitted policy, the cut, the model's fingerprint and the lengths of the runs.

    Raises:
        ConfigError: Policies of this class are not calibrated, or do not have such an option.
        StateError: The model is optimised.
        ModeError: The model is in train mode, and a layer acts on it.
        ScheduleError: No run of more than one step was seen, or runs differ in length.
        CaptureError: The model cannot be captured.
        CutError: The cut does not exist, or saves nothing.
    """
    module = untouched(module_of(model, "fxcache.calibrate"), "fxcache.calibrate")
    measurement = measurement_for(policy)
    require_options(policy, options)
    with recording(module, measurement, require_cut_request(cut)) as run_lengths:
        sample()
    fitted = calibrated(measurement, options)
    return Plan(fitted, cut, fingerprint(module), run_lengths=tuple(run_lengths))


def list_cuts(model: nn.Module, *args: Any, **inputs: Any) -> list[Cut]:
    """List where a model can be cut, and what each cut saves.

    The function captures the model and computes nothing: the model and its inputs may be on the
    meta device.

    Args:
        model: A denoiser, optimised or not.
        *args: Positional arguments of one call.
        **inputs: Keyword arguments of one call. Without any arguments, the function uses inputs of
            the shapes that the configuration of a diffusers U-Net or DiT describes, at batch 1.

    Returns:
        The cuts at skip connections that save FLOPs, the outermost first. If none of them saves
        half of the FLOPs, the cuts along streams follow: from each block to the last, the longest
        first.

    Raises:
        ConfigError: ``model`` is a pipeline, or there are no arguments, and the configuration does
            not tell their shapes.
        CaptureError: The model cannot be captured.
        NotADenoiserError: The output does not depend on the latent.
    """
    module = module_of(model, "fxcache.list_cuts")
    if not args and not inputs:
        inputs = example_inputs(module)
    engine = engine_of(module)
    config = capture_config_of(module)
    plain = Signature(type(module), config.latent, config.dynamic)
    signature = engine.signature if engine else plain
    call = signature.call(args, inputs)
    with engine.weights_resident() if engine else nullcontext():
        return Frontier(capture(module, signature, call)).cuts()
