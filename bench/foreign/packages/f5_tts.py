"""f5-tts: a diffusion transformer for speech."""

from collections.abc import Callable
from typing import Any

import torch

from bench.foreign.recipe import ForeignRecipe, Subject
from bench.seeding import seeded

PACKAGE = "f5-tts"
MELS, STEPS = 16, 20


def speech(strength: float, **config: Any) -> Callable[[], Subject]:
    def build() -> Subject:
        from f5_tts.model import CFM
        from f5_tts.model.backbones.dit import DiT

        widths = {"dim": 32, "depth": 4, "heads": 2, "dim_head": 16, "mel_dim": MELS}
        model = seeded(lambda: DiT(**widths, text_num_embeds=30, text_dim=16, **config))
        loop = CFM(model, mel_spec_kwargs={"n_mel_channels": MELS}).eval()
        voice, text = torch.randn(1, 10, MELS), torch.tensor([[1, 2, 3, 4, 5]])
        options = {"steps": STEPS, "cfg_strength": strength}
        return Subject(
            {"transformer": model}, lambda: loop.sample(voice, text, duration=24, **options)
        )

    return build


RECIPES = (
    ForeignRecipe(PACKAGE, "DiT", "CFM.sample", speech(0.0)),
    ForeignRecipe(PACKAGE, "DiT, guided", "CFM.sample", speech(2.0)),
    ForeignRecipe(
        PACKAGE, "DiT with a long skip", "CFM.sample", speech(0.0, long_skip_connection=True)
    ),
)
