"""Trains the autoencoder on all glyphs of the font, which must be installed."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch.nn.functional import l1_loss, pad

from bench.emoji_sd import font, parts, pictures
from bench.emoji_sd.training import Run, batches

BATCH = 16
KL_WEIGHT = 5e-4
LARGEST_SHIFT = 4  # pixels


def shifted(batch: torch.Tensor) -> torch.Tensor:
    """Shift the batch by a few pixels, filled with white, and mirror it in half of the cases."""
    dx, dy = torch.randint(0, 2 * LARGEST_SHIFT + 1, (2,)).tolist()
    height, width = batch.shape[-2:]
    framed = pad(batch, (LARGEST_SHIFT,) * 4, value=1.0)
    moved = framed[..., dy : dy + height, dx : dx + width]
    return moved.flip(-1) if torch.rand(()) < 0.5 else moved


def edges(batch: torch.Tensor) -> torch.Tensor:
    """Return differences of neighbouring pixels. An L1 loss on them reduces blur."""
    across = batch[..., :-1, 1:] - batch[..., :-1, :-1]
    down = batch[..., 1:, :-1] - batch[..., :-1, :-1]
    return torch.cat([across, down], dim=1)


def reconstruction_loss(vae: AutoencoderKL, batch: torch.Tensor) -> torch.Tensor:
    posterior = vae.encode(batch).latent_dist
    decoded = vae.decode(posterior.sample()).sample
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    return l1_loss(decoded, batch) + l1_loss(edges(decoded), edges(batch)) + KL_WEIGHT * kl


@torch.no_grad()
def latent_scale(vae: AutoencoderKL, batch: torch.Tensor) -> float:
    """Return the factor that gives the latents unit variance (diffusers' ``scaling_factor``)."""
    return 1 / vae.encode(batch).latent_dist.mean.std().item()


def train(checkpoint: Path, steps: int) -> None:
    torch.manual_seed(0)
    data = pictures.as_tensor(list(font.render_all(font.ALL).values()))
    vae = parts.autoencoder().to(memory_format=torch.channels_last)
    run = Run(checkpoint, {"vae": vae}, steps, peak_lr=1.5e-3)
    order = batches(len(data), BATCH, seed=run.step)
    run.train(lambda: reconstruction_loss(vae, shifted(data[next(order)])), "autoencoder")


def load(checkpoint: Path) -> AutoencoderKL:
    """Load the trained autoencoder, with the ``scaling_factor`` of the training set."""
    vae = parts.autoencoder().eval()
    vae.load_state_dict(torch.load(checkpoint, weights_only=True)["vae"])
    data, _ = pictures.training_set()
    vae.register_to_config(scaling_factor=round(latent_scale(vae, data), 5))
    return vae
