"""Why some models do not pass."""

NOISE = (
    "it makes a new timestep at each call and adds noise, so that only the latent connects the "
    "calls, and the second latent is far from the first"
)
FAR = (
    "it makes a new timestep at each call, so that only the latent connects the calls, and random "
    "weights move the latent far at the first steps"
)
SEED = (
    "a new timestep at each call, two calls a step, and the same seed: the last latent of the run "
    "before is as close as that of this run"
)
CHURN = (
    "churn raises the noise level again within a step, so that timesteps rise and fall; a rise "
    "begins another run"
)
DDP = "denoising-diffusion-pytorch"
UNET = "monai: DiffusionModelUNet"

CAUSES: dict[str, str] = {
    "bit-diffusion: Unet, BitDiffusion.sample, DDPM": NOISE,
    f"{DDP}: KarrasUnet, ElucidatedDiffusion.sample": CHURN,
    f"{DDP}: KarrasUnet, ElucidatedDiffusion.sample, no churn": SEED,
    f"{DDP}: UViT, simple_diffusion.GaussianDiffusion.sample": NOISE,
    f"{DDP}: Unet with classes, GaussianDiffusion.sample": FAR,
    f"{DDP}: Unet, GaussianDiffusion.sample, DDPM": NOISE,
    f"{DDP}: Unet, VParamContinuousTimeGaussianDiffusion": NOISE,
    f"{DDP}: Unet1D, GaussianDiffusion1D.sample": FAR,
    "k-diffusion: Denoiser, sample_heun": SEED,
    "k-diffusion: ImageDenoiserModelV1, sample_heun": SEED,
    "lerobot: DiffusionConditionalUnet1d, DiffusionModel.generate_actions": FAR,
    f"{UNET} in 3D, DDIMScheduler": FAR,
    f"{UNET} with text, DDIMScheduler": FAR,
    f"{UNET}, DDIMScheduler": FAR,
    "video-diffusion-pytorch: Unet3D, GaussianDiffusion.sample": NOISE,
    "video-diffusion-pytorch: Unet3D, guided, GaussianDiffusion.sample": NOISE,
    "stable-audio-tools: DiffusionTransformer, guided, sample, v-DDIM": "its `forward` decides "
    "about guidance by the value of the timestep's tensor, and a graph has no such branch",
}
