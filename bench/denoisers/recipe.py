"""Recipes: how to build a denoiser class, small and full-size, and how to call it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Config = Mapping[str, Any]
Inputs = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """One denoiser class of diffusers.

    Attributes:
        kind: The name of the class.
        tiny: The constructor arguments of a small model with the structure of the real one: two
            blocks of each kind, or more where fewer would be cut in another way.
        call: Builds the inputs of one call from the config and whether they have the full size, on
            the default device.
        default: The constructor arguments of the full-size model besides the class's defaults.
        latent: The parameter for the latent, if that is not the first.
        options: Further arguments of every call.
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
