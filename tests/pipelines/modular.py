"""Small modular pipelines of diffusers with random weights, and the guiders that fit each."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from diffusers import guiders, modular_pipelines
from diffusers.configuration_utils import FrozenDict
from diffusers.hooks._helpers import AttentionProcessorRegistry
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from diffusers.modular_pipelines.flux.denoise import FluxLoopDenoiser
from diffusers.modular_pipelines.modular_pipeline_utils import ComponentSpec, InputParam
from torch import Tensor

from bench.pipelines.parts import clip_text, clip_text_with_projection, denoiser, prompt, square
from fxcache.runtime import captures
from tests import tiny
from tests.pipelines.build import STEPS, Draw, flow_unipc
from tests.pipelines.guiders import (
    AUTO,
    CFG,
    FEED_FORWARD,
    GUIDERS,
    HOOKED,
    MAGNITUDE,
    SKIP,
    SMOOTHED,
)


@dataclass(frozen=True)
class Kind:
    """A modular pipeline.

    Attributes:
        build: Builds it.
        options: The arguments of each call.
        blocks: The path of a list of blocks that guiders skip or change.
        guiders: The names of the guiders that can be used with it.
        denoisers: The names of its denoisers.
    """

    build: Callable[[], Any]
    options: Mapping[str, Any]
    blocks: str
    guiders: tuple[str, ...]
    denoisers: tuple[str, ...] = ("transformer",)


def of_blocks(blocks: Any, **components: Any) -> Any:
    """Return a pipeline of ``blocks`` with these components."""
    pipe = blocks.init_pipeline()
    pipe.update_components(**components)
    return pipe


def sdxl() -> Any:
    """Build Stable Diffusion XL with its text encoders, without a decoder."""
    blocks = modular_pipelines.StableDiffusionXLAutoBlocks()
    blocks.sub_blocks.pop("decode")
    return of_blocks(
        blocks,
        unet=tiny.xl_unet(),
        vae=tiny.vae(),
        scheduler=diffusers.EulerDiscreteScheduler(steps_offset=1, timestep_spacing="leading"),
        text_encoder=clip_text(vocab_size=54, bos_token_id=0, eos_token_id=1),
        text_encoder_2=clip_text_with_projection(vocab_size=54, bos_token_id=0, eos_token_id=1),
        tokenizer=tiny.tokenizer(),
        tokenizer_2=tiny.tokenizer(),
    )


def denoising(blocks: Any) -> Any:
    """Return the blocks that come after the encoders and before the decoder."""
    return blocks.sub_blocks["denoise"]


# Without an autoencoder, the blocks make latents of so many channels.
LATENT: Mapping[str, Any] = {"in_channels": 16, "out_channels": 16}


def wan() -> Any:
    # diffusers 0.42.1 registers the layer's old name only.
    AttentionProcessorRegistry.register(
        WanAttnProcessor, AttentionProcessorRegistry.get(AttnProcessor2_0)
    )
    return of_blocks(
        denoising(modular_pipelines.WanBlocks()),
        transformer=denoiser("WanTransformer3DModel", num_layers=3, **LATENT),
        scheduler=flow_unipc(),
    )


def wan_two_experts() -> Any:
    return of_blocks(
        denoising(modular_pipelines.Wan22Blocks()),
        transformer=denoiser("WanTransformer3DModel", **LATENT),
        transformer_2=denoiser("WanTransformer3DModel", num_layers=3, **LATENT),
        scheduler=flow_unipc(),
    )


class GuidedFlux(FluxLoopDenoiser):
    """A denoising step of FLUX with a guider, which diffusers' own block does not have."""

    @property
    def expected_components(self) -> list[Any]:
        guider = ComponentSpec(
            "guider",
            guiders.ClassifierFreeGuidance,
            config=FrozenDict({"guidance_scale": 3.0}),
            default_creation_method="from_config",
        )
        return [*super().expected_components, guider]

    @property
    def inputs(self) -> list[Any]:
        names = ("num_inference_steps", "negative_prompt_embeds", "negative_pooled_prompt_embeds")
        return [*super().inputs, *map(InputParam, names)]

    @torch.no_grad()
    def __call__(self, components: Any, block_state: Any, i: int, t: Tensor) -> Any:
        guider, model, state = components.guider, components.transformer, block_state
        guider.set_state(step=i, num_inference_steps=state.num_inference_steps, timestep=t)
        batches = guider.prepare_inputs(
            {
                "encoder_hidden_states": (state.prompt_embeds, state.negative_prompt_embeds),
                "pooled_projections": (
                    state.pooled_prompt_embeds,
                    state.negative_pooled_prompt_embeds,
                ),
            }
        )
        for batch in batches:
            guider.prepare_models(model)
            batch.noise_pred = model(
                hidden_states=state.latents,
                timestep=t.flatten() / 1000,
                guidance=state.guidance,
                encoder_hidden_states=batch.encoder_hidden_states,
                pooled_projections=batch.pooled_projections,
                txt_ids=state.txt_ids,
                img_ids=state.img_ids,
                return_dict=False,
            )[0]
            guider.cleanup_models(model)
        state.noise_pred = guider(batches)[0]
        return components, state


