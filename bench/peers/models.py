"""The subjects with random weights: a U-Net, a FLUX-shaped and a Wan-shaped transformer.

They are made on the default device and in the default dtype, their noise schedulers on the CPU.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    UNet2DConditionModel,
    WanTransformer3DModel,
)
from torch import Tensor

from bench.peers.subject import Request, Subject
from bench.seeding import seeded

WORDS = 32  # tokens of the prompt


class Size(NamedTuple):
    """The size of a subject.

    Attributes:
        config: What differs from the configuration of a step of some 10 ms.
        side: The height and width of the latent, in tokens or in elements.
    """

    config: dict[str, Any]
    side: int


USUAL, LARGER = Size({}, 16), Size({}, 32)


def flux(size: Size = USUAL) -> Subject:
    """Four double and eight single blocks of 192 channels, 256 + 32 tokens."""
    config: dict[str, Any] = {
        "in_channels": 16,
        "num_layers": 4,
        "num_single_layers": 8,
        "attention_head_dim": 32,
        "num_attention_heads": 6,
        "joint_attention_dim": 64,
        "pooled_projection_dim": 32,
        "axes_dims_rope": (8, 12, 12),
    } | size.config
    model = seeded(lambda: FluxTransformer2DModel(**config)).requires_grad_(False)
    tokens, channels = size.side**2, config["in_channels"]
    given = {
        "encoder_hidden_states": torch.randn(1, WORDS, config["joint_attention_dim"]),
        "pooled_projections": torch.randn(1, config["pooled_projection_dim"]),
        "img_ids": torch.cartesian_prod(*(torch.arange(n) for n in (1, size.side, size.side))),
        "txt_ids": torch.zeros(WORDS, 3),
    }
    given["img_ids"] = given["img_ids"].float()
    request = Request(torch.randn(1, tokens, channels), partial(flow_prediction, given, 1000))
    cut = ("transformer_blocks.1", f"single_transformer_blocks.{config['num_single_layers'] - 1}")
    scheduler = on_cpu(FlowMatchEulerDiscreteScheduler)
    return Subject("FLUX-shaped", model, scheduler, (request,), peers_cut=cut)


def wan(size: Size = USUAL) -> Subject:
    """Ten blocks of 192 channels, 5 frames of 8×8 tokens."""
    config: dict[str, Any] = {
        "num_attention_heads": 4,
        "attention_head_dim": 48,
        "in_channels": 8,
        "out_channels": 8,
        "text_dim": 64,
        "freq_dim": 64,
        "ffn_dim": 768,
        "num_layers": 10,
        "rope_max_seq_len": 64,
    } | size.config
    model = seeded(lambda: WanTransformer3DModel(**config)).requires_grad_(False)
    given = {"encoder_hidden_states": torch.randn(1, WORDS, config["text_dim"])}
    latent = torch.randn(1, config["in_channels"], 5, size.side, size.side)
    request = Request(latent, partial(flow_prediction, given, 1))
    cut = ("blocks.1", f"blocks.{config['num_layers'] - 1}")
    scheduler = on_cpu(FlowMatchEulerDiscreteScheduler, shift=3.0)
    return Subject("Wan-shaped", model, scheduler, (request,), peers_cut=cut)


def on_cpu(kind: Callable[..., Any], **options: Any) -> Any:
    """Make a noise scheduler with its tensors on the CPU."""
    with torch.device("cpu"):
        return kind(**options)


def flow_prediction(
    given: dict[str, Tensor], scale: float, model: Any, latent: Tensor, timestep: Tensor
) -> Tensor:
    """Call a transformer as diffusers' pipelines of flow matching do."""
    time = timestep.expand(len(latent)) / scale if scale != 1 else timestep.expand(len(latent))
    result: Tensor = model(hidden_states=latent, timestep=time, **given, return_dict=False)[0]
    return result


def unet(size: Size = LARGER) -> Subject:
    """Four levels as in Stable Diffusion 1.5, with 32 to 128 channels, 32×32 elements."""
    config: dict[str, Any] = {
        "sample_size": size.side,
        "block_out_channels": (32, 64, 128, 128),
        "cross_attention_dim": 64,
        "attention_head_dim": 4,
        "norm_num_groups": 16,
    } | size.config
    model = seeded(lambda: UNet2DConditionModel(**config)).requires_grad_(False)
    text = torch.randn(1, WORDS, config["cross_attention_dim"])
    request = Request(torch.randn(1, 4, size.side, size.side), partial(unet_prediction, text))
    scheduler = on_cpu(DDIMScheduler, clip_sample=False, steps_offset=1)
    return Subject("U-Net", model, scheduler, (request,), peers_cut=0)


def unet_prediction(text: Tensor, model: Any, latent: Tensor, timestep: Tensor) -> Tensor:
    result: Tensor = model(latent, timestep, encoder_hidden_states=text, return_dict=False)[0]
    return result
