"""Deprecated variants of Stable Diffusion whose loop is nearly the original one."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import diffusers

from bench.pipelines.parts import assembled, mask, picture, square, vae
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.stable_parts import (
    SIDE,
    sized_words,
    stable_parts,
    text_parts,
    words,
)


def variant(kind: str) -> Any:
    return assembled(kind, **stable_parts())


def with_text(kind: str) -> Any:
    return assembled(kind, **stable_parts(**text_parts()))


def depth_images() -> Any:
    autoencoder = vae(in_channels=6, out_channels=6)
    return assembled("StableDiffusionLDM3DPipeline", **stable_parts(vae=autoencoder))


def wide() -> Any:
    """Build a pipeline with latents of an eighth of the size, which its windows assume."""
    down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    autoencoder = vae(block_out_channels=(8,) * 4, down_block_types=down, up_block_types=up)
    return assembled("StableDiffusionPanoramaPipeline", **stable_parts(vae=autoencoder))


def cycle_diffusion() -> Any:
    scheduler = diffusers.DDIMScheduler(clip_sample=False, steps_offset=1, set_alpha_to_one=False)
    parts = stable_parts(**text_parts(), scheduler=scheduler)
    return assembled("CycleDiffusionPipeline", **parts)


def paradigms() -> Any:
    scheduler = diffusers.DDIMParallelScheduler(clip_sample=False, steps_offset=1)
    return assembled("StableDiffusionParadigmsPipeline", **stable_parts(scheduler=scheduler))


def safe() -> Any:
    parts = stable_parts(**text_parts(), safety_checker=None, feature_extractor=None)
    return assembled("StableDiffusionPipelineSafe", **parts)


def from_image() -> Mapping[str, Any]:
    return {**words(), "image": picture(), "strength": 0.8}


def inpainting() -> Mapping[str, Any]:
    return {**from_image(), "mask_image": mask()}


def prompts() -> dict[str, Any]:
    return {**square(SIDE), "prompt": "a cat", "negative_prompt": "a dog"}


def edited() -> Mapping[str, Any]:
    """Edit the picture in two directions, after one step and after two."""
    return {
        **prompts(),
        "editing_prompt": ["red", "blue"],
        "reverse_editing_direction": [False, True],
        "edit_warmup_steps": [1, 2],
        "edit_guidance_scale": 5.0,
    }


def moderated() -> Mapping[str, Any]:
    return {**prompts(), "sld_guidance_scale": 1000.0, "sld_warmup_steps": 1}


def panorama() -> Mapping[str, Any]:
    """Denoise three overlapping windows of a wide picture, each in calls of its own."""
    return {**words(), "height": 64, "width": 640}


def cycle() -> Mapping[str, Any]:
    return {
        "prompt": "a cat",
        "source_prompt": "a dog",
        "image": picture(),
        "strength": 0.8,
        "eta": 0.1,
    }


def depicted() -> Mapping[str, Any]:
    return {**sized_words(), "output_type": "np"}


def in_parallel() -> Mapping[str, Any]:
    """Denoise four steps at once."""
    return {**sized_words(), "parallel": 4}


RECIPES = tuple(
    PipelineRecipe(kind, build, call, steps, {"unet": trajectories})
    for kind, build, call, steps, trajectories in (
        ("AltDiffusionPipeline", partial(variant, "AltDiffusionPipeline"), sized_words, 7, 1),
        (
            "AltDiffusionImg2ImgPipeline",
            partial(variant, "AltDiffusionImg2ImgPipeline"),
            from_image,
            9,
            1,
        ),
        (
            "StableDiffusionInpaintPipelineLegacy",
            partial(variant, "StableDiffusionInpaintPipelineLegacy"),
            inpainting,
            9,
            1,
        ),
        (
            "StableDiffusionModelEditingPipeline",
            partial(with_text, "StableDiffusionModelEditingPipeline"),
            sized_words,
            7,
            1,
        ),
        (
            "SemanticStableDiffusionPipeline",
            partial(with_text, "SemanticStableDiffusionPipeline"),
            edited,
            7,
            1,
        ),
        ("StableDiffusionLDM3DPipeline", depth_images, depicted, 7, 1),
        ("StableDiffusionParadigmsPipeline", paradigms, in_parallel, 20, 1),
        ("StableDiffusionPipelineSafe", safe, moderated, 7, 1),
        ("CycleDiffusionPipeline", cycle_diffusion, cycle, 9, 1),
        ("StableDiffusionPanoramaPipeline", wide, panorama, 7, 3),
    )
)
