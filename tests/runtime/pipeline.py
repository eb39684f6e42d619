"""A pipeline of two experts in plain PyTorch, and calls of a pipeline of diffusers."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tests import tiny


class Denoiser(nn.Module):
    """``forward(sample [1, 4], timestep [], text [1, 6])``: two levels joined by a skip."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.enter, self.leave = nn.Linear(4, 8), nn.Linear(16, 4)
        self.deep, self.text = nn.Linear(8, 8), nn.Linear(6, 8)

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        h = self.enter(sample)
        deep = self.deep(torch.tanh(h) + self.text(text))
        return self.leave(torch.cat([deep, h], dim=-1)) * (1 + timestep / 1000)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.layer(tokens)


PROMPT = torch.ones(1, 6)  # one tensor, which tells no two calls of pipelines apart


class Pipeline:
    """Has two experts: the second runs in the second half. Timesteps are new tensors."""

    def __init__(self, **components: Any) -> None:
        self.components = components
        self.scheduler = SimpleNamespace(step_index=0)

    @torch.no_grad()
    def __call__(self, seed: int = 0, steps: int = 6, inner: Any = None) -> Tensor:
        """Draws a latent [1, 4]."""
        generator = torch.Generator().manual_seed(seed)
        latent = torch.randn(1, 4, generator=generator)
        self.components["text_encoder"](PROMPT)
        for i in range(steps):
            late = 2 * i >= steps and "transformer_2" in self.components
            model = self.components["transformer_2" if late else "transformer"]
            latent = latent - 0.1 * model(latent, torch.tensor(900.0 - 100 * i), PROMPT)
            if inner and i == 1:
                inner()
        return latent


def pipeline(**components: Any) -> Pipeline:
    defaults = {"transformer": Denoiser(0).eval(), "transformer_2": Denoiser(1).eval()}
    return Pipeline(**{"text_encoder": Encoder().eval(), **defaults, **components})


def one_expert() -> Pipeline:
    return Pipeline(text_encoder=Encoder().eval(), transformer=Denoiser().eval())


SIZE = {"height": 32, "width": 32}


def draw(pipe: Any, **options: Any) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    given = {"num_inference_steps": 6, "output_type": "latent", "generator": generator, **options}
    return pipe(tiny.PROMPT, **given).images
