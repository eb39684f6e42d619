"""Tests ControlNets, T2I-Adapters and IP-Adapters, whose networks compute conditioning."""

from collections.abc import Callable
from functools import partial
from typing import Any

import diffusers
import pytest
import torch
from diffusers import T2IAdapter
from torch import Tensor, nn

from bench.pipelines.parts import denoiser, noise, prompt, square
from tests import tiny
from tests.pipelines.build import (
    FLUX_PROMPT,
    PICTURE,
    SD3_PROMPT,
    SD_PROMPT,
    Made,
    around,
    drawing,
    flux,
    follows,
    follows_each_call,
    in_session,
    keeps,
    optimised,
    stable_diffusion,
)

pytestmark = [
    # The ControlNets of FLUX import it from where it used to be.
    pytest.mark.filterwarnings("ignore:.FluxPosEmbed. is deprecated:FutureWarning"),
    pytest.mark.usefixtures("shared_captures"),
]

XL_PROMPT = prompt(7, 64, pooled=32) | square(32)


def lively(model: Any) -> Any:
    """Replace zero convolutions, with which the network has no effect."""
    torch.manual_seed(1)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.1)
    return model.eval()


def extended(kind: Any, base: Any, options: dict[str, Any], **parts: Any) -> Made:
    """Return the pipeline ``base`` with more parts, which starts from an image."""
    pipe = kind.from_pipe(base, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe.unet, drawing(pipe, image=PICTURE, **options), pipe


def sd_controlnet(**options: Any) -> Made:
    base = tiny.pipeline()
    kind = diffusers.StableDiffusionControlNetPipeline
    return extended(kind, base, SD_PROMPT | options, controlnet=tiny.controlnet(base.unet))


def xl_controlnet(**options: Any) -> Made:
    base = tiny.xl_pipeline()
    kind = diffusers.StableDiffusionXLControlNetPipeline
    return extended(kind, base, XL_PROMPT | options, controlnet=tiny.controlnet(base.unet))


def with_controlnet(
    model: nn.Module, kind: Any, options: dict[str, Any], controlnet: nn.Module
) -> Made:
    """Return a transformer's pipeline with its ControlNet, which starts from an image."""
    options = {"control_image": PICTURE.resize((64, 64))} | options
    vae = tiny.vae(levels=4, shift_factor=0.0)
    return around(model, kind, options, vae=vae, controlnet=lively(controlnet))


def flux_controlnet(**options: Any) -> Made:
    model, _, _ = flux()
    controlnet = diffusers.FluxControlNetModel.from_transformer(
        model,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        load_weights_from_transformer=False,
    )
    return with_controlnet(
        model, diffusers.FluxControlNetPipeline, FLUX_PROMPT | options, controlnet
    )


def sd3_controlnet(**options: Any) -> Made:
    model = denoiser("SD3Transformer2DModel", sample_size=32)
    controlnet = diffusers.SD3ControlNetModel.from_config(
        {**model.config, "num_layers": 2, "extra_conditioning_channels": 0}
    )
    return with_controlnet(
        model, diffusers.StableDiffusion3ControlNetPipeline, SD3_PROMPT | options, controlnet
    )


# New residuals at the second call may as well be another request's prompt: it refreshes.
RESIDUALS = [[0, 3, 6]]
CONTROLNETS = [sd_controlnet, xl_controlnet, sd3_controlnet]
PART = {"control_guidance_start": 0.3, "control_guidance_end": 0.7}


@pytest.mark.sweep(1)
@pytest.mark.parametrize("made", CONTROLNETS)
def test_controlnet(made):
    model, draw, _ = made()
    keeps(draw, model, expected=RESIDUALS)


@pytest.mark.sweep(1)
@pytest.mark.parametrize("made", CONTROLNETS)
def test_controlnet_for_a_part_of_the_run(made):
    model, draw, _ = made(**PART)
    keeps(draw, model, expected=RESIDUALS)


@pytest.mark.sweep(1)
@pytest.mark.parametrize("options", [{}, PART], ids=["whole", "part"])
def test_flux_controlnet_in_a_session(options):
    model, draw, _ = flux_controlnet(**options)
    keeps(in_session(draw, model), model, expected=RESIDUALS)


def test_flux_controlnet_without_a_session():
    """Timesteps and residuals are new at every call; the pipeline's call identifies the run."""
    model, draw, _ = flux_controlnet()
    keeps(draw, model)


def test_controlnet_in_guess_mode():
    model, draw, _ = sd_controlnet(guess_mode=True)
    keeps(draw, model, expected=RESIDUALS)


@pytest.mark.sweep(1)
@pytest.mark.parametrize("made", CONTROLNETS)
def test_controlnet_scale_of_each_call(made):
    model, draw, _ = made()
    follows_each_call(draw, model, "controlnet_conditioning_scale", (1.0, 0.3), RESIDUALS)


def adapter() -> T2IAdapter:
    torch.manual_seed(1)
    return T2IAdapter(channels=[16, 32], num_res_blocks=1, downscale_factor=2).eval()


def sd_t2i_adapter(**options: Any) -> Made:
    kind = diffusers.StableDiffusionAdapterPipeline
    return extended(kind, tiny.pipeline(), SD_PROMPT | options, adapter=adapter())


def xl_t2i_adapter(**options: Any) -> Made:
    kind = diffusers.StableDiffusionXLAdapterPipeline
    return extended(kind, tiny.xl_pipeline(), XL_PROMPT | options, adapter=adapter())


@pytest.mark.sweep(1)
@pytest.mark.parametrize("made", [sd_t2i_adapter, xl_t2i_adapter])
def test_t2i_adapter(made):
    model, draw, _ = made()
    keeps(draw, model, expected=RESIDUALS)


def test_t2i_adapter_for_a_part_of_the_run_splits_the_run():
    model, draw, _ = xl_t2i_adapter(adapter_conditioning_factor=0.5)
    keeps(draw, model, expected=[[0], [0, 3]])


CLIP_WIDTH = 20


def ip_adapter(unet: Any, seed: int = 0) -> dict[str, dict[str, Tensor]]:
    """Return weights in the format of the published files."""
    width = unet.config.cross_attention_dim
    layers: dict[str, Tensor] = {}
    crossing = [n for n in unet.attn_processors if n.endswith("attn2.processor")]
    for place, name in enumerate(crossing):
        attention = unet.get_submodule(name.removesuffix(".processor"))
        for number, part in enumerate(("k", "v")):
            weight = noise(attention.inner_dim, width, seed=10 * seed + number)
            layers[f"{2 * place + 1}.to_{part}_ip.weight"] = 0.3 * weight
    return {
        "image_proj": {
            "proj.weight": noise(4 * width, CLIP_WIDTH, seed=seed),
            "proj.bias": torch.zeros(4 * width),
            "norm.weight": torch.ones(width),
            "norm.bias": torch.zeros(width),
        },
        "ip_adapter": layers,
    }


def load(pipe: Any, seed: int = 0) -> None:
    pipe.load_ip_adapter(
        ip_adapter(pipe.unet, seed),
        subfolder=None,
        weight_name="",
        image_encoder_folder=None,
        low_cpu_mem_usage=False,
    )


IMAGE = [noise(2, 1, CLIP_WIDTH, seed=3)]


def with_ip_adapter(unet: Callable[[], Any] = tiny.small_unet) -> Made:
    model, draw, pipe = stable_diffusion(unet, ip_adapter_image_embeds=IMAGE)
    load(pipe)
    return model, draw, pipe


def test_ip_adapter():
    model, draw, _ = with_ip_adapter()
    keeps(draw, model)


def test_ip_adapter_picture_of_each_call():
    model, draw, _ = with_ip_adapter()
    images = (IMAGE, [noise(2, 1, CLIP_WIDTH, seed=4)])
    follows_each_call(draw, model, "ip_adapter_image_embeds", images)


def load_another(pipe: Any) -> None:
    pipe.unload_ip_adapter()
    load(pipe, 1)


CHANGES = {
    "scale": lambda p: p.set_ip_adapter_scale(0.3),
    "another": load_another,
}


@pytest.mark.sweep(1)
@pytest.mark.parametrize("change", CHANGES)
def test_ip_adapter_changed_between_runs(change):
    follows(with_ip_adapter, CHANGES[change])


@pytest.mark.slow
def test_ip_adapter_scale_of_blocks_changed_between_runs():
    scale = {"up": {"block_1": [0.0, 1.0]}}
    made = partial(with_ip_adapter, tiny.attentive_unet)
    follows(made, lambda pipe: pipe.set_ip_adapter_scale(scale))


def test_ip_adapter_loaded_and_unloaded_between_runs():
    model, draw, pipe = stable_diffusion()
    plain = draw()
    with optimised(model, interval=1):
        assert torch.equal(draw(), plain)
        load(pipe)
        adapted = draw(ip_adapter_image_embeds=IMAGE)
        pipe.unload_ip_adapter()
        assert torch.equal(draw(), plain)
    model, draw, _ = with_ip_adapter()
    assert torch.equal(draw(), adapted)
