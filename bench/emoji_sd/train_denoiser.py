"""Trains the text encoder and the U-Net together on the autoencoder's latents."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from torch.nn.functional import mse_loss
from transformers import CLIPTextModel

from bench.emoji_sd import parts, pictures
from bench.emoji_sd.training import Average, Run, batches, load_average, noised

BATCH = 64
EMPTY_PROMPT_SHARE = 0.1  # trains the unconditional half of classifier-free guidance


class Denoiser(nn.Module):
    """The text encoder and the U-Net: predicts the velocity from latents and token ids."""

    def __init__(self, vocabulary_size_of: object):
        super().__init__()
        self.text_encoder: CLIPTextModel = parts.text_encoder(vocabulary_size_of)
        self.unet: UNet2DConditionModel = parts.unet()

    def forward(self, noisy: torch.Tensor, steps: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        prompt = self.text_encoder(ids).last_hidden_state
        return self.unet(noisy, steps, prompt).sample


@torch.no_grad()
def encode(vae: AutoencoderKL, data: torch.Tensor) -> torch.Tensor:
    """Return the scaled posterior means ``[P, 8, 8, 8]``, on which the U-Net is trained."""
    means = [vae.encode(part).latent_dist.mean for part in data.split(64)]
    return torch.cat(means) * vae.config.scaling_factor


def train(checkpoint: Path, vae: AutoencoderKL, steps: int) -> None:
    torch.manual_seed(0)
    data, captions = pictures.training_set()
    tokenizer = parts.tokenizer(captions)
    latents = encode(vae, data)
    ids = tokenizer([*captions, ""], padding="max_length", return_tensors="pt").input_ids
    empty = len(captions)

    denoiser = Denoiser(tokenizer)
    denoiser.unet.to(memory_format=torch.channels_last)
    average = Average(denoiser)
    run = Run(checkpoint, {"denoiser": denoiser, "average": average}, steps, peak_lr=1e-3)
    noise_scheduler = parts.noise_scheduler()
    order = batches(len(latents), BATCH, seed=run.step)
    torch.manual_seed(run.step)

    def batch_loss() -> torch.Tensor:
        average.update(denoiser, run.step)
        chosen = next(order)
        noisy, at, target = noised(noise_scheduler, latents[chosen])
        prompt = torch.where(torch.rand(BATCH) < EMPTY_PROMPT_SHARE, empty, chosen)
        return mse_loss(denoiser(noisy, at, ids[prompt]), target)

    run.train(batch_loss, "denoiser")


def load(checkpoint: Path) -> tuple[Denoiser, object]:
    """Load the averaged denoiser and its tokenizer."""
    _, captions = pictures.training_set()
    tokenizer = parts.tokenizer(captions)
    denoiser = Denoiser(tokenizer)
    load_average(denoiser, checkpoint)
    return denoiser.eval(), tokenizer
