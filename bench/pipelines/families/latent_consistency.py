"""Pipelines of latent consistency models, which take the strength of guidance as an input."""

from typing import Any

import diffusers

from bench.pipelines.parts import WIDTH, noise, picture
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.stable_diffusion import SIZE, TOKENS, sd, unet


def recipe(kind: str, **options: Any) -> PipelineRecipe:
    def build() -> Any:
        return sd(kind, unet=unet(time_cond_proj_dim=16), scheduler=diffusers.LCMScheduler())

    call = {"prompt_embeds": noise(1, TOKENS, WIDTH), **options}
    return PipelineRecipe(kind, build, lambda: call)


RECIPES = (
    recipe("LatentConsistencyModelPipeline", **SIZE),
    recipe("LatentConsistencyModelImg2ImgPipeline", image=picture()),
)
