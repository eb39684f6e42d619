"""Trains the transformer on the latents of the bundled autoencoder."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import mse_loss

from bench.emoji_dit.parts import NULL_CLASS, transformer
from bench.emoji_sd import pictures
from bench.emoji_sd.parts import noise_scheduler
from bench.emoji_sd.train_denoiser import encode
from bench.emoji_sd.training import Average, Run, batches, load_average, noised

BATCH = 64
NULL_SHARE = 0.1  # trains the unconditional half of classifier-free guidance


def train(checkpoint: Path, vae: AutoencoderKL, steps: int) -> None:
    """Train the transformer. The class of an image is its index in the training set."""
    torch.manual_seed(0)
    data, _ = pictures.training_set()
    fit(transformer(), encode(vae, data), checkpoint, steps)


def fit(model: DiTTransformer2DModel, latents: torch.Tensor, checkpoint: Path, steps: int) -> None:
    # In train mode each block would drop labels independently, and almost never all of them.
    model.eval()
    average = Average(model)
    run = Run(checkpoint, {"transformer": model, "average": average}, steps, peak_lr=1e-3)
    scheduler = noise_scheduler()
    order = batches(len(latents), BATCH, seed=run.step)
    torch.manual_seed(run.step)

    # On a CPU, flash attention's backward would take two fifths of a step.
    @sdpa_kernel(SDPBackend.MATH)
    def batch_loss() -> torch.Tensor:
        average.update(model, run.step)
        labels = next(order)
        noisy, at, target = noised(scheduler, latents[labels])
        labels = torch.where(torch.rand(BATCH) < NULL_SHARE, NULL_CLASS, labels)
        with torch.autocast("cpu", torch.bfloat16):
            velocity = model(noisy, at, labels).sample
        return mse_loss(velocity.float(), target)

    run.train(batch_loss, "transformer")


def load(checkpoint: Path) -> DiTTransformer2DModel:
    """Load the averaged transformer."""
    model = transformer()
    load_average(model, checkpoint)
    return model.eval()
