"""denoising-diffusion-pytorch: U-Nets and a U-ViT for pictures and sequences."""

from collections.abc import Callable
from typing import Any

from bench.foreign.recipe import ForeignRecipe, Subject
from bench.seeding import seeded

PACKAGE = "denoising-diffusion-pytorch"
SIDE, STEPS = 16, 50

CONTINUOUS = ("ContinuousTimeGaussianDiffusion", "VParamContinuousTimeGaussianDiffusion")


def unet(**config: Any) -> Any:
    from denoising_diffusion_pytorch import Unet

    return seeded(lambda: Unet(dim=16, dim_mults=(1, 2), **config))


def gaussian(self_condition: bool = False, **options: Any) -> Subject:
    from denoising_diffusion_pytorch import GaussianDiffusion

    model = unet(self_condition=self_condition)
    diffusion = GaussianDiffusion(model, image_size=SIDE, **options)
    return Subject({"model": model}, lambda: diffusion.sample(batch_size=2))


def ddim() -> Subject:
    return gaussian(timesteps=1000, sampling_timesteps=STEPS)


def ddpm() -> Subject:
    return gaussian(timesteps=STEPS)


def self_conditioned() -> Subject:
    return gaussian(self_condition=True, timesteps=1000, sampling_timesteps=STEPS)


def one_dimensional() -> Subject:
    from denoising_diffusion_pytorch import GaussianDiffusion1D, Unet1D

    model = seeded(lambda: Unet1D(dim=16, dim_mults=(1, 2), channels=4))
    diffusion = GaussianDiffusion1D(model, seq_length=32, timesteps=1000, sampling_timesteps=STEPS)
    return Subject({"model": model}, lambda: diffusion.sample(batch_size=2))


def karras_unet(**config: Any) -> Any:
    from denoising_diffusion_pytorch import KarrasUnet

    options = {"dim": 16, "dim_max": 32, "num_downsamples": 2, "num_blocks_per_stage": 1}
    attention = {"attn_res": (8,), "attn_dim_head": 8, "fourier_dim": 16, "channels": 3}
    return seeded(lambda: KarrasUnet(image_size=SIDE, **options, **attention, **config))


def elucidated(sampler: str, **config: Any) -> Callable[[], Subject]:
    def build() -> Subject:
        from denoising_diffusion_pytorch import ElucidatedDiffusion

        model = karras_unet()
        # It asks for an attribute that only the package's Unet has.
        model.random_or_learned_sinusoidal_cond = True
        diffusion = ElucidatedDiffusion(model, image_size=SIDE, num_sample_steps=STEPS, **config)
        return Subject({"net": model}, lambda: getattr(diffusion, sampler)(batch_size=2))

    return build


def uvit() -> Subject:
    from denoising_diffusion_pytorch.simple_diffusion import GaussianDiffusion, UViT

    model = seeded(lambda: UViT(dim=16, dim_mults=(1, 2), vit_depth=2, attn_dim_head=8))
    diffusion = GaussianDiffusion(model, image_size=SIDE, num_sample_steps=STEPS)
    return Subject({"model": model}, lambda: diffusion.sample(batch_size=2))


def continuous(kind: str) -> Callable[[], Subject]:
    def build() -> Subject:
        import denoising_diffusion_pytorch

        model = unet(random_fourier_features=True)
        made = getattr(denoising_diffusion_pytorch, kind)
        diffusion = made(model, image_size=SIDE, num_sample_steps=STEPS)
        return Subject({"model": model}, lambda: diffusion.sample(batch_size=2))

    return build


def guided() -> Subject:
    import torch
    from denoising_diffusion_pytorch.classifier_free_guidance import GaussianDiffusion, Unet

    model = seeded(lambda: Unet(dim=16, dim_mults=(1, 2), num_classes=5))
    options = {"timesteps": 1000, "sampling_timesteps": STEPS}
    diffusion = GaussianDiffusion(model, image_size=SIDE, **options)
    classes = torch.tensor([1, 3])
    return Subject({"model": model}, lambda: diffusion.sample(classes, cond_scale=3.0))


def recipe(model: str, loop: str, build: Callable[[], Subject], **options: Any) -> ForeignRecipe:
    return ForeignRecipe(PACKAGE, model, loop, build, **options)


RECIPES = (
    recipe("Unet", "GaussianDiffusion.sample, DDIM", ddim),
    recipe("Unet", "GaussianDiffusion.sample, DDPM", ddpm),
    recipe("Unet, self-conditioned", "GaussianDiffusion.sample", self_conditioned),
    recipe("Unet with classes", "GaussianDiffusion.sample", guided, trajectories={"model": 2}),
    recipe(
        "Unet", "ContinuousTimeGaussianDiffusion", continuous("ContinuousTimeGaussianDiffusion")
    ),
    recipe(
        "Unet",
        "VParamContinuousTimeGaussianDiffusion",
        continuous("VParamContinuousTimeGaussianDiffusion"),
    ),
    recipe("Unet1D", "GaussianDiffusion1D.sample", one_dimensional),
    recipe("KarrasUnet", "ElucidatedDiffusion.sample", elucidated("sample")),
    recipe("KarrasUnet", "ElucidatedDiffusion.sample, no churn", elucidated("sample", S_churn=0)),
    recipe(
        "KarrasUnet", "ElucidatedDiffusion.sample_using_dpmpp", elucidated("sample_using_dpmpp")
    ),
    recipe("UViT", "simple_diffusion.GaussianDiffusion.sample", uvit),
)
