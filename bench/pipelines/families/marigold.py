"""Pipelines of Marigold, which predict several times from one picture and combine the results."""

from collections.abc import Mapping
from typing import Any

import diffusers

from bench.pipelines.parts import WIDTH, noise, picture
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.stable_diffusion import sd, unet

PREDICTIONS = 3
LATENT = 4


def marigold(kind: str, targets: int = 1, **config: Any) -> Any:
    """Build a pipeline that predicts this many latents at once."""
    pipe = sd(
        kind,
        unet=unet(in_channels=LATENT * (1 + targets), out_channels=LATENT * targets),
        scheduler=diffusers.DDIMScheduler(prediction_type="v_prediction", steps_offset=1),
        **config,
    )
    pipe.empty_text_embedding = noise(1, 2, WIDTH)
    return pipe


def depth() -> Any:
    return marigold(
        "MarigoldDepthPipeline", prediction_type="depth", scale_invariant=True, shift_invariant=True
    )


def normals() -> Any:
    return marigold("MarigoldNormalsPipeline", prediction_type="normals", use_full_z_range=True)


def intrinsics() -> Any:
    names = ["albedo", "shading"]
    properties = {"target_names": names}
    return marigold(
        "MarigoldIntrinsicsPipeline",
        targets=len(names),
        prediction_type="intrinsics",
        target_properties=properties,
    )


def call() -> Mapping[str, Any]:
    """One prediction is one trajectory."""
    return {
        "image": picture(),
        "ensemble_size": PREDICTIONS,
        "batch_size": 1,
        "processing_resolution": 0,
        "output_type": "pt",
        "output_latent": True,
    }


RECIPES = tuple(
    PipelineRecipe(f"Marigold{kind}Pipeline", build, call, trajectories={"unet": PREDICTIONS})
    for kind, build in {"Depth": depth, "Normals": normals, "Intrinsics": intrinsics}.items()
)
