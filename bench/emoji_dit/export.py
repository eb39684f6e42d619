"""Write the trained transformer as a diffusers pipeline folder, and look at what it draws."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DiTPipeline, DiTTransformer2DModel

from bench.emoji_sd.export import generators, sheet
from bench.emoji_sd.parts import noise_scheduler


def export(
    model: DiTTransformer2DModel, vae: AutoencoderKL, names: list[str], folder: Path
) -> None:
    """fp16 safetensors, below 16 MiB in all; class i has the i-th name."""
    id2label = dict(enumerate(names))
    pipeline = DiTPipeline(model, vae, noise_scheduler(), id2label)
    pipeline.register_to_config(id2label=id2label)  # DiTPipeline itself would not save it
    vae.register_to_config(_name_or_path=None)  # a path of this machine
    pipeline.to(dtype=torch.float16).save_pretrained(folder)


def sample(folder: Path, names: list[str], steps: int, out: Path) -> None:
    """A sheet of pictures, one for each class name."""
    pipeline = DiTPipeline.from_pretrained(folder)
    ids = pipeline.get_label_ids(names)
    generator = generators(len(ids))
    sheet(pipeline(ids, num_inference_steps=steps, generator=generator).images, out)
