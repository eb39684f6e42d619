"""smalldiffusion: a U-Net and a DiT, called through methods of their own."""

from collections.abc import Callable
from typing import Any

from torch import nn

from bench.foreign.recipe import ForeignRecipe, Subject
from bench.seeding import seeded

PACKAGE = "smalldiffusion"
SIDE, STEPS = 16, 20


def unet() -> Any:
    from smalldiffusion.model_unet import Unet

    return Unet(SIDE, 3, 3, ch=32, ch_mult=(1, 2), attn_resolutions=(8,), num_res_blocks=1)


def dit() -> Any:
    from smalldiffusion.model_dit import DiT

    return DiT(SIDE, 3, patch_size=4, depth=4, head_dim=8, num_heads=2)


def scaled(network: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """A class made by the package's own modifier, whose ``forward`` it replaces."""

    def build() -> Any:
        from smalldiffusion import Scaled

        model: Any = network()
        model.__class__ = Scaled(type(model))
        return model

    return build


def sampled(network: Callable[[], nn.Module], **options: Any) -> Callable[[], Subject]:
    def build() -> Subject:
        from accelerate import Accelerator
        from smalldiffusion import ScheduleLogLinear, samples

        model = seeded(network)
        sigmas = ScheduleLogLinear(1000).sample_sigmas(STEPS)
        cpu = Accelerator(cpu=True)
        options.setdefault("accelerator", cpu)
        return Subject(
            {"model": model}, lambda: list(samples(model, sigmas, batchsize=2, **options))[-1]
        )

    return build


RECIPES = (
    ForeignRecipe(PACKAGE, "Unet", "samples, DDIM", sampled(scaled(unet))),
    ForeignRecipe(PACKAGE, "Unet", "samples, DDPM", sampled(scaled(unet), mu=0.5)),
    ForeignRecipe(PACKAGE, "DiT", "samples, accelerated", sampled(scaled(dit), gam=2.0)),
)
