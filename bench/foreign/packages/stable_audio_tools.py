"""stable-audio-tools: a diffusion transformer for sound."""

from collections.abc import Callable
from typing import Any

import torch

from bench.foreign.recipe import ForeignRecipe, Subject
from bench.seeding import seeded

PACKAGE = "stable-audio-tools"
CHANNELS, LENGTH, STEPS, WORDS = 8, 32, 20, 16


def sound(sampler: str, scale: float = 1.0, **options: Any) -> Callable[[], Subject]:
    def build() -> Subject:
        from stable_audio_tools.inference import sampling
        from stable_audio_tools.models.dit import DiffusionTransformer

        widths = {"embed_dim": 64, "depth": 4, "num_heads": 1, "io_channels": CHANNELS}
        model = seeded(lambda: DiffusionTransformer(cond_token_dim=WORDS, **widths))
        given = {"cross_attn_cond": torch.randn(1, 3, WORDS), "cfg_scale": scale}
        loop = getattr(sampling, sampler)

        def sample() -> Any:
            return loop(model, torch.randn(1, CHANNELS, LENGTH), steps=STEPS, **given, **options)

        return Subject({"model": model}, sample)

    return build


RECIPES = (
    ForeignRecipe(PACKAGE, "DiffusionTransformer", "sample, v-DDIM", sound("sample", eta=0.0)),
    ForeignRecipe(
        PACKAGE, "DiffusionTransformer, guided", "sample, v-DDIM", sound("sample", 4.0, eta=0.0)
    ),
    ForeignRecipe(
        PACKAGE, "DiffusionTransformer", "sample_discrete_euler", sound("sample_discrete_euler")
    ),
)
