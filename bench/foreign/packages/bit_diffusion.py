"""bit-diffusion: a self-conditioned U-Net over bits."""

from bench.foreign.recipe import ForeignRecipe, Subject
from bench.seeding import seeded

PACKAGE = "bit-diffusion"
SIDE, STEPS = 16, 50


def build(use_ddim: bool) -> Subject:
    from bit_diffusion import BitDiffusion, Unet

    model = seeded(lambda: Unet(dim=16, dim_mults=(1, 2), resnet_block_groups=4))
    loop = BitDiffusion(model, image_size=SIDE, timesteps=STEPS, use_ddim=use_ddim)
    return Subject({"model": model}, lambda: loop.sample(batch_size=2))


RECIPES = (
    ForeignRecipe(PACKAGE, "Unet", "BitDiffusion.sample, DDIM", lambda: build(True)),
    ForeignRecipe(PACKAGE, "Unet", "BitDiffusion.sample, DDPM", lambda: build(False)),
)
