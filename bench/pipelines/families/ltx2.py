"""Pipelines of LTX-2, which makes a video and its sound."""

from collections.abc import Mapping
from typing import Any

import diffusers
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from diffusers.pipelines.ltx2.pipeline_ltx2_hdr_lora import LTX2HDRReferenceCondition
from diffusers.pipelines.ltx2.pipeline_ltx2_ic_lora import LTX2ReferenceCondition

from bench.pipelines.families.ltx import LAYERS, LEVELS
from bench.pipelines.parts import assembled, denoiser, model, noise, picture, prompt, square
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.video_parts import flow_euler, frames, prompt_masks

# One call for two prompts, one without some blocks, one without the other modality.
GUIDED = {"transformer": 3}


def autoencoders() -> dict[str, Any]:
    """Build autoencoders: a latent frame of 8 frames, 32 pixels a side; 8 numbers of sound."""
    vae = model(
        diffusers.AutoencoderKLLTX2Video,
        latent_channels=8,
        block_out_channels=LEVELS,
        decoder_block_out_channels=LEVELS[1:],
        layers_per_block=LAYERS,
        decoder_layers_per_block=LAYERS[1:],
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    )
    audio_vae = model(
        diffusers.AutoencoderKLLTX2Audio,
        base_channels=8,
        ch_mult=(1,),
        num_res_blocks=1,
        resolution=32,
        latent_channels=2,
        mel_bins=16,
    )
    return {"vae": vae, "audio_vae": audio_vae}


def connectors(layers: int = 1) -> Any:
    """Build what makes states for the video and the sound of these layers of a text encoder."""
    streams = {
        f"{stream}_connector_{name}": value
        for stream in ("video", "audio")
        for name, value in (
            ("num_attention_heads", 2),
            ("attention_head_dim", 8),
            ("num_layers", 1),
            ("num_learnable_registers", 4),
        )
    }
    return model(LTX2TextConnectors, caption_channels=16, text_proj_in_factor=layers, **streams)


def ltx2(kind: str, **parts: Any) -> Any:
    common = {
        "transformer": denoiser("LTX2VideoTransformer3DModel"),
        "connectors": connectors(),
        "scheduler": flow_euler(),
    }
    return assembled(kind, **(common | autoencoders() | parts))


def keyframe_parts() -> Mapping[str, Any]:
    """Build a denoiser that makes keyframes with the video."""
    return {
        "transformer": denoiser("LTX2VideoTransformer3DModel", use_keyframes_abs_pos_embedding=True)
    }


def refiner() -> Any:
    """Build a pipeline that doubles the frames of a video."""
    upsampler = model(
        LTX2LatentUpsamplerModel,
        in_channels=8,
        mid_channels=32,
        num_blocks_per_stage=1,
        spatial_upsample=False,
        temporal_upsample=True,
    )
    return ltx2(
        "LTX2DFRTemporalRefinePipeline",
        temporal_latent_upsampler=upsampler,
        scheduler=diffusers.LTXEulerAncestralRFScheduler(eta=0.5),
        **keyframe_parts(),
    )


def words() -> Mapping[str, Any]:
    return {**prompt(8, 16), **prompt_masks(8), **square(64), "num_frames": 9}


def text_to_video() -> Mapping[str, Any]:
    return {**words(), "spatio_temporal_guidance_blocks": [1]}


def image_to_video() -> Mapping[str, Any]:
    return {**text_to_video(), "image": picture(), "image_crf": 0}


def between() -> Mapping[str, Any]:
    """A picture to start from, and one to end with."""
    conditions = [
        LTX2VideoCondition(picture(seed=seed), index=index, strength=strength, crf=0)
        for seed, (index, strength) in enumerate(((0, 1.0), (-1, 0.8)))
    ]
    return {**text_to_video(), "num_frames": 17, "conditions": conditions}


def in_context() -> Mapping[str, Any]:
    return {**text_to_video(), "reference_conditions": [LTX2ReferenceCondition(frames(9))]}


def high_range() -> Mapping[str, Any]:
    """A video to follow, and no guidance, as the distilled model has it."""
    return {**words(), "reference_conditions": [LTX2HDRReferenceCondition(frames(9))]}


def positive() -> Mapping[str, Any]:
    """A prompt without a negative one, for 49 frames."""
    given = {key: value for key, value in words().items() if not key.startswith("negative")}
    return given | {"num_frames": 49}


def keyframes() -> Mapping[str, Any]:
    """A picture to start from, and keyframes that are made with the video. Eight steps."""
    return {**positive(), "conditions": [LTX2VideoCondition(picture(), crf=0)]}


def refined() -> Mapping[str, Any]:
    """Seven steps for each half of a video of 49 frames, which becomes one of 97."""
    return {
        **positive(),
        "latents": noise(1, 8, 7, 2, 2, seed=2),
        "keyframes_latents": noise(1, 8, 2, 2, 2, seed=3),
        "keyframe_positions": [24, 48],
        "audio_latents": noise(1, 2, 51, 4, seed=4),
        "sigmas": [0.975 - 0.125 * step for step in range(7)],
    }


RECIPES = (
    PipelineRecipe(
        "LTX2Pipeline", lambda: ltx2("LTX2Pipeline"), text_to_video, trajectories=GUIDED
    ),
    PipelineRecipe(
        "LTX2ImageToVideoPipeline",
        lambda: ltx2("LTX2ImageToVideoPipeline"),
        image_to_video,
        trajectories=GUIDED,
    ),
    PipelineRecipe(
        "LTX2ConditionPipeline",
        lambda: ltx2("LTX2ConditionPipeline"),
        between,
        trajectories=GUIDED,
    ),
    PipelineRecipe(
        "LTX2InContextPipeline",
        lambda: ltx2("LTX2InContextPipeline"),
        in_context,
        trajectories=GUIDED,
    ),
    PipelineRecipe(
        "LTX2HDRPipeline", lambda: ltx2("LTX2HDRPipeline", hdr_transform="logc3"), high_range
    ),
    PipelineRecipe(
        "LTX2DFRPipeline",
        lambda: ltx2("LTX2DFRPipeline", **keyframe_parts()),
        keyframes,
    ),
    PipelineRecipe(
        "LTX2DFRTemporalRefinePipeline", refiner, refined, trajectories={"transformer": 2}
    ),
)
