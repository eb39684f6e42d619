"""Pipelines of Wuerstchen: a prior of small latents, and the decoder that enlarges them."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import diffusers
import torch
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_diffnext import (
    WuerstchenDiffNeXt,
)
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_prior import WuerstchenPrior
from torch import nn

from bench.pipelines.parts import WIDTH, assembled, clip_text, model, noise, square, tokenizer
from bench.pipelines.recipe import PipelineRecipe

LATENT = 4  # the channels of the prior's latents


def steadied(network: Any, last: nn.Conv2d, divisor: float) -> Any:
    """Let the network predict noise that is like its input, as a trained one does.

    Args:
        network: The network. It predicts the quotient of two outputs of its last layer.
        last: That layer.
        divisor: The bias of the second output, which makes the divisor about 1.
    """
    with torch.no_grad():
        last.weight.mul_(0.01)
        assert last.bias is not None
        last.bias[last.out_channels // 2 :] = divisor
    return network


def prior(prefix: str = "") -> dict[str, Any]:
    network = model(WuerstchenPrior, c_in=LATENT, c=16, c_cond=WIDTH, c_r=8, depth=2, nhead=2)
    parts = {
        "prior": steadied(network, network.out[1], 0.0),
        "text_encoder": clip_text(),
        "tokenizer": tokenizer(),
        "scheduler": diffusers.DDPMWuerstchenScheduler(),
    }
    return {prefix + name: part for name, part in parts.items()}


def decoder() -> dict[str, Any]:
    network = model(
        WuerstchenDiffNeXt,
        c_r=8,
        c_cond=WIDTH,
        c_hidden=[16, 32],
        nhead=[-1, 2],
        blocks=[2, 2],
        level_config=["CT", "CTA"],
        inject_effnet=[False, True],
        effnet_embd=LATENT,
        clip_embd=WIDTH,
    )
    return {
        "decoder": steadied(network, network.clf[1], 4.0),
        "text_encoder": clip_text(),
        "tokenizer": tokenizer(),
        "scheduler": diffusers.DDPMWuerstchenScheduler(),
    }


def wuerstchen(kind: str) -> Any:
    if "Prior" in kind:
        return assembled(kind, **prior())
    return assembled(kind, **decoder(), **(prior("prior_") if "Combined" in kind else {}))


def words() -> dict[str, Any]:
    return {"prompt": "a cat", "negative_prompt": "a dog"}


def embedded() -> Mapping[str, Any]:
    return {**words(), **square(256), "output_type": "pt"}


def decoded() -> Mapping[str, Any]:
    return {**words(), "image_embeddings": noise(1, LATENT, 3, 3), "guidance_scale": 2.0}


def both() -> Mapping[str, Any]:
    return {
        **words(),
        **square(128),
        "prior_num_inference_steps": 7,
        "decoder_guidance_scale": 2.0,
    }


RECIPES = tuple(
    PipelineRecipe(kind, partial(wuerstchen, kind), call)
    for kind, call in (
        ("WuerstchenPriorPipeline", embedded),
        ("WuerstchenDecoderPipeline", decoded),
        ("WuerstchenCombinedPipeline", both),
    )
)
