"""How to build one class of denoiser, small and in full, and how a pipeline calls it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """One denoiser class of diffusers.

    ``kind``: the class's name. ``tiny``: constructor arguments of a small model with the real
    one's structure. ``inputs(config, full)``: the arguments of one call, on the current default
    device; at the size people run if ``full``, else as small as the tiny model allows.
    ``default``: constructor arguments of the full-size model, beyond the class's own defaults.
    ``latent``: the parameter that takes the latent, where that is not the first.
    """

    kind: str
    tiny: Config
    inputs: Callable[[Config, bool], dict[str, Any]]
    default: Config = field(default_factory=dict)
    latent: str | None = None
