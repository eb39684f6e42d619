"""Parts of pipelines that turn image embeddings into images: U-Nets, priors, image encoders."""

from collections.abc import Mapping
from typing import Any

import diffusers
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from bench.pipelines.parts import LONGEST_PROMPT, WIDTH, denoiser, model

PICTURE = 32

# A U-Net whose blocks attend to the prompt within one layer, of DeepFloyd IF and Kandinsky.
SIMPLE_ATTENTION: Mapping[str, Any] = {
    "block_out_channels": (8, 16, 16),
    "down_block_types": (
        "ResnetDownsampleBlock2D",
        "SimpleCrossAttnDownBlock2D",
        "SimpleCrossAttnDownBlock2D",
    ),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": (
        "SimpleCrossAttnUpBlock2D",
        "SimpleCrossAttnUpBlock2D",
        "ResnetUpsampleBlock2D",
    ),
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "resnet_time_scale_shift": "scale_shift",
}


def clip_vision_config(**config: Any) -> CLIPVisionConfig:
    defaults: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "projection_dim": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": PICTURE,
        "patch_size": 8,
    }
    return CLIPVisionConfig(**(defaults | config))


def clip_vision(**config: Any) -> Any:
    return model(lambda: CLIPVisionModelWithProjection(clip_vision_config(**config)))


def clip_processor() -> Any:
    """Build the processor of pictures for ``clip_vision``."""
    return CLIPImageProcessor(size={"shortest_edge": PICTURE}, crop_size=PICTURE)


def movq() -> Any:
    """Build Kandinsky's autoencoder of images, with four levels. Its norms have 32 groups."""
    return model(
        diffusers.VQModel,
        block_out_channels=(32, 32, 32, 32),
        down_block_types=(*("DownEncoderBlock2D",) * 3, "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", *("UpDecoderBlock2D",) * 3),
        latent_channels=4,
        norm_num_groups=4,
        norm_type="spatial",
        num_vq_embeddings=12,
        vq_embed_dim=4,
    )


def codebook(channels: int, codes: int) -> Any:
    """Build an autoencoder of images with two levels, whose latents are entries of a codebook."""
    return model(
        diffusers.VQModel,
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=4,
        num_vq_embeddings=codes,
        vq_embed_dim=channels,
    )


def image_prior() -> Any:
    """Build a prior that turns the embedding of a prompt into that of a picture."""
    return denoiser("PriorTransformer", embedding_dim=WIDTH, num_embeddings=LONGEST_PROMPT)


def prior_scheduler() -> Any:
    return diffusers.UnCLIPScheduler(
        variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=5.0
    )
