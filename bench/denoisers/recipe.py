"""Recipes: how to build a denoiser class, small and full-size, and how to call it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Config = Mapping[str, Any]
Inputs = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """One denoiser class of diffusers.

    ``kind``: the class's name. ``tiny``: constructor arguments of a small model with the real
    one's structure. ``call(config, full)``: the tensors of one call and what goes with them, on
    the current default device; at the size people run if ``full``, else as small as the tiny
    model allows. ``default``: constructor arguments of the full-size model, beyond the class's own
    defaults. ``latent``: the parameter that takes the latent, where that is not the first.
    ``options``: what every call passes besides.
    """

    kind: str
    tiny: Config
    call: Callable[[Config, bool], Inputs]
    default: Config = field(default_factory=dict)
    latent: str | None = None
    options: Config = field(default_factory=lambda: {"return_dict": False})

    def inputs(self, config: Config, full: bool) -> Inputs:
        """Return the arguments of one call."""
        return {**self.call(config, full), **self.options}
