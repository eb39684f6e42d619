"""Pipelines of Stable Diffusion XL."""

from bench.pipelines.parts import mask, picture
from bench.pipelines.stable_diffusion import SIZE, xl_recipe, xl_unet

RECIPES = (
    xl_recipe("StableDiffusionXLPipeline", **SIZE),
    xl_recipe("StableDiffusionXLImg2ImgPipeline", steps=10, image=picture(), strength=0.8),
    xl_recipe(
        "StableDiffusionXLInpaintPipeline",
        lambda: {"unet": xl_unet(in_channels=9)},
        **SIZE,
        image=picture(),
        mask_image=mask(),
        strength=1.0,
    ),
    xl_recipe(
        "StableDiffusionXLInstructPix2PixPipeline",
        lambda: {"unet": xl_unet(in_channels=8)},
        **SIZE,
        image=picture(),
    ),
)
