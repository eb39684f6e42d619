"""Pipelines of Z-Image."""

from collections.abc import Mapping
from typing import Any

import diffusers
import torch
from transformers import Siglip2ImageProcessorPil, Siglip2VisionConfig, Siglip2VisionModel

from bench.pipelines.parts import (
    denoiser,
    flow_matching,
    model,
    noise,
    picture,
    pictures,
    square,
    steps_of,
    vae,
)
from bench.pipelines.recipe import PipelineRecipe

SIDE = 16


def z_image(kind: str, parts: Mapping[str, Any], **config: Any) -> Any:
    """Build a pipeline with these parts beside the transformer and the autoencoder."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    defaults = {"scheduler": scheduler, "vae": vae(shift_factor=0.0)}
    transformer = denoiser("ZImageTransformer2DModel", **config)
    return flow_matching(kind, transformer, **{**defaults, **parts})


def controlnet(channels: int = 4) -> dict[str, Any]:
    """Build a network that controls both layers, for a condition of so many channels."""
    net = model(
        diffusers.ZImageControlNetModel,
        control_layers_places=[0, 1],
        control_refiner_layers_places=[0, 1],
        control_in_dim=channels,
        add_control_noise_refiner="control_noise_refiner",
        dim=32,
        n_heads=2,
        n_kv_heads=2,
    )
    return {"controlnet": net}


def image_encoder() -> dict[str, Any]:
    """Build the parts that read the pictures to refer to. They are encoded in half precision."""
    config = Siglip2VisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_patches=16,
    )
    return {
        "vae": vae(levels=3, shift_factor=0.0).to(torch.bfloat16),
        "siglip": model(lambda: Siglip2VisionModel(config)),
        "siglip_processor": Siglip2ImageProcessorPil(max_num_patches=16),
    }


def inputs(kind: str) -> Mapping[str, Any]:
    """Return all inputs that the pipeline takes."""
    words = {
        "prompt_embeds": [noise(7, 24)],
        "negative_prompt_embeds": [noise(6, 24, seed=1)],
        "guidance_scale": 3.0,
    }
    return {**pictures(kind, SIDE), **words, **square(SIDE)}


def referring() -> Mapping[str, Any]:
    """Return a call with a picture; the prompt has parts before, between and after the two."""
    parts = [noise(length, 24, seed=length) for length in (3, 5, 2)]
    words = {"prompt_embeds": [parts], "negative_prompt_embeds": [[-part for part in parts]]}
    return {**words, "guidance_scale": 3.0, "image": picture(64), **square(32)}


def recipe(kind: str, parts: Any = dict, **config: Any) -> PipelineRecipe:
    return PipelineRecipe(
        kind,
        lambda: z_image(kind, parts(), **config),
        lambda: inputs(kind),
        steps=steps_of(kind),
    )


RECIPES = (
    recipe("ZImagePipeline"),
    recipe("ZImageImg2ImgPipeline"),
    recipe("ZImageInpaintPipeline"),
    recipe("ZImageControlNetPipeline", controlnet),
    recipe("ZImageControlNetInpaintPipeline", lambda: controlnet(9)),
    PipelineRecipe(
        "ZImageOmniPipeline",
        lambda: z_image("ZImageOmniPipeline", image_encoder(), siglip_feat_dim=16),
        referring,
    ),
)
