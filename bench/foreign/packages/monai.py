"""MONAI: the U-Net of its diffusion models, in its inferers with its schedulers."""

from collections.abc import Callable
from typing import Any

import torch

from bench.foreign.recipe import ForeignRecipe, Subject
from bench.seeding import seeded

PACKAGE = "monai"
SIDE, STEPS, WORDS = 16, 50, 8


def unet(dimensions: int, **config: Any) -> Any:
    from monai.networks.nets import DiffusionModelUNet

    widths = {"channels": (16, 32), "num_res_blocks": 1, "attention_levels": (False, True)}
    return seeded(
        lambda: DiffusionModelUNet(
            spatial_dims=dimensions,
            in_channels=1,
            out_channels=1,
            norm_num_groups=8,
            num_head_channels=8,
            **widths,
            **config,
        )
    )


def sampled(scheduler: str, dimensions: int = 2, **options: Any) -> Callable[[], Subject]:
    def build() -> Subject:
        from monai.inferers import DiffusionInferer
        from monai.networks import schedulers

        model = unet(dimensions, **options)
        made = getattr(schedulers, scheduler)(num_train_timesteps=1000)
        inferer = DiffusionInferer(made)
        shape = (2, 1, *(SIDE if dimensions == 2 else SIDE // 2,) * dimensions)
        words = torch.randn(2, 3, WORDS) if options else None

        def sample() -> Any:
            made.set_timesteps(STEPS)
            noise = torch.randn(shape)
            return inferer.sample(noise, model, made, conditioning=words, verbose=False)

        return Subject({"model": model}, sample)

    return build


TEXT = {"with_conditioning": True, "cross_attention_dim": WORDS}
RECIPES = (
    ForeignRecipe(PACKAGE, "DiffusionModelUNet", "DDIMScheduler", sampled("DDIMScheduler")),
    ForeignRecipe(PACKAGE, "DiffusionModelUNet", "DDPMScheduler", sampled("DDPMScheduler")),
    ForeignRecipe(PACKAGE, "DiffusionModelUNet", "PNDMScheduler", sampled("PNDMScheduler")),
    ForeignRecipe(PACKAGE, "DiffusionModelUNet", "RFlowScheduler", sampled("RFlowScheduler")),
    ForeignRecipe(
        PACKAGE, "DiffusionModelUNet in 3D", "DDIMScheduler", sampled("DDIMScheduler", 3)
    ),
    ForeignRecipe(
        PACKAGE,
        "DiffusionModelUNet with text",
        "DDIMScheduler",
        sampled("DDIMScheduler", **TEXT),
    ),
)
