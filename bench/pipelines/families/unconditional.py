"""Pipelines without a prompt: DDPM, DDIM, consistency models, DiT."""

from collections.abc import Callable
from typing import Any

import diffusers

from bench.pipelines.parts import assembled, denoiser, vae
from bench.pipelines.recipe import PipelineRecipe


def pixels(kind: str, scheduler: Callable[[], Any], **config: Any) -> Any:
    """Build a pipeline whose U-Net denoises pixels."""
    unet = denoiser("UNet2DModel", sample_size=16, **config)
    return assembled(kind, unet=unet, scheduler=scheduler())


def consistency() -> Any:
    return pixels(
        "ConsistencyModelPipeline",
        lambda: diffusers.CMStochasticIterativeScheduler(num_train_timesteps=40),
        num_class_embeds=10,
        resnet_time_scale_shift="scale_shift",
    )


def dit() -> Any:
    """Build a pipeline of classes whose transformer predicts the variance too."""
    transformer = denoiser("DiTTransformer2DModel", out_channels=8, num_embeds_ada_norm=1000)
    scheduler = diffusers.DDIMScheduler()
    return assembled("DiTPipeline", transformer=transformer, scheduler=scheduler, vae=vae())


RECIPES = (
    PipelineRecipe("DDPMPipeline", lambda: pixels("DDPMPipeline", diffusers.DDPMScheduler), dict),
    PipelineRecipe("DDIMPipeline", lambda: pixels("DDIMPipeline", diffusers.DDIMScheduler), dict),
    PipelineRecipe(
        "ConsistencyModelPipeline", consistency, lambda: {"class_labels": 3, "output_type": "pt"}
    ),
    PipelineRecipe("DiTPipeline", dit, lambda: {"class_labels": [3]}),
)
