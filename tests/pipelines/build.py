"""diffusers' pipelines around small random denoisers, and what an optimised one must keep."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import fxcache
from bench.denoisers import RECIPES
from bench.denoisers import tiny as from_recipe
from fxcache.runtime.module import engine_of
from tests import tiny
from tests.loops import refreshes

STEPS = 7
EVERY_THIRD = list(range(0, STEPS, 3))
PICTURE = Image.fromarray(
    np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)  # type: ignore[arg-type]
)

Draw = Callable[[], Tensor]


def denoiser(kind: str, **config: Any) -> nn.Module:
    """The small model of the recipe for ``kind``, its constructor arguments replaced by these."""
    recipe = RECIPES[kind]
    changed = type(recipe)(
        recipe.kind, {**recipe.tiny, **config}, recipe.inputs, recipe.default, recipe.latent
    )
    return from_recipe(changed)


def assembled(kind: Any, **parts: Any) -> Any:
    """A pipeline of these parts, quiet; what is not given is None."""
    missing = {name: None for name in expected_parts(kind) if name not in parts}
    pipe = kind(**missing, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def expected_parts(kind: Any) -> set[str]:
    return set(kind._get_signature_types())


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drawing(pipe: Any, **options: Any) -> Draw:
    """A function that runs ``pipe`` on the same noise each time and returns its latents."""

    def draw(**changed: Any) -> Tensor:
        given = {"num_inference_steps": STEPS, "output_type": "latent"} | options | changed
        generator = torch.Generator().manual_seed(0)
        torch.manual_seed(0)  # for pipelines that sample a VAE's latents without the generator
        return pipe(generator=generator, return_dict=False, **given)[0]  # type: ignore[no-any-return]

    return draw


@contextmanager
def optimised(*models: nn.Module, interval: int = 3, **options: Any) -> Iterator[None]:
    with ExitStack() as stack:
        for model in models:
            fxcache.optimize(model, policy=fxcache.Uniform(interval=interval), **options)
            stack.callback(fxcache.restore, model)
        yield


def runs(model: nn.Module) -> list[list[int]]:
    """The refreshes of the runs since the last time this was asked."""
    found = refreshes(model)
    engine_of(model).runs.clear()  # type: ignore[union-attr]
    return found


def keeps(draw: Draw, *models: nn.Module, expected: Any = None, last: Any = None) -> None:
    """Refreshing always is exact; every third call reuses nothing of an earlier run.

    ``expected``: the refreshes of each model's runs in one drawing; ``last``: of the last model's.
    """
    counts = [expected or [EVERY_THIRD]] * len(models)
    counts[-1] = last or counts[-1]
    plain = draw()
    with optimised(*models, interval=1):
        assert torch.equal(draw(), plain)
    with optimised(*models):
        first = draw()
        assert [runs(model) for model in models] == counts
        assert torch.equal(draw(), first), "the second run saw something of the first"
        assert [runs(model) for model in models] == counts
    assert not torch.equal(first, plain), "nothing was reused"
    assert torch.isfinite(first).all()


def follows(
    made: Callable[[], tuple[nn.Module, Draw, Any]], change: Callable[[Any], object]
) -> None:
    """What ``change`` does to a pipeline between two drawings is as if done before the first.

    ``made``: a new denoiser, a function that draws with it, and what ``change`` takes.
    """
    _, draw, pipe = made()
    before = draw()
    change(pipe)
    plain = draw()
    assert not torch.equal(before, plain), "the change must matter"
    assert torch.equal(drawn_after(made, change, interval=1), plain)
    model, draw, pipe = made()
    change(pipe)
    with optimised(model):
        from_the_start = draw()
    assert torch.equal(drawn_after(made, change, interval=3), from_the_start)
    assert not torch.equal(from_the_start, plain), "nothing was reused"


def drawn_after(made: Any, change: Callable[[Any], object], interval: int) -> Tensor:
    """What an optimised pipeline draws after it drew once and was changed."""
    model, draw, pipe = made()
    with optimised(model, interval=interval):
        draw()
        change(pipe)
        runs(model)
        after = draw()
        assert runs(model) == [list(range(0, STEPS, interval))]
    return after


def stable_diffusion(**options: Any) -> tuple[nn.Module, Draw, Any]:
    """A small U-Net, a function that draws with it, and its pipeline."""
    pipe = tiny.pipeline()
    text = {"prompt_embeds": noise(1, 7, 32), "negative_prompt_embeds": noise(1, 7, 32, seed=1)}
    return pipe.unet, drawing(pipe, **text, height=32, width=32, **options), pipe


FLUX_PROMPT = {
    "prompt_embeds": noise(1, 7, 24),
    "pooled_prompt_embeds": noise(1, 12),
    "height": 64,
    "width": 64,
}


def flux(**options: Any) -> tuple[nn.Module, Draw, Any]:
    """As ``stable_diffusion``, of FLUX."""
    pipe = assembled(
        diffusers.FluxPipeline,
        transformer=denoiser("FluxTransformer2DModel", guidance_embeds=True),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )
    return pipe.transformer, drawing(pipe, **FLUX_PROMPT, **options), pipe
