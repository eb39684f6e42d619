"""video-diffusion-pytorch: a U-Net for videos."""

from typing import Any

import torch

from bench.foreign.recipe import ForeignRecipe, Subject
from bench.seeding import seeded

PACKAGE = "video-diffusion-pytorch"
SIDE, FRAMES, STEPS, WORDS = 8, 4, 20, 8


def videos(**config: Any) -> Any:
    from video_diffusion_pytorch import GaussianDiffusion, Unet3D

    model = seeded(
        lambda: Unet3D(dim=16, dim_mults=(1, 2), attn_heads=2, attn_dim_head=16, **config)
    )
    loop = GaussianDiffusion(model, image_size=SIDE, num_frames=FRAMES, timesteps=STEPS)
    return model, loop


def unconditional() -> Subject:
    model, loop = videos()
    return Subject({"denoise_fn": model}, lambda: loop.sample(batch_size=1))


def guided() -> Subject:
    model, loop = videos(cond_dim=WORDS)
    words = torch.randn(1, WORDS)
    return Subject({"denoise_fn": model}, lambda: loop.sample(cond=words, cond_scale=2.0))


RECIPES = (
    ForeignRecipe(PACKAGE, "Unet3D", "GaussianDiffusion.sample", unconditional),
    ForeignRecipe(PACKAGE, "Unet3D, guided", "GaussianDiffusion.sample", guided, {"denoise_fn": 2}),
)
