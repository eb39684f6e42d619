"""The arguments of ``fxcache.optimize``, checked and normalised."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from fxcache.analysis.hoisting import HoistLevel
from fxcache.calibration.plan import Plan
from fxcache.capture.config import CaptureConfig
from fxcache.capture.provided import capture_config_of
from fxcache.config import CacheConfig
from fxcache.errors import ConfigError, FxcacheError
from fxcache.forecasts import Forecast
from fxcache.partition.request import AUTO, CutRequest, require_cut_request
from fxcache.policies import GuidanceCache, Policy, ProtectedEnds
from fxcache.runtime.engine import Engine
from fxcache.runtime.mode import require_eval, require_inference
from fxcache.runtime.module import prepare
from fxcache.runtime.settings import Settings

T = TypeVar("T")
PlanLike = Plan | str | PathLike[str]
Hoist = Literal["auto", "once", "table"] | None
LEVELS = {
    None: HoistLevel.NOTHING,
    "auto": HoistLevel.PER_RUN,
    "once": HoistLevel.PER_RUN,
    "table": HoistLevel.PER_STEP,
}  # by ``hoist``


@dataclass(frozen=True)
class Arguments:
    """The arguments of ``optimize``. Each is checked, and a plan is read from its file.

    Raises:
        ConfigError: An argument has a value that it cannot have, or excludes another.
        ModelFileError: The plan cannot be read.
        PlanError: The file holds no plan.
    """

    cut: CutRequest
    policy: Policy
    forecast: Forecast | None
    plan: Plan | None
    guidance: GuidanceCache | None
    hoist: HoistLevel
    hoist_requested: bool
    cache: CacheConfig
    capture: CaptureConfig | None

    @classmethod
    def of(
        cls,
        policy: Policy | PlanLike | None = None,
        plan: PlanLike | None = None,
        forecast: Forecast | None = None,
        cut: CutRequest = AUTO,
        cache: CacheConfig | None = None,
        hoist: Hoist = "auto",
        guidance: GuidanceCache | None = None,
        capture: CaptureConfig | None = None,
    ) -> "Arguments":
        """Normalise the arguments of ``optimize``."""
        found = require_one_plan(policy, plan, cut, forecast)
        chosen = found.policy if found else require_policy(policy)
        return cls(
            require_cut_request(found.cut if found else cut),
            chosen,
            found.forecast if found else require_forecast(forecast),
            found,
            require_kind(guidance, GuidanceCache, "guidance"),
            require_hoist(hoist),
            hoist != "auto",
            require_kind(cache, CacheConfig, "cache") or CacheConfig(),
            require_kind(capture, CaptureConfig, "capture"),
        )

    def settings(self, module: nn.Module) -> Settings:
        """Return the settings for ``module``.

        Raises:
            ConfigError: Options exclude each other.
            PlanError: The plan was made for another model.
        """
        if self.plan:
            self.plan.require_match(module)
        capture = self.capture or capture_config_of(module)
        return Settings(
            self.cut,
            self.policy,
            self.forecast,
            self.plan.adjustment if self.plan else None,
            self.plan.correction if self.plan else None,
            self.guidance,
            self.hoist,
            self.hoist_requested,
            self.cache,
            replace(capture, example_inputs=None),  # do not keep its tensors alive
            self.plan.run_lengths if self.plan else (),
        )

    def engine(self, module: nn.Module, component: str = "") -> Engine:
        """Return an engine for ``module`` with these arguments. ``module`` does not change.

        Args:
            module: A denoiser, in eval mode.
            component: The name of the module in a pipeline, for errors.
        """
        try:
            require_eval(module)
            engine = prepare(module, self.settings(module))
            engine.notices.warn_uncalibrated(self.policy)
            if self.capture and self.capture.example_inputs is not None:
                capture_now(engine, module, self.capture.example_inputs)
            return engine
        except FxcacheError as error:
            if not component:
                raise
            where = f"component {component}; {error.where}".removesuffix("; ")
            raise type(error)(error.what, where=where, remedy=error.remedy) from error


def capture_now(
    engine: Engine, module: nn.Module, example: Mapping[str, Any] | Sequence[Any]
) -> None:
    """Capture the call with the arguments ``example``."""
    by_name = isinstance(example, Mapping)
    args, kwargs = ((), dict(example)) if by_name else (tuple(example), {})
    call = engine.signature.call(args, kwargs)
    with torch.no_grad():
        require_inference(module)
    engine.capture(module, call)


def require_one_plan(policy: object, plan: object, cut: object, forecast: object) -> Plan | None:
    """Return the plan, passed as ``plan`` or ``policy``; raise ConfigError for other parts."""
    as_policy = isinstance(policy, Plan | str | PathLike)
    if plan is None and not as_policy:
        return None
    if (plan is not None and policy is not None) or cut != AUTO or forecast is not None:
        raise ConfigError(
            "a plan already defines the cut, the policy and the forecast",
            where="optimize(plan, ...)",
            remedy="leave out cut, policy and forecast, or the plan",
        )
    return require_plan(policy if as_policy else plan)


def require_plan(plan: object) -> Plan:
    """Return ``plan``; read it if it is a path."""
    if isinstance(plan, Plan):
        return plan
    if isinstance(plan, str | PathLike):
        return Plan.load(plan)
    raise ConfigError(
        f"plan={plan!r} is a {type(plan).__name__}",
        where="optimize(plan=...)",
        remedy="pass a Plan, or the path of a file written by `fxcache calibrate` or `tune`",
    )


def require_policy(policy: object) -> Policy:
    """Return ``policy``, or the default policy for None; raise ConfigError for other types."""
    if policy is None:
        return ProtectedEnds()
    if not isinstance(policy, Policy):
        raise ConfigError(
            f"policy={policy!r} is a {type(policy).__name__}",
            where="optimize(policy=...)",
            remedy=f"pass a plan, or one of: {', '.join(sorted(Policy.kinds))}",
        )
    return policy


def require_forecast(forecast: object) -> Forecast | None:
    """Return ``forecast`` if it is a forecast or None; raise ConfigError otherwise."""
    if forecast is None or isinstance(forecast, Forecast):
        return forecast
    raise ConfigError(
        f"forecast={forecast!r} is a {type(forecast).__name__}",
        where="optimize(forecast=...)",
        remedy=f"pass one of: {', '.join(sorted(Forecast.kinds))}",
    )


def require_kind(value: object, kind: type[T], name: str) -> T | None:
    """``value`` if it is a ``kind`` or None; ConfigError otherwise."""
    if value is None or isinstance(value, kind):
        return value
    raise ConfigError(
        f"{name}={value!r} is a {type(value).__name__}",
        where=f"optimize({name}=...)",
        remedy=f"pass fxcache.{kind.__name__}(...), or leave it out",
    )


def require_hoist(hoist: object) -> HoistLevel:
    """Return the level of ``hoist``; raise ConfigError for other values."""
    for name, level in LEVELS.items():
        if hoist == name:
            return level
    raise ConfigError(
        f"hoist={hoist!r} is neither None, 'auto', 'once' nor 'table'",
        where="optimize(hoist=...)",
        remedy="pass one of these values",
    )
