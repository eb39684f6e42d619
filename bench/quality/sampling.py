"""Samples images from the bundled pipelines: defines their captions and seeds."""

from typing import Any

import torch
from torch import Tensor

from bench.emoji_sd import pictures
from fxcache.pipelines.calibrate import Sampling
from fxcache.pipelines.drawing import Drawing

STEPS = 50
BATCH = 16
MEASURED, CALIBRATION = 256, 8  # numbers of captions; no caption is in both sets
CALIBRATION_SEED = 10_000


def draw(pipeline: Any, drawing: Drawing) -> Tensor:
    """Return images ``[N, H, W, 3]`` in [0, 1]. Captions may be names of classes."""
    pictures_drawn = drawing.draw(pipeline, drawing.steps, output_type="np")
    return torch.stack([torch.as_tensor(picture) for picture in pictures_drawn])


def draw_all(pipeline: Any, sampling: Sampling) -> Tensor:
    return torch.cat([draw(pipeline, drawing) for drawing in sampling.drawings()])


def split_captions() -> tuple[Sampling, Sampling, Tensor]:
    """Return the captions to measure, those to calibrate on, and the glyphs of the first."""
    glyphs, captions = pictures.training_set()
    order = torch.randperm(len(captions), generator=torch.Generator().manual_seed(0)).tolist()
    chosen, others = order[:MEASURED], order[MEASURED : MEASURED + CALIBRATION]
    return (
        Sampling([captions[i] for i in chosen], STEPS, 0, BATCH),
        Sampling([captions[i] for i in others], STEPS, CALIBRATION_SEED, CALIBRATION),
        (glyphs[chosen].permute(0, 2, 3, 1) + 1) / 2,
    )
