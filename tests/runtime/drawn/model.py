"""A denoiser that is small enough for a hundred thousand calls, and its parts."""

from typing import Any

import torch
from torch import Tensor, nn

TOKENS, WIDTH, WORDS = 64, 8, 3


class Denoiser(nn.Module):
    """A deep value that depends on latent and prompt, and a head that depends on all inputs.

    ``forward(sample [1, 64, 8], timestep, text [1, 3, 8], residual [1, 64, 8] or None)``.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.text = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.deep = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.head = nn.Linear(WIDTH, WIDTH)

    def forward(
        self, sample: Tensor, timestep: Any, text: Tensor, residual: Tensor | None = None
    ) -> Tensor:
        return self.end(sample, self.deep_value(sample, text), timestep, residual)

    def deep_value(self, sample: Tensor, text: Tensor) -> Tensor:
        """Return the value that is cached."""
        words = self.text(text).mean(1, keepdim=True)
        found: Tensor = self.deep(self.embed(sample) + words)
        return found

    def end(self, sample: Tensor, deep: Tensor, timestep: Any, residual: Tensor | None) -> Tensor:
        """Apply the head to a deep value of this call or of an earlier one."""
        timestep = torch.as_tensor(timestep, dtype=sample.dtype).reshape(-1, 1, 1)
        found: Tensor = self.head(self.embed(sample) + deep) * (1 + timestep / 1000)
        return found if residual is None else found + residual


def doubled(_: nn.Module, __: Any, output: Tensor) -> Tensor:
    """A hook that a guider sets around one call of a step."""
    return 2 * output
