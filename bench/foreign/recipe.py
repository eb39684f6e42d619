"""Recipes: how to build a small model of a package, and how to sample from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Subject:
    """A model of a package, and the package's own sampling loop.

    Attributes:
        denoisers: The modules that the loop calls once a step or more, by a name of their own.
        sample: Runs the loop once. Its result holds tensors.
    """

    denoisers: Mapping[str, nn.Module]
    sample: Callable[[], Any]


@dataclass(frozen=True)
class ForeignRecipe:
    """One model of one package in one loop.

    Attributes:
        package: The name of the package on the index.
        model: The class of the model.
        loop: The package's sampling loop.
        build: Builds a small model with seeded random weights. It imports the package.
        trajectories: How many trajectories a denoiser follows in one run of the loop, by its name
            among the denoisers; 1 for those not named. Guidance in calls of its own is one more.
    """

    package: str
    model: str
    loop: str
    build: Callable[[], Subject]
    trajectories: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.package}: {self.model}, {self.loop}"
