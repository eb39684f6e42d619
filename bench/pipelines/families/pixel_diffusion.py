"""Unconditional pipelines of pixels, spectrograms and waveforms, from before latent diffusion."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import diffusers
import numpy as np
from diffusers.pipelines.deprecated.audio_diffusion.pipeline_audio_diffusion import (
    AudioDiffusionPipeline,
)
from PIL import Image

from bench.pipelines.parts import assembled, denoiser, mask, picture, vae
from bench.pipelines.recipe import PipelineRecipe

SIDE = 16
JUMP = 6  # how far RePaint goes back, once


class SpectrogramPictures:
    """Stands in for the conversion of sounds to pictures: a random picture for every sound."""

    x_res = y_res = 2 * SIDE
    hop_length = 1

    def load_audio(self, audio_file: str | None = None, raw_audio: Any = None) -> None:
        del audio_file, raw_audio

    def get_sample_rate(self) -> int:
        return self.x_res

    def audio_slice_to_image(self, number: int) -> Image.Image:
        return picture(self.x_res, seed=number).convert("L")

    def image_to_audio(self, image: Image.Image) -> np.ndarray[Any, Any]:
        return np.asarray(image, dtype=np.float32).mean(0)


def pixels(kind: str, scheduler: Any) -> Any:
    """Build a pipeline with a U-Net of coloured pixels."""
    return assembled(kind, unet=denoiser("UNet2DModel", sample_size=SIDE), scheduler=scheduler())


def dance() -> Any:
    unet = denoiser("UNet1DModel", sample_rate=64)
    return assembled("DanceDiffusionPipeline", unet=unet, scheduler=diffusers.IPNDMScheduler())


def spectrogram() -> Any:
    return assembled(
        AudioDiffusionPipeline,
        vqvae=vae(in_channels=1, out_channels=1, latent_channels=1),
        unet=denoiser("UNet2DModel", sample_size=SIDE, in_channels=1, out_channels=1),
        mel=SpectrogramPictures(),
        scheduler=diffusers.DDIMScheduler(clip_sample=False),
    )


def drawn() -> Mapping[str, Any]:
    return {"output_type": "np"}


def continued() -> Mapping[str, Any]:
    """Keep the first half of a sound."""
    return {"raw_audio": np.zeros(4), "mask_start_secs": 0.5, "steps": 7}


def repainted() -> Mapping[str, Any]:
    jumps = {"jump_length": JUMP, "jump_n_sample": 2}
    return {**drawn(), **jumps, "image": picture(), "mask_image": mask()}


RECIPES = (
    PipelineRecipe("PNDMPipeline", partial(pixels, "PNDMPipeline", diffusers.PNDMScheduler), drawn),
    PipelineRecipe(
        "ScoreSdeVePipeline",
        partial(pixels, "ScoreSdeVePipeline", diffusers.ScoreSdeVeScheduler),
        drawn,
    ),
    PipelineRecipe(
        "KarrasVePipeline",
        partial(pixels, "KarrasVePipeline", diffusers.KarrasVeScheduler),
        drawn,
    ),
    PipelineRecipe(
        "RePaintPipeline",
        partial(pixels, "RePaintPipeline", diffusers.RePaintScheduler),
        repainted,
        2 * JUMP,
        trajectories={"unet": 2},
    ),
    PipelineRecipe("DanceDiffusionPipeline", dance, dict),
    PipelineRecipe("AudioDiffusionPipeline", spectrogram, continued),
)
