"""The public functions. Each reads as the way through the house: capture, partition, attach."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import nullcontext
from os import PathLike
from typing import Any, Literal, TypeVar

import torch
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
from fxcache.errors import ConfigError, StateError
from fxcache.integrations.diffusers import example_inputs as inputs_from_config
from fxcache.partition.choose import AUTO, CutRequest, require_cut_request
from fxcache.partition.cut import Cut
from fxcache.partition.frontier import Frontier
from fxcache.report.report import Report, report_of
from fxcache.rewrite.hoist import Level
from fxcache.rewrite.quantized import LARGEST
from fxcache.runtime.engine import Engine
from fxcache.runtime.mode import require_inference
from fxcache.runtime.module import attach, detach, engine_of, untouched, unwrapped
from fxcache.runtime.session import Session, require_key, require_num_steps
from fxcache.runtime.settings import Settings
from fxcache.schedule import GuidanceCache, Policy, Uniform
from fxcache.signature import Signature

M = TypeVar("M", bound=nn.Module)
LEVELS = {None: Level.NOTHING, "once": Level.ONCE, "table": Level.STEP}  # by ``hoist``


def optimize(
    model: M,
    *,
    cut: CutRequest = AUTO,
    policy: Policy | None = None,
    example_inputs: Mapping[str, Any] | Sequence[Any] | None = None,
    latent: str | None = None,
    dynamic: Mapping[str, Sequence[int]] | None = None,
    plan: Plan | str | PathLike[str] | None = None,
    guidance: GuidanceCache | None = None,
    partial_evaluation: bool = False,
    hoist: Literal["once", "table"] | None = None,
    kernels: bool = False,
    cache_dtype: torch.dtype | None = None,
    offload: bool = False,
) -> M:
    """Make a denoiser reuse its deep values between steps. In place; returns ``model`` itself.

    ``cut``: a skip index (0 is outermost), a module path, a pair of module paths (the first and
    the last that a reuse step skips, adding what they added last), a Cut from ``frontier``, or
    ``"auto"``: the skip connection, or the run of blocks, that saves the most FLOPs. ``policy``:
    which steps refresh; by default ``Uniform(interval=3)``. ``example_inputs``: keyword or
    positional arguments of one call, to capture at once; otherwise the first call captures, and
    each call of another shape. ``latent``: the parameter of ``forward`` that takes the noisy
    latent, where that is not the first. ``dynamic``: dimensions that may vary between calls without
    another capture, by input: ``{"sample": (0,), "encoder_hidden_states": (0,)}`` for the batch.
    ``plan``: instead of cut and policy, what ``calibrate`` or ``fxcache tune`` found, or its file.
    ``guidance``: whether, and how often, both halves of classifier-free guidance are computed; by
    default always. ``partial_evaluation``: whether convolutions and linear layers over a
    concatenation with a cached value are computed as far as that goes when it is cached, where that
    pays: reuse steps do less, and equal those without it up to the order of summation. ``hoist``:
    "once", what depends on the conditioning alone, such as the text's keys and values, is computed
    once a run, bit for bit as before; "table", also what depends on the timestep besides, such
    as modulations, for all of the schedule at once, equal up to the order of summation.
    ``kernels``: whether Triton kernels take the place of cache reads and the norms that follow
    them, on CUDA devices; the report says where, and where not. ``cache_dtype``: torch.int8 or
    torch.float8_e4m3fn, to keep a byte for each cached value, with a scale for each token or
    channel; ``fxcache.rewrite.quantized`` bounds the error. By default values are kept as they are.
    ``offload``: whether weights that no step reads, since what they give is hoisted, wait on the
    CPU; ``restore`` brings them back, which comes before adapters are loaded.

    Raises StateError (optimised already), ConfigError (options), ModeError (train mode), PlanError
    (a plan for another model), ModelFileError (a plan that cannot be read); at
    capture also CaptureError, NotADenoiserError and CutError. After an error the model is as it
    was before.
    """
    module = untouched(model, "fxcache.optimize")
    adjustment = correction = None
    if plan is not None:
        found = planned(module, plan, cut, policy)
        cut, policy = found.cut, found.policy
        adjustment, correction = found.adjustment, found.correction
        if partial_evaluation and (adjustment or correction):
            raise ConfigError(
                "what the plan's trained parts or trends belong to would not be cached any more",
                where="optimize(plan=..., partial_evaluation=True)",
                remedy="leave out partial_evaluation",
            )
    settings = Settings(
        require_cut_request(cut),
        require_policy(policy),
        adjustment,
        correction,
        require_guidance(guidance),
        latent,
        require_dynamic(dynamic),
        require_flag("partial_evaluation", partial_evaluation),
        require_flag("kernels", kernels),
        require_hoist(hoist),
        require_cache_dtype(cache_dtype),
        require_flag("offload", offload),
    )
    require_hoisting(settings)
    require_plain_reads(settings)
    engine = attach(module, settings)
    if example_inputs is not None:
        try:
            capture_now(engine, module, example_inputs)
        except Exception:
            detach(module)
            raise
    return model


def restore(model: M) -> M:
    """Undo ``optimize``: the original class and forward, nothing left behind."""
    module = unwrapped(model)
    require_engine(module, "fxcache.restore")
    detach(module)
    return model


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
    with recording(module, measurement, require_cut_request(cut)):
        sample()
    return Plan(calibrated(measurement, options), cut, fingerprint(module))


def frontier(model: nn.Module, *args: Any, **inputs: Any) -> list[Cut]:
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
    with engine.at_rest() if engine else nullcontext():
        return Frontier(capture(module, signature, call)).cuts()


def session(
    model: nn.Module,
    *,
    num_steps: int | None = None,
    timesteps: Sequence[float] | torch.Tensor | None = None,
    key: Hashable = None,
) -> Session:
    """``with fxcache.session(model, num_steps=50):`` around a custom sampling loop.

    Entering starts a run; all calls inside belong to it, and the two halves of sequential
    classifier-free guidance are told apart by their conditioning tensors. ``num_steps``, or the
    length of ``timesteps``: calls of each half, for policies that need it. ``key`` names one
    trajectory that outlives the block, for requests that take turns.
    """
    module = unwrapped(model)
    engine = require_engine(module, "fxcache.session")
    if timesteps is not None and num_steps is None:
        num_steps = length_of(timesteps)
    require_num_steps(num_steps)
    require_key(key)
    return Session(module, engine.store, num_steps, key)


def report(model: nn.Module) -> Report:
    """What was captured, cut, cached and decided, with times; print it, or ``.to_dict()``."""
    module = unwrapped(model)
    return report_of(module, require_engine(module, "fxcache.report"))


def length_of(timesteps: Sequence[float] | torch.Tensor) -> int:
    try:
        return len(timesteps)
    except TypeError:
        raise ConfigError(
            f"timesteps={timesteps!r} have no length",
            where="fxcache.session",
            remedy="pass the list or 1-D tensor that the loop goes through",
        ) from None


def planned(
    module: nn.Module, plan: Plan | str | PathLike[str], cut: CutRequest, policy: Policy | None
) -> Plan:
    """``plan``, read if need be, if it was made for ``module``."""
    if policy is not None or cut != AUTO:
        raise ConfigError(
            "a plan holds its cut and its policy",
            where="optimize(plan=...)",
            remedy="leave cut= and policy= out, or the plan",
        )
    found = plan if isinstance(plan, Plan) else Plan.load(plan)
    found.require_match(module)
    return found


def require_policy(policy: object) -> Policy:
    if policy is None:
        return Uniform()
    if not isinstance(policy, Policy):
        raise ConfigError(
            f"policy={policy!r} is a {type(policy).__name__}",
            where="optimize(policy=...)",
            remedy=f"pass one of: {', '.join(sorted(Policy.kinds))}",
        )
    return policy


def require_guidance(guidance: object) -> GuidanceCache | None:
    if guidance is None or isinstance(guidance, GuidanceCache):
        return guidance
    raise ConfigError(
        f"guidance={guidance!r} is a {type(guidance).__name__}",
        where="optimize(guidance=...)",
        remedy="pass fxcache.GuidanceCache(...), or leave it out to compute both halves always",
    )


def require_dynamic(dynamic: object) -> dict[str, tuple[int, ...]]:
    """``dynamic`` with its dimensions as tuples; ConfigError where it is no such thing."""
    given = {} if dynamic is None else dynamic
    if isinstance(given, Mapping) and all(
        isinstance(path, str)
        and isinstance(dims, Sequence)
        and all(isinstance(dim, int) and dim >= 0 for dim in dims)
        for path, dims in given.items()
    ):
        return {path: tuple(dims) for path, dims in given.items()}
    raise ConfigError(
        f"dynamic={dynamic!r} does not name dimensions by input",
        where="optimize(dynamic=...)",
        remedy='pass a dict such as {"sample": (0,), "encoder_hidden_states": (0,)}',
    )


def require_flag(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ConfigError(
        f"{name}={value!r} is neither True nor False",
        where=f"optimize({name}=...)",
        remedy=f"pass {name}=True or {name}=False",
    )


def require_hoist(hoist: object) -> Level:
    for name, level in LEVELS.items():
        if hoist == name:
            return level
    raise ConfigError(
        f"hoist={hoist!r} is neither None, 'once' nor 'table'",
        where="optimize(hoist=...)",
        remedy="pass one of these",
    )


def require_cache_dtype(dtype: object) -> torch.dtype | None:
    if dtype is None or (isinstance(dtype, torch.dtype) and dtype in LARGEST):
        return dtype
    raise ConfigError(
        f"cache_dtype={dtype!r} is no dtype to quantise to",
        where="optimize(cache_dtype=...)",
        remedy=f"pass one of {', '.join(map(str, LARGEST))}, or None to keep values as they are",
    )


def require_plain_reads(settings: Settings) -> None:
    """ConfigError where what is quantised would have to be extrapolated or corrected."""
    moved = "forecasts" if settings.policy.forecast_order else "corrections"
    if settings.cache_dtype and (settings.policy.forecast_order or settings.correction):
        raise ConfigError(
            f"{moved} need differences of cached values, which eight bits do not keep",
            where=f"optimize(cache_dtype={settings.cache_dtype})",
            remedy="leave out cache_dtype, or use a policy and plan without them",
        )


def require_hoisting(settings: Settings) -> None:
    """ConfigError where every step reads all weights, so that none may be elsewhere."""
    if settings.offload and not settings.hoist:
        raise ConfigError(
            "every step reads all weights, as long as nothing is hoisted",
            where="optimize(offload=True)",
            remedy='pass hoist="once" or hoist="table" as well, or leave out offload',
        )


def require_engine(module: nn.Module, caller: str) -> Engine:
    engine = engine_of(module)
    if engine is None:
        raise StateError(
            f"{type(module).__name__} is not optimised",
            where=caller,
            remedy="call fxcache.optimize(model) first",
        )
    return engine


def capture_now(
    engine: Engine, module: nn.Module, example: Mapping[str, Any] | Sequence[Any]
) -> None:
    """Capture for the call that ``example`` stands for."""
    if not isinstance(example, Mapping | Sequence):
        raise ConfigError(
            f"example_inputs={example!r} are neither a dict nor a list",
            where="optimize(example_inputs=...)",
            remedy="pass the arguments of one call, by name in a dict or by position in a list",
        )
    by_name = isinstance(example, Mapping)
    call = engine.signature.call(
        () if by_name else tuple(example), dict(example) if by_name else {}
    )
    with torch.no_grad():
        require_inference(module, call)
    engine.capture(module, call)
