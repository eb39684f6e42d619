"""Pipelines of Kandinsky 5 and 6 that make videos."""

from collections.abc import Mapping
from typing import Any

import diffusers
import torch

from bench.pipelines.families.hunyuan_video import vae
from bench.pipelines.parts import assembled, denoiser, model, noise, picture, prompt, square
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.video_parts import GUIDED, flow_euler, frames


def kandinsky5(kind: str, **config: Any) -> Any:
    """Build a pipeline; ``config`` is its denoiser's."""
    transformer = denoiser("Kandinsky5Transformer3DModel", **config)
    return assembled(kind, transformer=transformer, vae=vae(), scheduler=flow_euler())


def kandinsky6() -> Any:
    """Build a pipeline that makes sound too, eight samples for each latent one."""
    return assembled(
        "Kandinsky6TI2VAPipeline",
        transformer=denoiser("Kandinsky6Transformer3DModel", visual_token_type_num_embeddings=2),
        vae=vae(),
        audio_vae=model(
            diffusers.MMAudioVAE,
            mel_bins=8,
            latent_channels=6,
            hidden_channels=16,
            channel_multipliers=(1, 1),
            layers_per_block=1,
            sample_rate=240,
            n_fft=16,
            hop_length=4,
        ),
        vocoder=model(
            diffusers.MMAudioVocoder,
            num_mels=8,
            upsample_initial_channel=8,
            upsample_rates=(2, 2),
            upsample_kernel_sizes=(4, 4),
            resblock_kernel_sizes=(3,),
            resblock_dilation_sizes=((1, 3, 5),),
        ),
        scheduler=flow_euler(),
    )


def upscaler() -> Any:
    """Build a pipeline that doubles the sides of tiles of 64 pixels."""
    channels = (4, 8, 16, 32, 64)
    return assembled(
        "Kandinsky6SRPipeline",
        transformer=denoiser("Kandinsky6SRTransformer3DModel", tile_sizes=((128, 128),)),
        vae=model(
            diffusers.Kandinsky6SRVAE,
            latent_channels=4,
            encoder_block_out_channels=channels,
            decoder_block_out_channels=channels,
            layers_per_block=1,
        ),
        scheduler=diffusers.PiflowScheduler(n_grid=2),
    )


def text_to_video() -> Mapping[str, Any]:
    """Embeddings of two text encoders, and where each prompt of the first begins and ends."""
    words: dict[str, Any] = {}
    for seed, prefix in enumerate(("", "negative_")):
        words[f"{prefix}prompt_embeds_qwen"] = noise(1, 7, 16, seed=seed)
        words[f"{prefix}prompt_embeds_clip"] = noise(1, 12, seed=2 + seed)
        words[f"{prefix}prompt_cu_seqlens"] = torch.tensor([0, 7], dtype=torch.int32)
    return {**words, **square(32), "num_frames": 5}


def image_to_video() -> Mapping[str, Any]:
    return {**text_to_video(), "num_frames": 21, "image": picture()}


def image_to_sound() -> Mapping[str, Any]:
    """A video and its sound, which begin with a picture."""
    return {**prompt(7, 16, pooled=12), **square(32), "num_frames": 5, "image": picture()}


def tiles() -> Mapping[str, Any]:
    """A video of two tiles side by side."""
    wide = [frame.resize((96, 64)) for frame in frames(5)]
    return {"video": wide, "resolution_scale": 2, "output_type": "pt"}


RECIPES = (
    PipelineRecipe(
        "Kandinsky5T2VPipeline",
        lambda: kandinsky5("Kandinsky5T2VPipeline"),
        text_to_video,
        trajectories=GUIDED,
    ),
    PipelineRecipe(
        "Kandinsky5I2VPipeline",
        lambda: kandinsky5("Kandinsky5I2VPipeline", visual_cond=True),
        image_to_video,
        trajectories=GUIDED,
    ),
    PipelineRecipe("Kandinsky6TI2VAPipeline", kandinsky6, image_to_sound, trajectories=GUIDED),
    PipelineRecipe("Kandinsky6SRPipeline", upscaler, tiles, trajectories=GUIDED),
)
