"""Reports about the code of models and solvers."""

from typing import Any

import diffusers
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import fxcache
from bench.pipelines.draw import count_calls
from bench.pipelines.families import stable_diffusion
from bench.pipelines.parts import noise
from bench.reports import models
from bench.reports.report import PublicReport
from bench.reports.requests import Request, built, call, in_order, recipe_of, silent

RECIPE = recipe_of(stable_diffusion.RECIPES, "StableDiffusionPipeline")


def blocks_in_place() -> list[str]:
    """Sample with blocks that overwrite their input, by a fixed rule and by a signal."""
    text, faults = models.text(), []
    plain = models.denoised(models.denoiser(in_place=True), text=text)
    pure = models.denoiser()
    for policy in (fxcache.Uniform(3), fxcache.FirstBlock(0.5)):
        fxcache.optimize(pure, policy)
        expected, refreshed = models.denoised(pure, text=text), refreshes(pure)
        model = fxcache.optimize(models.denoiser(in_place=True), fxcache.Uniform(1))
        if not torch.equal(models.denoised(model, text=text), plain):
            faults.append("refreshing at every step changes the result")
        fxcache.optimize(model, policy)
        if not torch.equal(models.denoised(model, text=text), expected):
            faults.append(f"{type(policy).__name__}: not as blocks that write nowhere")
        if refreshes(model) != refreshed or len(refreshed) == models.STEPS:
            faults.append(f"{type(policy).__name__}: refreshed {refreshes(model)} of {refreshed}")
    return faults


def refreshes(model: Any) -> list[int]:
    return fxcache.report(model).runs[-1].refreshes


def residual_once() -> list[str]:
    """Call twice with equal inputs: the second call reuses, and gives the same up to rounding."""
    faults = []
    policies = (fxcache.Uniform(2), fxcache.MagCache(ratios=(1.0, 1.0), retention=0.0))
    for policy in policies:
        model = fxcache.optimize(models.denoiser(), policy)
        inputs = (noise(1, models.TOKENS, models.CHANNELS), torch.tensor(500.0), models.text())
        with torch.no_grad(), fxcache.session(model, num_steps=2):
            full, reused = (model(*inputs) for _ in range(2))
        if refreshes(model) != [0]:
            faults.append(f"{type(policy).__name__}: the second call did not reuse")
        if not torch.allclose(full, reused, rtol=1e-5, atol=1e-6):
            worst = (full - reused).abs().max().item()
            faults.append(f"{type(policy).__name__}: the second call differs by {worst:.1e}")
    return faults


def two_calls_of_a_solver() -> list[str]:
    """Sample with Heun's method, which calls the model twice a step."""

    def build() -> Any:
        pipe = silent(RECIPE.build())
        pipe.scheduler = diffusers.HeunDiscreteScheduler()
        return pipe

    policies = (fxcache.Uniform(3), fxcache.ProtectedEnds(), fxcache.TeaCache(0.1))
    faults = in_order(build, [Request(call(RECIPE))] * 2, policies)
    pipe = build()
    _, calls = count_calls(lambda: call(RECIPE)(pipe), {"unet": pipe.unet})
    fxcache.optimize(pipe, fxcache.Uniform(100))
    call(RECIPE)(pipe)
    totals = fxcache.report(pipe.unet).totals
    if (totals.calls, totals.refreshes) != (calls["unet"], 1):
        faults.append(f"the report counts {totals}, the model {calls}")
    if fxcache.report(pipe.unet).runs[0].ideal_speedup is None:
        faults.append("the report has no speed-up")
    return faults


def counted_flops() -> list[str]:
    """Count the FLOPs of each call with torch's own counter, and compare with the report.

    The counter has no formula for the fused attention of CPUs.
    """
    pipe = built(RECIPE)()
    fxcache.optimize(pipe, fxcache.Uniform(3), hoist=None)
    per_call: list[int] = []
    inner = pipe.unet.forward

    def counted(*arguments: Any, **options: Any) -> Any:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            result = inner(*arguments, **options)
        per_call.append(counter.get_total_flops())
        return result

    call(RECIPE)(pipe)  # captures
    pipe.unet.forward = counted
    call(RECIPE)(pipe)
    del pipe.unet.forward
    run = fxcache.report(pipe.unet).runs[-1]
    flops = {v.name: v.flops for v in fxcache.report(pipe.unet).captures[0].variants}
    expected = [
        flops["full" if step in run.refreshes else "cached_skip"] for step in range(run.steps)
    ]
    return [] if per_call == expected else [f"counted {per_call}, the report says {expected}"]


REPORTS = (
    PublicReport(
        "sgl-project/sglang",
        33827,
        "MiniMax-H3 with Cache-DiT: blocks overwrite their input, the measured change is 0/0, and "
        "nothing is ever reused, without a warning.",
        blocks_in_place,
        "A transformer whose blocks overwrite their input: exact if every step refreshes; with "
        "`Uniform` and `FirstBlock`, the bits and the refreshes of blocks that write nowhere.",
        kind="pull",
    ),
    PublicReport(
        "vllm-project/vllm-omni",
        5560,
        "MagCache adds the cached residual of all blocks once for each block: wrong pictures, "
        "without an error.",
        residual_once,
        "Two calls with equal inputs, the second of which reuses: the same result up to rounding.",
    ),
    PublicReport(
        "Comfy-Org/ComfyUI",
        9594,
        "EasyCache with Heun's method: it counts two calls a step as skipped steps, and divides "
        "by zero.",
        two_calls_of_a_solver,
        "Stable Diffusion with Heun's method and three policies: a second picture as the first, "
        "and the report counts the calls of the model.",
    ),
    PublicReport(
        "horseee/DeepCache",
        37,
        "How many operations does a step take? With the helper enabled, the counter says 0.",
        counted_flops,
        "torch's own FLOP counter sees each step, refreshed or reused, and counts what the report "
        "says.",
    ),
)
