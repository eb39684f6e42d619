"""torchcfm: its U-Net, whose time comes first, in torchdyn's and in its own integration."""

from collections.abc import Callable
from typing import Any

import torch

from bench.foreign.recipe import ForeignRecipe, Subject
from bench.seeding import seeded

PACKAGE = "torchcfm"
SHAPE, STEPS = (3, 16, 16), 20


def unet(**config: Any) -> Any:
    from torchcfm.models.unet import UNetModel

    widths = {"num_channels": 32, "num_res_blocks": 1, "channel_mult": (1, 2)}
    return seeded(lambda: UNetModel(SHAPE, attention_resolutions="8", **widths, **config))


def torchdyn(solver: str) -> Callable[[], Subject]:
    def build() -> Subject:
        from torchdyn.core import NeuralODE

        model = unet()
        node = NeuralODE(model, solver=solver, sensitivity="adjoint")
        times = torch.linspace(0, 1, STEPS)
        return Subject({"model": model}, lambda: node.trajectory(torch.randn(2, *SHAPE), times)[-1])

    return build


def torchdiffeq(method: str) -> Callable[[], Subject]:
    """The loop of torchcfm's CIFAR-10 example, which integrates with torchdiffeq."""

    def build() -> Subject:
        from torchdiffeq import odeint

        model = unet()
        times = torch.linspace(0, 1, STEPS)
        return Subject(
            {"model": model}, lambda: odeint(model, torch.randn(2, *SHAPE), times, method=method)
        )

    return build


def with_classes() -> Subject:
    """The loop of torchcfm's MNIST example: a function closes over the classes."""
    from torchdiffeq import odeint

    model = unet(class_cond=True, num_classes=5)
    times, classes = torch.linspace(0, 1, STEPS), torch.tensor([1, 3])
    return Subject(
        {"model": model},
        lambda: odeint(
            lambda t, x: model(t, x, classes), torch.randn(2, *SHAPE), times, method="euler"
        ),
    )


RECIPES = (
    ForeignRecipe(PACKAGE, "UNetModel", "torchdyn's NeuralODE, Euler", torchdyn("euler")),
    ForeignRecipe(PACKAGE, "UNetModel", "torchdyn's NeuralODE, RK4", torchdyn("rk4")),
    ForeignRecipe(PACKAGE, "UNetModel", "torchdiffeq's odeint, Euler", torchdiffeq("euler")),
    ForeignRecipe(PACKAGE, "UNetModel", "torchdiffeq's odeint, midpoint", torchdiffeq("midpoint")),
    ForeignRecipe(PACKAGE, "UNetModel with classes", "torchdiffeq's odeint, Euler", with_classes),
)
