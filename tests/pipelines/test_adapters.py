"""ControlNets, T2I-Adapters and IP-Adapters: conditioning that another network computes."""

from typing import Any

import diffusers
import pytest
import torch
from diffusers import T2IAdapter
from torch import Tensor, nn

import fxcache
from fxcache.runtime.module import engine_of
from tests import tiny
from tests.pipelines.build import (
    FLUX_PROMPT,
    PICTURE,
    assembled,
    denoiser,
    drawing,
    flux,
    follows,
    keeps,
    noise,
    optimised,
    stable_diffusion,
)

# The ControlNets of FLUX import it from where it used to be.
pytestmark = pytest.mark.filterwarnings("ignore:.FluxPosEmbed. is deprecated:FutureWarning")

SD_PROMPT = {
    "prompt_embeds": noise(1, 7, 32),
    "negative_prompt_embeds": noise(1, 7, 32, seed=1),
    "height": 32,
    "width": 32,
}
XL_PROMPT = {
    "prompt_embeds": noise(1, 7, 64),
    "negative_prompt_embeds": noise(1, 7, 64, seed=1),
    "pooled_prompt_embeds": noise(1, 32),
    "negative_pooled_prompt_embeds": noise(1, 32, seed=1),
    "height": 32,
    "width": 32,
}
SD3_PROMPT = {
    "prompt_embeds": noise(1, 7, 24),
    "negative_prompt_embeds": noise(1, 7, 24, seed=1),
    "pooled_prompt_embeds": noise(1, 12),
    "negative_pooled_prompt_embeds": noise(1, 12, seed=1),
    "height": 64,
    "width": 64,
}


def lively(model: Any) -> Any:
    """Zero convolutions would make it do nothing."""
    torch.manual_seed(1)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.1)
    return model.eval()


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sd_controlnet(**options: Any) -> tuple[Any, Any]:
    base = tiny.pipeline()
    pipe = quiet(
        diffusers.StableDiffusionControlNetPipeline.from_pipe(
            base, controlnet=tiny.controlnet(base.unet)
        )
    )
    return pipe.unet, drawing(pipe, **SD_PROMPT, image=PICTURE, **options)


def xl_controlnet(**options: Any) -> tuple[Any, Any]:
    base = tiny.xl_pipeline()
    pipe = quiet(
        diffusers.StableDiffusionXLControlNetPipeline.from_pipe(
            base, controlnet=tiny.controlnet(base.unet)
        )
    )
    return pipe.unet, drawing(pipe, **XL_PROMPT, image=PICTURE, **options)


