"""flow_matching: its ODE solver, which calls a wrapper by keywords."""

from collections.abc import Callable

import torch

from bench.foreign.packages.torchcfm import SHAPE, STEPS, unet
from bench.foreign.recipe import ForeignRecipe, Subject


def solved(method: str, whole: bool) -> Callable[[], Subject]:
    """Optimise the U-Net, or the wrapper around it as a ``whole``."""

    def build() -> Subject:
        from flow_matching.solver import ODESolver
        from flow_matching.utils import ModelWrapper

        model = ModelWrapper(unet()).eval()
        solver = ODESolver(velocity_model=model)
        modules = {"velocity_model": model} if whole else {"model": model.model}
        size = 1 / STEPS
        return Subject(
            modules, lambda: solver.sample(torch.randn(2, *SHAPE), step_size=size, method=method)
        )

    return build


RECIPES = tuple(
    ForeignRecipe("flow-matching", model, f"ODESolver.sample, {method}", solved(method, whole))
    for model, whole in (("torchcfm's UNetModel", False), ("ModelWrapper", True))
    for method in ("euler", "midpoint")
)
