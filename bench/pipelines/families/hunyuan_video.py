"""Pipelines of HunyuanVideo."""

from collections.abc import Mapping
from typing import Any

import diffusers
from transformers import SiglipImageProcessorPil, SiglipVisionConfig, SiglipVisionModel

from bench.pipelines.parts import assembled, denoiser, model, noise, picture, prompt, square
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.video_parts import (
    GUIDED,
    IMAGE_WIDTH,
    clip_processor,
    flow_euler,
    frames,
    prompt_masks,
)


def vae(**config: Any) -> Any:
    """Build an autoencoder: 8 pixels and 4 frames in a latent one."""
    defaults: dict[str, Any] = {
        "block_out_channels": (8, 8, 8, 8),
        "latent_channels": 4,
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }
    return model(diffusers.AutoencoderKLHunyuanVideo, **(defaults | config))


def vae15() -> Any:
    """Build an autoencoder: 16 pixels and 4 frames in a latent one."""
    return model(
        diffusers.AutoencoderKLHunyuanVideo15,
        block_out_channels=(8, 8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
    )


def siglip() -> Mapping[str, Any]:
    """Build an image encoder that makes four tokens of a picture, and what prepares pictures."""
    config = SiglipVisionConfig(
        hidden_size=IMAGE_WIDTH,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    return {
        "image_encoder": model(lambda: SiglipVisionModel(config)),
        "feature_extractor": SiglipImageProcessorPil(size={"height": 16, "width": 16}),
    }


def hunyuan(kind: str, **config: Any) -> Any:
    """Build a pipeline; ``config`` is its denoiser's."""
    transformer = denoiser("HunyuanVideoTransformer3DModel", **config)
    return assembled(kind, transformer=transformer, vae=vae(), scheduler=flow_euler())


def image_to_video_pipeline() -> Any:
    transformer = denoiser(
        "HunyuanVideoTransformer3DModel",
        in_channels=9,
        guidance_embeds=False,
        image_condition_type="latent_concat",
    )
    return assembled(
        "HunyuanVideoImageToVideoPipeline",
        transformer=transformer,
        vae=vae(),
        scheduler=flow_euler(),
        image_processor=clip_processor(),
    )


def framepack() -> Any:
    return assembled(
        "HunyuanVideoFramepackPipeline",
        transformer=denoiser("HunyuanVideoFramepackTransformer3DModel"),
        vae=vae(),
        scheduler=flow_euler(),
        **siglip(),
    )


def hunyuan15(kind: str, **parts: Any) -> Any:
    """Build a pipeline of HunyuanVideo 1.5 with guidance."""
    return assembled(
        kind,
        transformer=denoiser("HunyuanVideo15Transformer3DModel", target_size=64),
        vae=vae15(),
        scheduler=flow_euler(),
        guider=diffusers.ClassifierFreeGuidance(guidance_scale=3.0),
        **parts,
    )


def text_to_video() -> Mapping[str, Any]:
    """True guidance, besides the scale that the denoiser takes."""
    return {
        **prompt(7, 16, pooled=8),
        **prompt_masks(),
        **square(32),
        "num_frames": 5,
        "true_cfg_scale": 3.0,
    }


def image_to_video() -> Mapping[str, Any]:
    return {**text_to_video(), "image": picture()}


def two_sections() -> Mapping[str, Any]:
    """Sixteen latent frames of history, and two sections of two frames."""
    return {
        **image_to_video(),
        "last_image": picture(seed=1),
        "latent_window_size": 2,
        "num_frames": 10,
    }


def text_to_video15() -> Mapping[str, Any]:
    """Embeddings of a language model, and of letters to write."""
    words = {**prompt(7, 16), "prompt_embeds_2": noise(1, 6, 12, seed=2)}
    words["negative_prompt_embeds_2"] = noise(1, 6, 12, seed=3)
    first, second = prompt_masks(), prompt_masks(6)
    for prefix in ("", "negative_"):
        words[f"{prefix}prompt_embeds_mask"] = first[f"{prefix}prompt_attention_mask"]
        words[f"{prefix}prompt_embeds_mask_2"] = second[f"{prefix}prompt_attention_mask"]
    return {**words, "num_frames": 5}


def image_to_video15() -> Mapping[str, Any]:
    return {**text_to_video15(), "image": frames(1, side=64)[0]}


RECIPES = (
    PipelineRecipe(
        "HunyuanVideoPipeline",
        lambda: hunyuan("HunyuanVideoPipeline"),
        text_to_video,
        trajectories=GUIDED,
    ),
    PipelineRecipe(
        "HunyuanVideoImageToVideoPipeline",
        image_to_video_pipeline,
        image_to_video,
        trajectories=GUIDED,
    ),
    PipelineRecipe(
        "HunyuanSkyreelsImageToVideoPipeline",
        lambda: hunyuan("HunyuanSkyreelsImageToVideoPipeline", in_channels=8),
        image_to_video,
        trajectories=GUIDED,
    ),
    PipelineRecipe(
        "HunyuanVideoFramepackPipeline",
        framepack,
        two_sections,
        trajectories={"transformer": 4},
    ),
    PipelineRecipe(
        "HunyuanVideo15Pipeline",
        lambda: hunyuan15("HunyuanVideo15Pipeline"),
        lambda: {**text_to_video15(), **square(64)},
        trajectories=GUIDED,
    ),
    PipelineRecipe(
        "HunyuanVideo15ImageToVideoPipeline",
        lambda: hunyuan15("HunyuanVideo15ImageToVideoPipeline", **siglip()),
        image_to_video15,
        trajectories=GUIDED,
    ),
)
