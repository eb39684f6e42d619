"""Pipelines of Stable Diffusion and Stable Diffusion XL with a ControlNet."""

from collections.abc import Mapping
from typing import Any

import diffusers

from bench.pipelines.parts import mask, picture
from bench.pipelines.stable_diffusion import SIZE, XL_ENCODER, controlnet, sd_recipe, xl_recipe

CONTROL, PICTURE = picture(seed=1), picture()
INPAINT: Mapping[str, Any] = {
    **SIZE,
    "image": PICTURE,
    "mask_image": mask(),
    "control_image": CONTROL,
    "strength": 1.0,
}
MODES: Mapping[str, Any] = {
    "control_image": [CONTROL, picture(seed=2)],
    "control_mode": [0, 3],
}


def sd_parts() -> dict[str, Any]:
    return {"controlnet": controlnet()}


def xl_parts() -> dict[str, Any]:
    return {"controlnet": controlnet(**XL_ENCODER)}


def union_parts() -> dict[str, Any]:
    """Build a ControlNet that takes several kinds of control images."""
    width = XL_ENCODER["block_out_channels"][0]
    union = controlnet(
        diffusers.ControlNetUnionModel,
        **XL_ENCODER,
        num_trans_channel=width,
        num_trans_head=2,
        num_proj_channel=width,
    )
    return {"controlnet": union}


RECIPES = (
    sd_recipe("StableDiffusionControlNetPipeline", sd_parts, image=CONTROL),
    sd_recipe(
        "StableDiffusionControlNetImg2ImgPipeline",
        sd_parts,
        steps=10,
        image=PICTURE,
        control_image=CONTROL,
    ),
    sd_recipe("StableDiffusionControlNetInpaintPipeline", sd_parts, **INPAINT),
    xl_recipe("StableDiffusionXLControlNetPipeline", xl_parts, image=CONTROL),
    xl_recipe(
        "StableDiffusionXLControlNetImg2ImgPipeline",
        xl_parts,
        steps=10,
        image=PICTURE,
        control_image=CONTROL,
    ),
    xl_recipe("StableDiffusionXLControlNetInpaintPipeline", xl_parts, **INPAINT),
    xl_recipe("StableDiffusionXLControlNetUnionPipeline", union_parts, **MODES),
    xl_recipe(
        "StableDiffusionXLControlNetUnionImg2ImgPipeline",
        union_parts,
        steps=10,
        image=PICTURE,
        **MODES,
    ),
    xl_recipe(
        "StableDiffusionXLControlNetUnionInpaintPipeline", union_parts, **{**INPAINT, **MODES}
    ),
)
