"""Guiders of diffusers, made for a path of blocks that they skip or change."""

from collections.abc import Callable, Mapping
from typing import Any

from diffusers import guiders
from diffusers.hooks import LayerSkipConfig, SmoothedEnergyGuidanceConfig


class Smoothing(guiders.SmoothedEnergyGuidance):
    """Counts its calls, which diffusers 0.42.1 forgets, so that it smooths the third one."""

    def prepare_models(self, denoiser: Any) -> None:
        self._count_prepared += 1
        super().prepare_models(denoiser)


def skipped(path: str, **options: Any) -> Any:
    return LayerSkipConfig(indices=[0], fqn=path, **options)


def guiding(name: str) -> Callable[[str], Any]:
    """Return a function that makes the guider of this name, which changes no blocks."""
    return lambda path: getattr(guiders, name)(3.0)


THROUGHOUT = {"skip_layer_guidance_start": 0.0, "skip_layer_guidance_stop": 1.0}
CFG = (
    "ClassifierFreeGuidance",
    "AdaptiveProjectedGuidance",
    "AdaptiveProjectedMixGuidance",
    "ClassifierFreeZeroStarGuidance",
    "TangentialClassifierFreeGuidance",
)
MAGNITUDE, AUTO, SKIP = "MagnitudeAwareGuidance", "AutoGuidance", "SkipLayerGuidance"
FEED_FORWARD = "SkipLayerGuidance, feed-forward"
PERTURBED, SMOOTHED = "PerturbedAttentionGuidance", "SmoothedEnergyGuidance"
HOOKED = (AUTO, SKIP, FEED_FORWARD, PERTURBED, SMOOTHED)
# Guiders by name. The argument is the path of the blocks that they skip or change.
GUIDERS: Mapping[str, Callable[[str], Any]] = {
    **{name: guiding(name) for name in CFG},
    MAGNITUDE: lambda _: guiders.MagnitudeAwareGuidance(3.0),
    AUTO: lambda path: guiders.AutoGuidance(3.0, auto_guidance_config=skipped(path)),
    SKIP: lambda path: guiders.SkipLayerGuidance(
        3.0, skip_layer_config=skipped(path), **THROUGHOUT
    ),
    FEED_FORWARD: lambda path: guiders.SkipLayerGuidance(
        3.0, skip_layer_config=skipped(path, skip_attention=False), **THROUGHOUT
    ),
    PERTURBED: lambda path: guiders.PerturbedAttentionGuidance(
        3.0,
        perturbed_guidance_start=0.0,
        perturbed_guidance_stop=1.0,
        perturbed_guidance_config=skipped(
            path, skip_attention=False, skip_attention_scores=True, skip_ff=False
        ),
    ),
    SMOOTHED: lambda path: Smoothing(
        3.0, seg_guidance_config=SmoothedEnergyGuidanceConfig([0], fqn=path)
    ),
}