def flux(guided: bool = True) -> Any:
    blocks = denoising(modular_pipelines.FluxAutoBlocks())
    if guided:
        blocks.sub_blocks["denoise"].sub_blocks["denoiser"] = GuidedFlux()
    return of_blocks(
        blocks,
        transformer=denoiser("FluxTransformer2DModel", guidance_embeds=True),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


def flux2() -> Any:
    return of_blocks(
        denoising(modular_pipelines.Flux2KleinBaseAutoBlocks()),
        transformer=denoiser("Flux2Transformer2DModel", guidance_embeds=False),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


def sd3() -> Any:
    return of_blocks(
        denoising(modular_pipelines.StableDiffusion3AutoBlocks()),
        transformer=denoiser("SD3Transformer2DModel", sample_size=32),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


FLUX: Mapping[str, Any] = {**prompt(7, 24, pooled=12), **square(64)}
FLUX_2: Mapping[str, Any] = {**prompt(7, 24), **square(64)}
EXPERTS = ("transformer", "transformer_2")
VIDEO: Mapping[str, Any] = {**prompt(7, 16), **square(32), "num_frames": 5}
# The guiders that diffusers 0.42.1 can use with each: its hooks do not know all attention layers,
# and return the streams of some blocks in the wrong order.
KINDS = {
    "SDXL": Kind(
        sdxl,
        {"prompt": "a cat", "negative_prompt": "a dog", **square(32)},
        "down_blocks.0.attentions.0.transformer_blocks",
        (*CFG, *HOOKED),
        ("unet",),
    ),
    "Wan": Kind(wan, VIDEO, "blocks", (*CFG, *HOOKED)),
    "Wan 2.2": Kind(
        wan_two_experts, VIDEO, "blocks", (*CFG, *HOOKED), ("transformer", "transformer_2")
    ),
    "FLUX": Kind(flux, FLUX, "transformer_blocks", (*CFG, MAGNITUDE, FEED_FORWARD)),
    "FLUX.2": Kind(
        flux2, {**prompt(7, 24), **square(64)}, "transformer_blocks", (*CFG, MAGNITUDE, SKIP, AUTO)
    ),
    "SD3": Kind(sd3, FLUX, "transformer_blocks", (*CFG, FEED_FORWARD, SMOOTHED)),
}


def made(name: str, guider: str = "") -> tuple[Any, Draw, list[Any]]:
    """Build a pipeline with a guider. Return it, a function that draws with it, its denoisers."""
    kind = KINDS[name]
    pipe = kind.build()
    for part in ("guider", "guider_2"):
        if guider and part in pipe.components:
            pipe.update_components(**{part: GUIDERS[guider](kind.blocks)})

    def draw(**changed: Any) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        given = {"num_inference_steps": STEPS, **kind.options, **changed}
        return pipe(generator=generator, output="latents", **given)

    return pipe, draw, [getattr(pipe, part) for part in kind.denoisers]


@contextmanager
def counting_captures(monkeypatch: Any) -> Iterator[list[int]]:
    """Count the captures inside the block."""
    counted: list[int] = []
    original = vars(captures)["capture"]

    def capture(*arguments: Any) -> Any:
        counted.append(1)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(captures, "capture", capture)
        yield counted
