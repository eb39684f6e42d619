"""k-diffusion: its U-Net under its preconditioner, in its samplers."""

from collections.abc import Callable
from typing import Any

import torch

from bench.foreign.recipe import ForeignRecipe, Subject
from bench.seeding import seeded

PACKAGE = "k-diffusion"
SHAPE, STEPS = (3, 16, 16), 20


def unet() -> Any:
    from k_diffusion.models import ImageDenoiserModelV1

    widths = {"depths": (1, 1, 1), "channels": (16, 32, 32)}
    return ImageDenoiserModelV1(3, 32, self_attn_depths=(False, False, True), **widths)


def sampled(sampler: str, whole: bool = False) -> Callable[[], Subject]:
    """Optimise the U-Net, or its preconditioner as a ``whole``, which takes the sigma itself."""

    def build() -> Subject:
        import k_diffusion

        denoiser = k_diffusion.layers.Denoiser(seeded(unet), sigma_data=0.5).eval()
        sigmas = k_diffusion.sampling.get_sigmas_karras(STEPS, 0.01, 80.0)
        loop = getattr(k_diffusion.sampling, sampler)

        def sample() -> Any:
            return loop(denoiser, torch.randn(2, *SHAPE) * sigmas[0], sigmas, disable=True)

        modules = {"denoiser": denoiser} if whole else {"inner_model": denoiser.inner_model}
        return Subject(modules, sample)

    return build


SAMPLERS = (
    "sample_euler",
    "sample_euler_ancestral",
    "sample_heun",
    "sample_lms",
    "sample_dpmpp_2m",
    "sample_dpmpp_2m_sde",
)
RECIPES = (
    *(ForeignRecipe(PACKAGE, "ImageDenoiserModelV1", name, sampled(name)) for name in SAMPLERS),
    ForeignRecipe(PACKAGE, "Denoiser", "sample_euler", sampled("sample_euler", whole=True)),
    ForeignRecipe(PACKAGE, "Denoiser", "sample_heun", sampled("sample_heun", whole=True)),
)
