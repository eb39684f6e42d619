"""The host time that fxcache adds to a call of a denoiser.

``python -m bench.dispatch`` calls a U-Net whose variants are replaced by functions that return
immediately. Only the dispatch remains: argument handling, attribution, decision, records, and the
copy to the cache at refreshes. The time of a bare call of a module is subtracted.
"""

import dataclasses
import platform
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

import fxcache
from bench.output import run
from fxcache.depths import at_depth
from fxcache.runtime.module import engine_of

CALLS = 2000
ROUNDS = 7


class Instant(nn.Module):
    """A module that returns a constant for any arguments."""

    def __init__(self, result: Any):
        super().__init__()
        self.result = result

    def forward(self, *_: Any, **__: Any) -> Any:
        return self.result


def unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=4,
        cross_attention_dim=32,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()


def call(model: nn.Module, timesteps: torch.Tensor) -> Callable[[], None]:
    """Return a function that makes one run, as StableDiffusionPipeline calls its U-Net."""
    latents, text = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 32)

    def run_once() -> None:
        for t in timesteps:
            model(
                latents,
                t,
                encoder_hidden_states=text,
                timestep_cond=None,
                cross_attention_kwargs=None,
                added_cond_kwargs=None,
                return_dict=False,
            )

    return run_once


def microseconds(run: Callable[[], None]) -> float:
    """Return the median over rounds of the mean CPU time of one call in microseconds."""

    def one_round() -> float:
        started = time.thread_time()
        run()
        return 1e6 * (time.thread_time() - started) / CALLS

    return median(at_depth(index, ROUNDS, one_round) for index in range(ROUNDS))


@torch.no_grad()
def dispatch(interval: int) -> float:
    """Return the microseconds of a call of an optimised U-Net with instant variants."""
    model = fxcache.optimize(unet(), policy=fxcache.Uniform(interval=interval))
    call(model, torch.arange(2))()
    engine = engine_of(model)
    assert engine is not None
    kept = torch.randn(2, 16, 8, 8)
    for variants in engine.captures.values():
        for key, variant in variants.made.items():
            instant: Any = Instant((kept,) * (1 + len(variant.signature.writes)))
            instant.meta = {"weight_names": {}}
            variants.made[key] = dataclasses.replace(variant, module=instant, code=instant)
    return microseconds(call(model, torch.arange(CALLS, 0, -1)))


@torch.no_grad()
def measure() -> dict[str, Any]:
    bare = microseconds(call(Instant(None), torch.arange(CALLS, 0, -1)))
    refresh, reuse = dispatch(1), dispatch(CALLS)
    return {
        "reuse_us": round(reuse - bare, 1),
        "refresh_us": round(refresh - bare, 1),
        "bare_call_us": round(bare, 1),
        "calls": CALLS,
        "rounds": ROUNDS,
        "device": f"CPU, {platform.machine()}, one thread",
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    run(__doc__, measure)
