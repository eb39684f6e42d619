"""rectified-flow-pytorch: a U-Net for flow matching."""

from collections.abc import Callable
from typing import Any

from bench.foreign.recipe import ForeignRecipe, Subject
from bench.seeding import seeded

PACKAGE = "rectified-flow-pytorch"
SHAPE, STEPS = (3, 16, 16), 20


def flow(predict: str, method: str) -> Callable[[], Subject]:
    def build() -> Subject:
        from rectified_flow_pytorch import RectifiedFlow, Unet

        model = seeded(lambda: Unet(dim=16, dim_mults=(1, 2), attn_dim_head=8))
        options: dict[str, Any] = {"odeint_kwargs": {"method": method}, "data_shape": SHAPE}
        loop = RectifiedFlow(model, predict=predict, **options)
        return Subject({"model": model}, lambda: loop.sample(batch_size=2, steps=STEPS))

    return build


RECIPES = (
    ForeignRecipe(PACKAGE, "Unet", "RectifiedFlow.sample, midpoint", flow("flow", "midpoint")),
    ForeignRecipe(PACKAGE, "Unet", "RectifiedFlow.sample, Euler", flow("flow", "euler")),
    ForeignRecipe(
        PACKAGE, "Unet that predicts data", "RectifiedFlow.sample, Euler", flow("clean", "euler")
    ),
)
