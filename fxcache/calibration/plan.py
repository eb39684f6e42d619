"""A plan: what to cache and when, found once for a model and kept as JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from torch import Tensor, nn

from fxcache.calibration.fingerprint import Fingerprint, fingerprint
from fxcache.codecs.drift import DriftCorrection
from fxcache.codecs.scale_shift import ScaleShift
from fxcache.errors import FxcacheError, ModelFileError, PlanError
from fxcache.forecasts import Forecast
from fxcache.integrations.diffusers import installed
from fxcache.partition.choose import AUTO, CutRequest, One, require_cut_request
from fxcache.partition.cut import SPAN, Cut
from fxcache.policies import Policy
from fxcache.runtime.module import unwrapped

FORMAT = 2
WEIGHTS = ".safetensors"  # the suffix of the file with the weights of a plan
CORRECTION = "trend:"  # the prefix of the names of a correction's weights
NONE: Mapping[str, Tensor] = MappingProxyType({})
PACKAGES = ("fxcache", "torch", "diffusers")


@dataclass(frozen=True)
class Plan:
    """A policy and the cut it goes with, for one model.

    ``settings``: how it was found (prompts, seed, steps, …); ``versions``: of the packages;
    ``adjustment``, ``correction``: of what is read from the cache, where one was trained or
    measured. ``run_lengths``: for each schedule that it was calibrated on, its length, the place
    where the run began, and how many calls the model made, which may be a part of them.
    ``forecast``: how cached values are extrapolated; None for as the policy's method does.

    Raises PlanError for a correction of what is forecast.
    """

    policy: Policy
    cut: CutRequest
    model: Fingerprint
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=lambda: installed_versions())
    adjustment: ScaleShift | None = None
    correction: DriftCorrection | None = None
    run_lengths: tuple[tuple[int, int, int], ...] = ()
    forecast: Forecast | None = None

    def __post_init__(self) -> None:
        if self.correction and (self.forecast or self.policy.default_forecast):
            raise PlanError(
                "the plan has both a correction and a forecast, which exclude each other",
                where=f"Plan({type(self.policy).__name__}, forecast={self.forecast!r})",
                remedy="leave out one of them; policies such as TaylorSeer always forecast",
            )

    @classmethod
    def of(
        cls,
        model: nn.Module,
        policy: Policy,
        cut: CutRequest = AUTO,
        forecast: Forecast | None = None,
    ) -> Self:
        """A plan made by hand."""
        identity = fingerprint(unwrapped(model))
        return cls(policy, require_cut_request(cut), identity, forecast=forecast)

    @property
    def weights(self) -> dict[str, Tensor]:
        """Those of the adjustment and of the correction, by names that tell them apart."""
        adjusting = self.adjustment.weights if self.adjustment else {}
        correcting = self.correction.weights if self.correction else {}
        return {**adjusting, **{f"{CORRECTION}{name}": t for name, t in correcting.items()}}

    def require_match(self, model: nn.Module) -> None:
        """PlanError, which says what differs, unless the plan was made for this model."""
        if differences := self.model.differences(fingerprint(model)):
            raise PlanError(
                "the plan was made for another model: " + "; ".join(differences[:3]),
                where=f"optimize(plan=...) of {type(model).__name__}",
                remedy="calibrate or tune again, with this model",
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the ``weights``; ``from_dict`` reads it back."""
        return {
            "fxcache_plan": FORMAT,
            "versions": dict(self.versions),
            "model": self.model.to_dict(),
            "cut": cut_to_json(self.cut),
            "policy": self.policy.to_dict(),
            "forecast": self.forecast.to_dict() if self.forecast else None,
            "settings": dict(self.settings),
            "run_lengths": [list(length) for length in self.run_lengths],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], weights: Mapping[str, Tensor] = NONE) -> Self:
        """The plan that ``to_dict`` described, with its weights; PlanError if ``data`` is none."""
        if data.get("fxcache_plan") != FORMAT:
            raise PlanError(
                f"this is not an fxcache plan of format {FORMAT}",
                where=f"fxcache_plan={data.get('fxcache_plan')!r}",
                remedy="pass a file written by fxcache calibrate or fxcache tune of this version",
            )
        try:
            return cls(
                policy=Policy.from_dict(data["policy"]),
                forecast=Forecast.from_dict(data["forecast"]) if data["forecast"] else None,
                cut=require_cut_request(data["cut"]),
                model=Fingerprint(**data["model"]),
                settings=data["settings"],
                versions=data["versions"],
                run_lengths=tuple(
                    (int(length), int(first), int(calls))
                    for length, first, calls in data.get("run_lengths", ())
                ),
                **parted(weights),
            )
        except FxcacheError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise incomplete(error) from error

    def save(self, file: str | PathLike[str]) -> None:
        """Write it to ``file``; ModelFileError where that cannot be.

        Its weights go to a file beside it, named alike but for ``.safetensors`` at the end.
        """
        path, data = Path(file), self.to_dict()
        if path.suffix == WEIGHTS:
            raise ModelFileError(
                f"a plan is a JSON file; {WEIGHTS} is the suffix of the file with its weights",
                where=str(file),
                remedy="choose another name, such as plan.json",
            )
        beside = path.with_name(path.name.removesuffix(".json") + WEIGHTS)
        data["weights"] = beside.name if self.weights else None
        try:
            if self.weights:
                write_weights(beside, self.weights)
            path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ModelFileError(
                f"the plan cannot be written: {error}",
                where=str(file),
                remedy="choose another place",
            ) from error

    @classmethod
    def load(cls, file: str | PathLike[str]) -> Self:
        """The plan in ``file``; ModelFileError, or PlanError where it holds something else."""
        path = Path(file)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelFileError(
                f"the plan cannot be read: {error}",
                where=str(file),
                remedy="pass a file written by fxcache calibrate or fxcache tune",
            ) from error
        if not isinstance(data, dict):
            data = {}
        beside = required(data, "weights") if "fxcache_plan" in data else None
        # Only the file name is used, so that a plan cannot name files in other folders.
        weights = read_weights(path.parent / Path(str(beside)).name) if beside else NONE
        return cls.from_dict(data, weights)


