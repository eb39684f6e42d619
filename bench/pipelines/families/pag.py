"""Pipelines of Stable Diffusion and Stable Diffusion XL with perturbed-attention guidance."""

from collections.abc import Mapping
from typing import Any

from bench.pipelines.parts import mask, picture
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.stable_diffusion import (
    SIZE,
    XL_ENCODER,
    controlnet,
    sd_recipe,
    unet,
    xl_recipe,
    xl_unet,
)

PICTURE: Mapping[str, Any] = {"image": picture()}
CONTROL = picture(seed=1)
INPAINT: Mapping[str, Any] = {
    **SIZE,
    **PICTURE,
    "mask_image": mask(),
    "strength": 1.0,
}


def pag(kind: str, steps: int = 7, inputs: int = 4, **options: Any) -> PipelineRecipe:
    """Return the recipe of a pipeline whose U-Net has this many input channels."""
    xl, control = "XL" in kind, "ControlNet" in kind

    def parts() -> dict[str, Any]:
        made = {"unet": (xl_unet if xl else unet)(in_channels=inputs), "pag_applied_layers": "mid"}
        config = XL_ENCODER if xl else {}
        return made | ({"controlnet": controlnet(**config)} if control else {})

    return (xl_recipe if xl else sd_recipe)(kind, parts, steps, **options)


RECIPES = (
    pag("StableDiffusionPAGPipeline", **SIZE),
    pag("StableDiffusionPAGImg2ImgPipeline", steps=10, **PICTURE),
    pag("StableDiffusionPAGInpaintPipeline", inputs=9, **INPAINT),
    pag("StableDiffusionControlNetPAGPipeline", image=CONTROL),
    pag("StableDiffusionControlNetPAGInpaintPipeline", **INPAINT, control_image=CONTROL),
    pag("StableDiffusionXLPAGPipeline", **SIZE),
    pag("StableDiffusionXLPAGImg2ImgPipeline", steps=10, **PICTURE, strength=0.8),
    pag("StableDiffusionXLPAGInpaintPipeline", inputs=9, **INPAINT),
    pag("StableDiffusionXLControlNetPAGPipeline", image=CONTROL),
    pag(
        "StableDiffusionXLControlNetPAGImg2ImgPipeline",
        steps=10,
        **PICTURE,
        control_image=CONTROL,
    ),
)
