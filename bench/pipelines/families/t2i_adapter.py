"""Pipelines of Stable Diffusion and Stable Diffusion XL with a T2I-Adapter."""

from collections.abc import Mapping
from typing import Any

import diffusers

from bench.pipelines.parts import model, picture
from bench.pipelines.stable_diffusion import ENCODER, SIZE, sd_recipe, xl_recipe


def parts() -> dict[str, Any]:
    adapter = model(
        diffusers.T2IAdapter,
        channels=ENCODER["block_out_channels"],
        num_res_blocks=1,
        downscale_factor=2,
    )
    return {"adapter": adapter}


CALL: Mapping[str, Any] = {**SIZE, "image": picture()}

RECIPES = (
    sd_recipe("StableDiffusionAdapterPipeline", parts, **CALL),
    xl_recipe("StableDiffusionXLAdapterPipeline", parts, **CALL),
)
