"""Models whose values can be hoisted, and what the tests of hoisting look at."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import fxcache
from fxcache.analysis.hoisting import HoistLevel
from fxcache.rewrite.variants import Variants
from tests.engines import optimized_engine

ALWAYS = fxcache.Uniform(1)


def both(
    make: Callable[[], nn.Module], run: Callable[[nn.Module], Any], **options: Any
) -> tuple[Any, Any, nn.Module]:
    """Return the results without and with hoisting, and the model that hoists."""
    hoist = options.pop("hoist", "once")
    plainly = run(fxcache.optimize(make(), **options))
    model = fxcache.optimize(make(), **options, hoist=hoist)
    return plainly, run(model), model


def captured(model: nn.Module) -> list[Variants]:
    engine = optimized_engine(model)
    return list(engine.captures.values())


def levels(model: nn.Module) -> set[HoistLevel]:
    """Return the hoist levels of the variants that ran."""
    made = [key.hoisted for variants in captured(model) for key in variants.made]
    return {level for level in made if level} or {HoistLevel.NOTHING}


def spent(model: nn.Module) -> int:
    """Return the recorded FLOPs of all steps."""
    engine = optimized_engine(model)
    return sum(step.flops for run in engine.runs for step in run.steps)


def tabulated(model: nn.Module) -> list[int]:
    """Return the number of steps that took a row of a table, for each run."""
    return [len(run.tabulated) for run in fxcache.report(model).runs]


class Small(nn.Module):
    """``forward(x, t, text)``: a stream of three blocks that read the embedded text."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave = nn.Linear(4, 8), nn.Linear(8, 4)
        self.text, self.time = nn.Linear(4, 8), nn.Linear(1, 8)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def read(self, text: Tensor) -> Tensor:
        found: Tensor = self.text(text)
        return found

    def embed(self, t: Tensor) -> Tensor:
        found: Tensor = self.time(t.reshape(-1, 1) / 1000)
        return found

    def forward(self, x: Tensor, t: Tensor, text: Tensor) -> tuple[Tensor, ...]:
        read = self.read(text)[:, :1]
        h = self.enter(x) + self.embed(t) + read
        for block in self.blocks:
            h = h + block(h)
        return self.leave(h), read


@torch.no_grad()
def assert_equal(
    model: nn.Module,
    plain: nn.Module,
    timesteps: Tensor,
    steps: int = 0,
    atol: float = 0,
    **more: Any,
) -> None:
    """Compare both step by step, as callers that write to their results."""
    text, generator = torch.randn(2, 5, 4), torch.Generator().manual_seed(0)
    given = {**more} if more else {"text": text}
    for t in timesteps[: steps or len(timesteps)]:
        x, outputs = torch.randn(2, 5, 4, generator=generator), []
        for called in (model, plain):
            torch.manual_seed(int(t))
            outputs.append(called(x, t, **given))
        for found, expected in zip(*outputs, strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=atol)
            found.fill_(torch.nan)


SCHEDULE = torch.linspace(900, 100, 4)


OBSERVING = fxcache.FirstBlock(1e-9)  # which refreshes at every step