def required(data: Mapping[str, Any], key: str) -> Any:
    """The entry of ``data`` under ``key``; PlanError if there is none."""
    try:
        return data[key]
    except KeyError as error:
        raise incomplete(error) from error


def incomplete(error: Exception) -> PlanError:
    """The error for a plan without a required entry."""
    return PlanError(
        f"the plan is incomplete: {error!r}", where="the plan", remedy="calibrate or tune again"
    )


def parted(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Split the ``weights`` of a plan into its adjustment and its correction."""
    trends = {n.removeprefix(CORRECTION): w for n, w in weights.items() if n.startswith(CORRECTION)}
    adjusting = {n: w for n, w in weights.items() if not n.startswith(CORRECTION)}
    return {
        "adjustment": ScaleShift(adjusting) if adjusting else None,
        "correction": DriftCorrection.of(trends) if trends else None,
    }


def write_weights(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Write the weights of a plan to ``file``."""
    on_cpu = {name: w.detach().cpu().contiguous() for name, w in weights.items()}
    file.write_bytes(installed("safetensors.torch").save(on_cpu))


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read the weights of a plan.

    Raises:
        ModelFileError: The file cannot be read.
        PlanError: A weight is not finite.
    """
    safetensors = installed("safetensors")
    try:
        weights: dict[str, Tensor] = installed("safetensors.torch").load(file.read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelFileError(
            f"the plan's weights cannot be read: {error}",
            where=str(file),
            remedy="keep this file in the folder of the plan, under its original name",
        ) from error
    if broken := [name for name, weight in weights.items() if not weight.isfinite().all()]:
        raise PlanError(
            f"the plan's weights are not all finite: {broken[0]}",
            where=str(file),
            remedy="calibrate or train again",
        )
    return weights


def installed_versions() -> dict[str, str]:
    """The version of each installed package in ``PACKAGES``."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def cut_to_json(cut: CutRequest) -> int | str | list[int | str]:
    """The JSON form of a cut: an index, a name, or ``first..last`` for a pair of modules."""
    return [one_to_json(one) for one in cut] if isinstance(cut, list) else one_to_json(cut)


def one_to_json(cut: One) -> int | str:
    """The JSON form of a single cut."""
    if isinstance(cut, Cut):
        return cut.name
    return SPAN.join(cut) if isinstance(cut, tuple) else cut
