"""diffusers' pipelines around small random denoisers, and the checks of an optimised one."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

import fxcache
from bench.pipelines.parts import denoiser, picture, prompt, square
from fxcache.runtime.module import engine_of
from tests import tiny
from tests.engines import optimized_engine
from tests.loops import refreshes

STEPS = 7
EVERY_THIRD = list(range(0, STEPS, 3))
PICTURE = picture()

Draw = Callable[..., Tensor]
Made = tuple[Any, Draw, Any]  # a denoiser, a function that draws with it, its pipeline


def assembled(kind: Any, **parts: Any) -> Any:
    """Build a pipeline of these parts, without a progress bar. Other parts are None."""
    missing = {name: None for name in expected_parts(kind) if name not in parts}
    pipe = kind(**missing, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def expected_parts(kind: Any) -> set[str]:
    return set(kind._get_signature_types())


def drawing(pipe: Any, **options: Any) -> Draw:
    """Return a function that runs ``pipe`` on the same noise each time and returns its latents."""

    def draw(**changed: Any) -> Tensor:
        given = {"num_inference_steps": STEPS, "output_type": "latent"} | options | changed
        generator = torch.Generator().manual_seed(0)
        torch.manual_seed(0)  # for pipelines that sample a VAE's latents without the generator
        return pipe(generator=generator, return_dict=False, **given)[0]

    return draw


@contextmanager
def optimised(*models: nn.Module, interval: int = 3, **options: Any) -> Iterator[None]:
    with ExitStack() as stack:
        for model in models:
            fxcache.optimize(model, policy=fxcache.Uniform(interval=interval), **options)
            stack.callback(fxcache.restore, model)
        yield


def paced(interval: int, *models: nn.Module) -> None:
    """Set the interval of optimised models. Their captures stay valid."""
    for model in models:
        engine = optimized_engine(model)
        engine.settings = replace(engine.settings, policy=fxcache.Uniform(interval))


def runs(model: nn.Module) -> list[list[int]]:
    """Return the refreshes of the runs since the last call of this function."""
    found = refreshes(model)
    optimized_engine(model).runs.clear()
    return found


def keeps(draw: Draw, *models: nn.Module, expected: Any = None, last: Any = None) -> None:
    """Refreshing always is exact; every third call reuses nothing of an earlier run.

    ``expected``: the refreshes of each model's runs in one drawing; ``last``: of the last model's.
    """
    counts = [expected or [EVERY_THIRD] for model in models]
    counts[-1] = last or counts[-1]
    plain = draw()
    with optimised(*models, interval=1):
        assert torch.equal(draw(), plain)
        [runs(model) for model in models]
        paced(3, *models)
        first = draw()
        assert [runs(model) for model in models] == counts
        assert torch.equal(draw(), first), "the second run saw something of the first"
        assert [runs(model) for model in models] == counts
    assert not torch.equal(first, plain), "nothing was reused"
    assert torch.isfinite(first).all()


def follows(made: Callable[[], Made], change: Callable[[Any], object]) -> None:
    """What ``change`` does to a pipeline between two drawings is as if done before the first."""
    _, draw, pipe = made()
    before = draw()
    change(pipe)
    plain = draw()
    assert not torch.equal(before, plain), "the change must matter"
    model, draw, pipe = made()
    change(pipe)
    with optimised(model):
        from_the_start = draw()
    model, draw, pipe = made()
    with optimised(model):
        draw()
        change(pipe)
        runs(model)
        assert torch.equal(draw(), from_the_start)
        assert runs(model) == [EVERY_THIRD]
        paced(1, model)
        assert torch.equal(draw(), plain)
        assert runs(model) == [list(range(STEPS))]
    assert not torch.equal(from_the_start, plain), "nothing was reused"


def follows_each_call(
    draw: Draw, model: nn.Module, name: str, values: tuple[Any, Any], expected: Any = None
) -> None:
    """An option with one value, another and the first again has no effect on other drawings.

    ``expected``: the refreshes of the runs in one drawing.
    """
    options = [{name: value} for value in (*values, values[0])]
    plain = [draw(**option) for option in options]
    assert not torch.equal(plain[0], plain[1]), "the option must matter"
    with optimised(model, interval=1):
        assert all(torch.equal(draw(**o), p) for o, p in zip(options, plain, strict=True))
        runs(model)
        paced(3, model)
        first, _, again = [draw(**option) for option in options]
        assert runs(model) == (expected or [EVERY_THIRD]) * 3
    assert torch.equal(first, again)


def in_session(draw: Draw, model: nn.Module, **options: Any) -> Draw:
    """Return ``draw`` in a session of ``model`` while that is optimised."""

    def drawn() -> Tensor:
        if engine_of(model) is None:
            return draw()
        with fxcache.session(model, **options):
            return draw()

    return drawn


def masks(dtype: torch.dtype = torch.long) -> dict[str, Any]:
    """Return the masks of a prompt of seven tokens, and of a negative one of five."""
    return {
        "prompt_attention_mask": torch.ones(1, 7, dtype=dtype),
        "negative_prompt_attention_mask": torch.tensor([[1] * 5 + [0] * 2]).to(dtype),
    }


SD_PROMPT = prompt(7, 32) | square(32)
FLUX_PROMPT = prompt(7, 24, pooled=12) | square(64)
SD3_PROMPT = FLUX_PROMPT
WAN_PROMPT = prompt(7, 16) | square(32) | {"num_frames": 5, "guidance_scale": 3.0}
LTX_PROMPT = prompt(7, 16) | masks(torch.bool) | square(64) | {"num_frames": 9}
COGVIDEOX_PROMPT = prompt(5, 16) | square(32) | {"num_frames": 5}


def stable_diffusion(unet: Callable[[], Any] = tiny.small_unet, **options: Any) -> Made:
    pipe = tiny.pipeline(unet=unet())
    return pipe.unet, drawing(pipe, **(SD_PROMPT | options)), pipe


def around(transformer: nn.Module, kind: Any, options: dict[str, Any], **parts: Any) -> Made:
    """Build a flow-matching pipeline, unless ``parts`` have a scheduler."""
    parts = {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler()} | parts
    pipe = assembled(kind, transformer=transformer, **parts)
    return transformer, drawing(pipe, **options), pipe


def flux(**options: Any) -> Made:
    model = denoiser("FluxTransformer2DModel", guidance_embeds=True)
    return around(model, diffusers.FluxPipeline, FLUX_PROMPT | options)


def sd3(**options: Any) -> Made:
    model = denoiser("SD3Transformer2DModel", sample_size=32)
    return around(model, diffusers.StableDiffusion3Pipeline, SD3_PROMPT | options)


def flow_unipc() -> Any:
    """Return the solver of Wan's pipelines."""
    return diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
