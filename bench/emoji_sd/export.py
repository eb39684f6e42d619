"""Writes the trained parts as a diffusers pipeline folder, and samples images from it."""

import json
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from bench.emoji_sd import parts, train_autoencoder, train_denoiser

PROMPTS = (
    "red apple",
    "grinning face",
    "slice of pizza",
    "tiger face",
    "fire engine",
    "watermelon",
    "smiling face with sunglasses",
    "penguin",
    "cat face",
    "strawberry",
    "steam locomotive",
    "octopus",
    "ice cream",
    "crying face",
    "bus",
    "sunflower",
)
COLUMNS = 8
TILE = 96


def export(autoencoder: Path, denoiser: Path, folder: Path) -> None:
    """Write the pipeline folder as fp16 safetensors, less than 16 MiB in total."""
    model, tokenizer = train_denoiser.load(denoiser)
    pipeline = StableDiffusionPipeline(
        vae=train_autoencoder.load(autoencoder),
        text_encoder=model.text_encoder,
        tokenizer=tokenizer,
        unet=model.unet,
        scheduler=parts.noise_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(folder)
    load_as_float32(folder / "text_encoder" / "config.json")


def load_as_float32(config: Path) -> None:
    """Change the dtype in a configuration of transformers to float32.

    transformers loads weights in the dtype of the configuration, and diffusers loads them in
    float32. A pipeline that is loaded without ``torch_dtype`` would mix the two.
    """
    content = json.loads(config.read_text())
    content["dtype"] = "float32"
    config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def sample(folder: Path, prompts: list[str], steps: int, out: Path) -> None:
    """Write a sheet with an image for each prompt."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    generator = generators(len(prompts))
    sheet(pipeline(prompts, num_inference_steps=steps, generator=generator).images, out)


def generators(count: int) -> list[torch.Generator]:
    """Return a generator for each image, seeded by its index."""
    return [torch.Generator().manual_seed(i) for i in range(count)]


def sheet(images: list[Image.Image], out: Path) -> None:
    """Write the images to ``out``, eight in a row."""
    rows = -(-len(images) // COLUMNS)
    page = Image.new("RGB", (TILE * min(COLUMNS, len(images)), TILE * rows), "white")
    for i, image in enumerate(images):
        row, column = divmod(i, COLUMNS)
        scaled = image.resize((TILE, TILE), Image.Resampling.LANCZOS)
        page.paste(scaled, (TILE * column, TILE * row))
    out.parent.mkdir(parents=True, exist_ok=True)
    page.save(out)
