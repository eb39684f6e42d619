"""Small autoencoders that several families of pipelines share."""

from typing import Any

import diffusers

from bench.pipelines.parts import model, vae


def flux2_vae(**config: Any) -> Any:
    return vae(kind="AutoencoderKLFlux2", **config)


def causal_vae(
    halvings: int = 1, channels: int = 4, kind: str = "AutoencoderKLQwenImage", **config: Any
) -> Any:
    """Build an autoencoder of videos.

    Args:
        halvings: How many times it halves the height and width. It keeps all frames.
        channels: The channels of the latent.
        kind: The name of the class.
        config: Other constructor arguments.
    """
    defaults: dict[str, Any] = {
        "base_dim": 4,
        "z_dim": channels,
        "dim_mult": [1] * (halvings + 1),
        "num_res_blocks": 0,  # of the encoder; the decoder has one more
        "temperal_downsample": [False] * halvings,
        "latents_mean": [0.0] * channels,
        "latents_std": [1.0] * channels,
    }
    return model(getattr(diffusers, kind), **(defaults | config))


def deep_vae() -> Any:
    """Build a deep compression autoencoder with two levels and eight channels."""
    return model(
        diffusers.AutoencoderDC,
        latent_channels=8,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
    )
