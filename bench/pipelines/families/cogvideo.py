"""Pipelines of CogVideoX, and ConsisID, which is built on it."""

from collections.abc import Mapping
from typing import Any

import diffusers
from diffusers.pipelines.consisid.pipeline_consisid import ConsisIDPipeline

from bench.pipelines.parts import assembled, denoiser, model, noise, picture, prompt, square
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.video_parts import frames


def vae() -> Any:
    """Build an autoencoder: 8 pixels and 4 frames in a latent one."""
    return model(
        diffusers.AutoencoderKLCogVideoX,
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )


def cogvideox(kind: str, scheduler: Any = diffusers.CogVideoXDDIMScheduler, **config: Any) -> Any:
    """Build a pipeline; ``config`` is its denoiser's."""
    transformer = denoiser("CogVideoXTransformer3DModel", **config)
    return assembled(kind, transformer=transformer, vae=vae(), scheduler=scheduler())


def consisid() -> Any:
    return ConsisIDPipeline(
        tokenizer=None,
        text_encoder=None,
        transformer=denoiser("ConsisIDTransformer3DModel", in_channels=8),
        vae=vae(),
        scheduler=diffusers.CogVideoXDPMScheduler(),
    )


def words() -> Mapping[str, Any]:
    return {**prompt(5, 16), **square(32)}


def text_to_video() -> Mapping[str, Any]:
    return {**words(), "num_frames": 5}


def image_to_video() -> Mapping[str, Any]:
    return {**text_to_video(), "image": picture()}


def video_to_video() -> Mapping[str, Any]:
    """Nine steps of which the strength leaves seven."""
    return {**words(), "video": frames(5), "strength": 0.8}


def controlled() -> Mapping[str, Any]:
    return {**words(), "control_video": frames(5)}


def of_a_face() -> Mapping[str, Any]:
    """A face's embedding and five levels of its features, in place of what reads them."""
    return {
        **image_to_video(),
        "id_cond": noise(1, 16, seed=2),
        "id_vit_hidden": [noise(1, 5, 16, seed=3 + level) for level in range(5)],
    }


RECIPES = (
    PipelineRecipe("CogVideoXPipeline", lambda: cogvideox("CogVideoXPipeline"), text_to_video),
    PipelineRecipe(
        "CogVideoXImageToVideoPipeline",
        lambda: cogvideox("CogVideoXImageToVideoPipeline", in_channels=8),
        image_to_video,
    ),
    PipelineRecipe(
        "CogVideoXVideoToVideoPipeline",
        lambda: cogvideox("CogVideoXVideoToVideoPipeline", diffusers.CogVideoXDPMScheduler),
        video_to_video,
        steps=9,
    ),
    PipelineRecipe(
        "CogVideoXFunControlPipeline",
        lambda: cogvideox("CogVideoXFunControlPipeline", in_channels=8),
        controlled,
    ),
    PipelineRecipe("ConsisIDPipeline", consisid, of_a_face),
)
