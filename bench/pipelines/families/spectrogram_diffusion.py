"""The pipeline of spectrogram diffusion, which plays notes."""

from collections.abc import Mapping
from typing import Any

import diffusers
import torch
from diffusers.pipelines.deprecated.spectrogram_diffusion.pipeline_spectrogram_diffusion import (
    TARGET_FEATURE_LENGTH,
    SpectrogramDiffusionPipeline,
)
from torch import Tensor, nn

from bench.pipelines.parts import assembled, denoiser, model
from bench.pipelines.recipe import PipelineRecipe

BANDS = 128  # the bands of a spectrogram, which the pipeline fixes
WIDTH = 24


class Encoder(nn.Module):
    """Stands in for an encoder of notes or of the past: one layer, and the mask unchanged."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(values), mask


class NotesEncoder(Encoder):
    def forward(
        self, encoder_input_tokens: Tensor, encoder_inputs_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        return super().forward(encoder_input_tokens, encoder_inputs_mask)


class PastEncoder(Encoder):
    def forward(self, encoder_inputs: Tensor, encoder_inputs_mask: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(encoder_inputs, encoder_inputs_mask)


def spectrogram_diffusion() -> Any:
    notes = model(lambda: NotesEncoder(nn.Embedding(64, WIDTH)))
    past = model(lambda: PastEncoder(nn.Linear(BANDS, WIDTH)))
    return assembled(
        SpectrogramDiffusionPipeline,
        notes_encoder=notes,
        continuous_encoder=past,
        decoder=denoiser("T5FilmDecoder", input_dims=BANDS, targets_length=TARGET_FEATURE_LENGTH),
        scheduler=diffusers.DDPMScheduler(),
    )


def two_windows() -> Mapping[str, Any]:
    return {"input_tokens": [list(range(1, 17)), list(range(17, 33))], "output_type": "mel"}


RECIPES = (
    PipelineRecipe(
        "SpectrogramDiffusionPipeline",
        spectrogram_diffusion,
        two_windows,
        trajectories={"decoder": 2},
    ),
)
