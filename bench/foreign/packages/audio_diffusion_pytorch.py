"""audio-diffusion-pytorch: U-Nets for sound, built of a-unet's blocks."""

from collections.abc import Callable
from typing import Any

import torch

from bench.foreign.recipe import ForeignRecipe, Subject
from bench.seeding import seeded

PACKAGE = "audio-diffusion-pytorch"
CHANNELS, LENGTH, STEPS = 2, 64, 20


def waves(attention: bool) -> Callable[[], Subject]:
    def build() -> Subject:
        from audio_diffusion_pytorch import DiffusionModel, UNetV0

        model: Any = seeded(
            lambda: DiffusionModel(
                net_t=UNetV0,
                in_channels=CHANNELS,
                channels=[8, 16, 16],
                factors=[1, 2, 2],
                items=[1, 1, 1],
                attentions=[0, 0, int(attention)],
                attention_heads=2,
                attention_features=8,
                modulation_features=16,
                resnet_groups=4,
            )
        )
        noise = (2, CHANNELS, LENGTH)
        return Subject(
            {"net": model.net}, lambda: model.sample(torch.randn(noise), num_steps=STEPS)
        )

    return build


RECIPES = (
    ForeignRecipe(PACKAGE, "UNetV0", "DiffusionModel.sample", waves(False)),
    ForeignRecipe(PACKAGE, "UNetV0 with attention", "DiffusionModel.sample", waves(True)),
)
