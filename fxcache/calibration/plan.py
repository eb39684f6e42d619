"""A plan: a cut and a policy for one model, stored as JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from torch import Tensor, nn

from fxcache.calibration.fingerprint import Fingerprint, fingerprint
from fxcache.calibration.plan_parts import (
    cut_to_json,
    incomplete,
    joined,
    parted,
    read_weights,
    required,
    write_weights,
)
from fxcache.codecs.drift import DriftCorrection
from fxcache.codecs.scale_shift import ScaleShift
from fxcache.errors import FxcacheError, ModelFileError, PlanError
from fxcache.forecasts import Forecast
from fxcache.partition.request import AUTO, CutRequest, require_cut_request
from fxcache.policies import Policy
from fxcache.runtime.denoisers import module_of
from fxcache.versions import installed_versions

FORMAT = 2
WEIGHTS = ".safetensors"  # the suffix of the file with the weights of a plan
NONE: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True)
class Plan:
    """A policy and its cut, found for one model.

    Pass a plan to ``optimize``, or save it as JSON and pass the path.

    Args:
        policy: Which steps refresh.
        cut: The cut, as for ``optimize``.
        model: The fingerprint of the model that the plan was made for.
        settings: How the plan was found: prompts, seed, steps and so on.
        versions: The versions of fxcache, torch and diffusers that it was found with.
        adjustment: A trained scale and shift of cached values (Block Caching, arXiv 2312.03209).
            None if there is none.
        correction: A measured drift of cached values (Error-Optimized Cache). None if there is
            none.
        run_lengths: For each schedule that the plan was calibrated on, three numbers: how many
            timesteps it has, at which of them the run began, and how many calls the model made.
        forecast: How cached values are extrapolated. With None, the policy decides.

    Raises:
        PlanError: There are both a correction and a forecast.
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
        """Make a plan by hand.

        Args:
            model: The denoiser that the plan is for.
            policy: Which steps refresh.
            cut: The cut, as for ``optimize``.
            forecast: How cached values are extrapolated. With None, the policy decides.

        Returns:
            The plan.

        Raises:
            ConfigError: The cut is neither a number, a name, a pair, a ``Cut`` nor a list of these.
            PlanError: There are both a correction and a forecast.
        """
        found = fingerprint(module_of(model, "fxcache.Plan.of"))
        return cls(policy, require_cut_request(cut), found, forecast=forecast)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights of the adjustment and of the correction, by name."""
        return joined(self.adjustment, self.correction)

    def require_match(self, model: nn.Module) -> None:
        """Check that the plan was made for a model.

        Args:
            model: The denoiser. A few of its weights are read from their device.

        Raises:
            PlanError: The plan was made for another model. The message says what differs.
        """
        if differences := self.model.differences(fingerprint(model)):
            raise PlanError(
                "the plan was made for another model: " + "; ".join(differences[:3]),
                where=f"optimize(plan=...) of {type(model).__name__}",
                remedy="calibrate or tune again, with this model",
            )

    def to_dict(self) -> dict[str, Any]:
        """Describe the plan as JSON can hold it.

        Returns:
            Everything but the ``weights``. ``from_dict`` reads it back.
        """
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
        """Make the plan that ``to_dict`` described.

        Args:
            data: The result of ``to_dict``.
            weights: The plan's ``weights``, if it has any.

        Returns:
            The plan.

        Raises:
            PlanError: The data is no plan, has another format, or is incomplete.
            ConfigError: The policy, the forecast or the cut is unknown, or an option of it is.
        """
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
        """Write the plan to a file.

        The plan is JSON. Its weights, if it has any, go to a file beside it: ``plan.safetensors``
        for ``plan.json``.

        Args:
            file: The path of the file, which must not end in ``.safetensors``.

        Raises:
            ModelFileError: The file cannot be written.
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
        """Read a plan from a file.

        Args:
            file: The path that ``save`` wrote to. Weights are read from the file beside it.

        Returns:
            The plan.

        Raises:
            ModelFileError: The file, or that of the weights, cannot be read.
            PlanError: The file holds no plan, one of another format, or weights that are not
                finite.
            ConfigError: The policy, the forecast or the cut is unknown, or an option of it is.
        """
        path = Path(file)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelFileError(
                f"the plan cannot be read: {error}",
                where=str(file),
                remedy="pass a file written by fxcache calibrate or fxcache tune, or a policy as "
                "an object, such as fxcache.Uniform(3)",
            ) from error
        if not isinstance(data, dict):
            data = {}
        beside = required(data, "weights") if "fxcache_plan" in data else None
        # Only the file name is used, so that a plan cannot name files in other folders.
        weights = read_weights(path.parent / Path(str(beside)).name) if beside else NONE
        return cls.from_dict(data, weights)
