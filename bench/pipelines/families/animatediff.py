"""Pipelines of AnimateDiff: U-Nets of Stable Diffusion with a motion adapter."""

from typing import Any

import diffusers

from bench.pipelines.parts import model, picture
from bench.pipelines.stable_diffusion import (
    ENCODER,
    SIZE,
    controlnet,
    sd_recipe,
    unet,
    xl_recipe,
    xl_unet,
)

FRAMES = 4
HEADS = 4
VIDEO = [picture(seed=seed) for seed in range(FRAMES)]
CONTROL = [picture(seed=seed) for seed in range(FRAMES, 2 * FRAMES)]


def parts() -> dict[str, Any]:
    return animated(unet())


def xl_parts() -> dict[str, Any]:
    return animated(xl_unet())


def pag_parts() -> dict[str, Any]:
    return {**parts(), "pag_applied_layers": "mid_block.*attn1"}


def control_parts() -> dict[str, Any]:
    return {**parts(), "controlnet": controlnet()}


def sparse_parts() -> dict[str, Any]:
    """Build a ControlNet that takes the latents of some frames."""
    sparse = controlnet(
        diffusers.SparseControlNetModel,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        motion_num_attention_heads=HEADS,
    )
    return {**parts(), "controlnet": sparse}


def animated(denoiser: Any) -> dict[str, Any]:
    """Build a U-Net with motion modules, their adapter and the usual scheduler."""
    adapter = model(
        diffusers.MotionAdapter,
        block_out_channels=ENCODER["block_out_channels"],
        motion_layers_per_block=ENCODER["layers_per_block"],
        motion_norm_num_groups=ENCODER["norm_num_groups"],
        motion_num_attention_heads=HEADS,
    )
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="linear", steps_offset=1, clip_sample=False, timestep_spacing="linspace"
    )
    return {
        # The pipelines would build it too, and leave it in train mode as well.
        "unet": diffusers.UNetMotionModel.from_unet2d(denoiser, adapter),
        "motion_adapter": adapter,
        "scheduler": scheduler,
    }


CLIP = {**SIZE, "num_frames": FRAMES}

RECIPES = (
    sd_recipe("AnimateDiffPipeline", parts, **CLIP),
    sd_recipe("AnimateDiffPAGPipeline", pag_parts, **CLIP),
    sd_recipe("AnimateDiffControlNetPipeline", control_parts, **CLIP, conditioning_frames=CONTROL),
    sd_recipe(
        "AnimateDiffSparseControlNetPipeline",
        sparse_parts,
        **CLIP,
        conditioning_frames=[CONTROL[0], CONTROL[-1]],
        controlnet_frame_indices=[0, FRAMES - 1],
    ),
    sd_recipe("AnimateDiffVideoToVideoPipeline", parts, steps=10, **SIZE, video=VIDEO),
    sd_recipe(
        "AnimateDiffVideoToVideoControlNetPipeline",
        control_parts,
        steps=10,
        **SIZE,
        video=VIDEO,
        conditioning_frames=CONTROL,
    ),
    xl_recipe("AnimateDiffSDXLPipeline", xl_parts, **CLIP),
)