def vae_of(channels: int, levels: int = 4) -> Any:
    torch.manual_seed(0)
    return diffusers.AutoencoderKL(
        block_out_channels=(8,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        norm_num_groups=4,
        latent_channels=channels,
        shift_factor=0.0,
    ).eval()


def flux_controlnet(**options: Any) -> tuple[Any, Any]:
    model, _, base = flux()
    controlnet = diffusers.FluxControlNetModel.from_transformer(
        model,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        load_weights_from_transformer=False,
    )
    pipe = assembled(
        diffusers.FluxControlNetPipeline,
        transformer=model,
        scheduler=base.scheduler,
        vae=vae_of(4),
        controlnet=lively(controlnet),
    )
    return model, drawing(pipe, **FLUX_PROMPT, control_image=PICTURE.resize((64, 64)), **options)


def sd3_controlnet(**options: Any) -> tuple[Any, Any]:
    model = denoiser("SD3Transformer2DModel", sample_size=32)
    controlnet = diffusers.SD3ControlNetModel.from_config(
        {**model.config, "num_layers": 2, "extra_conditioning_channels": 0}
    )
    pipe = assembled(
        diffusers.StableDiffusion3ControlNetPipeline,
        transformer=model,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=vae_of(4),
        controlnet=lively(controlnet),
    )
    return model, drawing(pipe, **SD3_PROMPT, control_image=PICTURE.resize((64, 64)), **options)


# New residuals at the second call may as well be another request's prompt: it refreshes.
RESIDUALS = [[0, 1, 3, 6]]
CONTROLNETS = [sd_controlnet, xl_controlnet, sd3_controlnet]
PART = {"control_guidance_start": 0.3, "control_guidance_end": 0.7}


@pytest.mark.parametrize("made", CONTROLNETS)
def test_controlnet(made):
    model, draw = made()
    keeps(draw, model, expected=RESIDUALS)


@pytest.mark.parametrize("made", CONTROLNETS)
def test_controlnet_for_a_part_of_the_run(made):
    model, draw = made(**PART)
    keeps(draw, model, expected=RESIDUALS)


@pytest.mark.parametrize("options", [{}, PART], ids=["whole", "part"])
def test_flux_controlnet_in_a_session(options):
    model, draw = flux_controlnet(**options)

    def in_session() -> torch.Tensor:
        if engine_of(model) is None:
            return draw()
        with fxcache.session(model):
            return draw()

    keeps(in_session, model, expected=RESIDUALS)


@pytest.mark.filterwarnings("ignore::fxcache.FxcacheWarning")
def test_flux_controlnet_without_a_session_stays_exact():
    """Timesteps and residuals are both new at every call: nothing says that it is one run."""
    model, draw = flux_controlnet()
    plain = draw()
    with optimised(model):
        assert torch.equal(draw(), plain)


def test_controlnet_in_guess_mode():
    model, draw = sd_controlnet(guess_mode=True)
    keeps(draw, model, expected=RESIDUALS)


@pytest.mark.parametrize("made", CONTROLNETS)
def test_controlnet_scale_of_each_call(made):
    model, draw = made()
    scales = (1.0, 0.3, 1.0)
    plain = [draw(controlnet_conditioning_scale=s) for s in scales]
    assert not torch.equal(plain[0], plain[1])
    with optimised(model, interval=1):
        drawn = [draw(controlnet_conditioning_scale=s) for s in scales]
    assert all(torch.equal(a, b) for a, b in zip(drawn, plain, strict=True))
    with optimised(model):
        drawn = [draw(controlnet_conditioning_scale=s) for s in scales]
    assert torch.equal(drawn[0], drawn[2])


def adapter() -> T2IAdapter:
    torch.manual_seed(1)
    return T2IAdapter(channels=[16, 32], num_res_blocks=1, downscale_factor=2).eval()


def sd_t2i_adapter(**options: Any) -> tuple[Any, Any]:
    base = tiny.pipeline()
    pipe = quiet(diffusers.StableDiffusionAdapterPipeline.from_pipe(base, adapter=adapter()))
    return pipe.unet, drawing(pipe, **SD_PROMPT, image=PICTURE, **options)


def xl_t2i_adapter(**options: Any) -> tuple[Any, Any]:
    base = tiny.xl_pipeline()
    pipe = quiet(diffusers.StableDiffusionXLAdapterPipeline.from_pipe(base, adapter=adapter()))
    return pipe.unet, drawing(pipe, **XL_PROMPT, image=PICTURE, **options)


@pytest.mark.parametrize("made", [sd_t2i_adapter, xl_t2i_adapter])
def test_t2i_adapter(made):
    model, draw = made()
    keeps(draw, model, expected=RESIDUALS)


def test_t2i_adapter_for_a_part_of_the_run_splits_the_run():
    model, draw = xl_t2i_adapter(adapter_conditioning_factor=0.5)
    keeps(draw, model, expected=[[0, 1], [0, 3]])


CLIP_WIDTH = 20


def ip_adapter(unet: Any, seed: int = 0) -> dict[str, dict[str, Tensor]]:
    """Weights as the published files have them."""
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


def with_ip_adapter() -> tuple[Any, Any, Any]:
    model, draw, pipe = stable_diffusion(ip_adapter_image_embeds=IMAGE)
    load(pipe)
    return model, draw, pipe


def test_ip_adapter():
    model, draw, _ = with_ip_adapter()
    keeps(draw, model)


def test_ip_adapter_picture_of_each_call():
    model, draw, _ = with_ip_adapter()
    images = [IMAGE, [noise(2, 1, CLIP_WIDTH, seed=4)], IMAGE]
    plain = [draw(ip_adapter_image_embeds=i) for i in images]
    assert not torch.equal(plain[0], plain[1])
    with optimised(model, interval=1):
        drawn = [draw(ip_adapter_image_embeds=i) for i in images]
    assert all(torch.equal(a, b) for a, b in zip(drawn, plain, strict=True))
    with optimised(model):
        drawn = [draw(ip_adapter_image_embeds=i) for i in images]
    assert torch.equal(drawn[0], drawn[2])


CHANGES = {
    "scale": lambda p: p.set_ip_adapter_scale(0.3),
    "scale of blocks": lambda p: p.set_ip_adapter_scale({"up": {"block_1": [0.0, 1.0]}}),
    "another": lambda p: (p.unload_ip_adapter(), load(p, 1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_ip_adapter_changed_between_runs(change):
    follows(with_ip_adapter, CHANGES[change])


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
