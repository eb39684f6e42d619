"""Pipelines of Stable Diffusion from a prompt or a picture."""

from bench.pipelines.parts import mask, noise, picture
from bench.pipelines.stable_diffusion import SIDE, SIZE, sd_recipe, unet

RECIPES = (
    sd_recipe("StableDiffusionPipeline", **SIZE),
    sd_recipe("StableDiffusionImg2ImgPipeline", steps=10, image=picture()),
    sd_recipe(
        "StableDiffusionInpaintPipeline",
        lambda: {"unet": unet(in_channels=9)},
        **SIZE,
        image=picture(),
        mask_image=mask(),
    ),
    sd_recipe(
        "StableDiffusionDepth2ImgPipeline",
        lambda: {"unet": unet(in_channels=5)},
        steps=10,
        image=picture(),
        depth_map=noise(1, SIDE, SIDE),
    ),
    sd_recipe(
        "StableDiffusionInstructPix2PixPipeline",
        lambda: {"unet": unet(in_channels=8)},
        image=picture(),
    ),
)
