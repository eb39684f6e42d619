"""Pipelines of SANA-WM, which makes a world that a camera moves through."""

from collections.abc import Mapping
from typing import Any

from diffusers.pipelines.sana_wm.refiner import SanaWMLTX2Refiner

from bench.pipelines.families.ltx2 import autoencoders, connectors
from bench.pipelines.parts import (
    LONGEST_PROMPT,
    assembled,
    denoiser,
    noise,
    picture,
    prompt,
    square,
    t5_text,
    tokenizer,
)
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.video_parts import flow_euler, prompt_masks


def world() -> Any:
    return assembled(
        "SanaWMPipeline",
        # The rays of eight frames, six numbers each, for a latent frame.
        transformer=denoiser("SanaWMTransformer3DModel", chunk_plucker_channels=48),
        vae=autoencoders()["vae"],
        scheduler=flow_euler(),
    )


def refiner() -> Any:
    """Build the pipeline that refines a world in chunks, which see each other in a cache."""
    return SanaWMLTX2Refiner(
        transformer=denoiser("SanaWMLTX2RefinerTransformer3DModel"),
        connectors=connectors(layers=3),  # the embeddings and two layers
        tokenizer=tokenizer(),
        text_encoder=t5_text(d_model=16),
        scheduler=flow_euler(),
        text_max_sequence_length=LONGEST_PROMPT,
    )


def walk() -> Mapping[str, Any]:
    """Sixteen frames straight on and to the right."""
    embeddings = {name: states.unsqueeze(1) for name, states in prompt(7, 16).items()}
    return {
        **embeddings,
        **prompt_masks(),
        **square(128),
        "prompt": "",
        "image": picture(),
        "action": "w-8,d-8",
        "intrinsics": [32.0, 32.0, 16.0, 16.0],
        "num_frames": 17,
    }


def two_blocks() -> Mapping[str, Any]:
    """Seven steps for each of two blocks of three latent frames, after a first frame."""
    return {
        "sana_latent": noise(1, 8, 7, 2, 2),
        "prompt": "a cat",
        "fps": 16.0,
        "sigmas": [0.9 - 0.12 * step for step in range(7)] + [0.0],
    }


RECIPES = (
    PipelineRecipe("SanaWMPipeline", world, walk),
    PipelineRecipe(
        "SanaWMLTX2Refiner",
        refiner,
        two_blocks,
        trajectories={"transformer": 2},
        alone={"transformer": 3},  # they cache the first frame and both blocks
    ),
)
