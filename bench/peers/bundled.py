"""The bundled models as subjects: guided sampling of captions, decoded to pictures."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.peers.subject import Request, Subject
from bench.quality.sampling import split_captions
from fxcache.integrations.diffusers import load_pipeline

MODELS = Path(__file__).parents[1] / "models"
PICTURES, BATCH = 16, 8  # eight captions, or sixteen rows with guidance, take about 0.1 s a step
SD_SCALE, DIT_SCALE = 7.5, 4.0  # the defaults of diffusers' pipelines


def emoji_sd(count: int = PICTURES, batch: int = BATCH) -> Subject:
    pipeline = load(MODELS / "emoji-sd")

    def request(index: int, captions: Sequence[str]) -> Request:
        with torch.no_grad():
            text, empty = pipeline.encode_prompt(list(captions), "cpu", 1, True)
        noise = noise_of(pipeline.unet, index, len(captions))
        return Request(noise, partial(guided_unet, torch.cat([empty, text])))

    return subject_of("emoji-sd", pipeline, pipeline.unet, request, 0, count, batch)


def guided_unet(text: Tensor, model: Any, latent: Tensor, timestep: Tensor) -> Tensor:
    """Call the U-Net as StableDiffusionPipeline does."""
    both = torch.cat([latent] * 2)
    predicted = model(both, timestep, encoder_hidden_states=text, return_dict=False)[0]
    empty, given = predicted.chunk(2)
    result: Tensor = empty + SD_SCALE * (given - empty)
    return result


def emoji_dit(count: int = PICTURES, batch: int = BATCH) -> Subject:
    pipeline = load(MODELS / "emoji-dit")
    model = pipeline.transformer

    def request(index: int, captions: Sequence[str]) -> Request:
        classes = torch.tensor(pipeline.get_label_ids(list(captions)))
        none = torch.full_like(classes, model.config.num_embeds_ada_norm)
        return Request(
            noise_of(model, index, len(captions)), partial(guided_dit, torch.cat([classes, none]))
        )

    cut = ("transformer_blocks.1", f"transformer_blocks.{len(model.transformer_blocks) - 1}")
    return subject_of("emoji-dit", pipeline, model, request, cut, count, batch)


def guided_dit(classes: Tensor, model: Any, latent: Tensor, timestep: Tensor) -> Tensor:
    """Call the transformer as DiTPipeline does: the conditional half comes first."""
    both = torch.cat([latent] * 2)
    times = timestep[None].expand(len(both))
    predicted = model(both, timestep=times, class_labels=classes, return_dict=False)[0]
    given, empty = predicted[:, : latent.shape[1]].chunk(2)
    result: Tensor = empty + DIT_SCALE * (given - empty)
    return result


def subject_of(
    name: str,
    pipeline: Any,
    model: Any,
    request: Callable[[int, Sequence[str]], Request],
    cut: Any,
    count: int,
    batch: int,
) -> Subject:
    """Return a subject with ``count`` captions, ``batch`` in each request."""
    captions = split_captions()[0].prompts
    requests = tuple(
        request(index, captions[index : index + batch]) for index in range(0, count, batch)
    )
    decode = partial(decoded, pipeline)
    model.eval().requires_grad_(False)
    spare = request(count, captions[count : count + batch])
    return Subject(name, model, pipeline.scheduler, requests, decode, cut, spare)


def load(folder: Path) -> Any:
    pipeline = load_pipeline(str(folder), torch.float32, "cpu")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def noise_of(model: Any, first: int, count: int) -> Tensor:
    """Return noise ``[count, C, H, W]``. Picture i of all requests has the seed i."""
    side, channels = model.config.sample_size, model.config.in_channels
    generators = (torch.Generator().manual_seed(first + i) for i in range(count))
    return torch.cat([torch.randn(1, channels, side, side, generator=g) for g in generators])


@torch.no_grad()
def decoded(pipeline: Any, latent: Tensor) -> Tensor:
    """Return pictures ``[N, 3, H, W]`` in [0, 1]."""
    pictures: Tensor = pipeline.vae.decode(latent / pipeline.vae.config.scaling_factor)[0]
    return (pictures / 2 + 0.5).clamp(0, 1)
