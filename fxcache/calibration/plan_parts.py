"""The parts of a saved plan: its weights, its cut, and the versions of packages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fxcache.codecs.drift import DriftCorrection
from fxcache.codecs.scale_shift import ScaleShift
from fxcache.errors import ModelFileError, PlanError
from fxcache.integrations.diffusers import installed
from fxcache.partition.cut import SPAN, Cut
from fxcache.partition.request import CutRequest, One

CORRECTION = "trend:"  # the prefix of the names of a correction's weights


def required(data: Mapping[str, Any], key: str) -> Any:
    """Look up ``key`` in ``data``; PlanError if it is not there."""
    try:
        return data[key]
    except KeyError as error:
        raise incomplete(error) from error


def incomplete(error: Exception) -> PlanError:
    """Make the error for a plan that lacks something."""
    return PlanError(
        f"the plan is incomplete: {error!r}", where="the plan", remedy="calibrate or tune again"
    )


def joined(adjustment: ScaleShift | None, correction: DriftCorrection | None) -> dict[str, Tensor]:
    """Return the weights of the adjustment and of the correction, by name."""
    adjusting = adjustment.weights if adjustment else {}
    correcting = correction.weights if correction else {}
    return {**adjusting, **{f"{CORRECTION}{name}": t for name, t in correcting.items()}}


def parted(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Make the adjustment and the correction from the ``weights`` of a plan."""
    trends = {n.removeprefix(CORRECTION): w for n, w in weights.items() if n.startswith(CORRECTION)}
    adjusting = {n: w for n, w in weights.items() if not n.startswith(CORRECTION)}
    return {
        "adjustment": ScaleShift(adjusting) if adjusting else None,
        "correction": DriftCorrection.of(trends) if trends else None,
    }


def write_weights(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Write the weights to a safetensors file."""
    on_cpu = {name: w.detach().cpu().contiguous() for name, w in weights.items()}
    file.write_bytes(installed("safetensors.torch").save(on_cpu))


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read the weights from a safetensors file.

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


def cut_to_json(cut: CutRequest) -> int | str | list[int | str]:
    """Describe a cut as JSON can hold it: a number, a name, or a pair as ``first..last``."""
    return [one_to_json(one) for one in cut] if isinstance(cut, list) else one_to_json(cut)


def one_to_json(cut: One) -> int | str:
    """Describe one cut of a list."""
    if isinstance(cut, Cut):
        return cut.name
    return SPAN.join(cut) if isinstance(cut, tuple) else cut
