"""Writes the trained transformer as a diffusers pipeline folder, and samples images from it."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DiTPipeline, DiTTransformer2DModel

from bench.emoji_sd.export import generators, sheet
from bench.emoji_sd.parts import noise_scheduler


def export(
    model: DiTTransformer2DModel, vae: AutoencoderKL, names: list[str], folder: Path
) -> None:
    """Write the pipeline folder as fp16 safetensors, less than 16 MiB. Class i has name i."""
    id2label = dict(enumerate(names))
    pipeline = DiTPipeline(model, vae, noise_scheduler(), id2label)
    pipeline.register_to_config(id2label=id2label)  # DiTPipeline does not save it itself
    vae.register_to_config(_name_or_path=None)  # it holds a local path
    pipeline.to(dtype=torch.float16).save_pretrained(folder)


def sample(folder: Path, names: list[str], steps: int, out: Path) -> None:
    """Write a sheet with an image for each class name."""
    pipeline = DiTPipeline.from_pretrained(folder)
    ids = pipeline.get_label_ids(names)
    generator = generators(len(ids))
    sheet(pipeline(ids, num_inference_steps=steps, generator=generator).images, out)
