"""Small models of diffusers' own classes, with the structure of large ones, captured in seconds."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

TEXT_WIDTH = 32
PROMPT = "a cat"


def unet(**config: Any) -> UNet2DConditionModel:
    """Build a U-Net with three levels and two layers a block, which has nine skip connections."""
    torch.manual_seed(0)
    defaults: dict[str, Any] = {
        "sample_size": 16,
        "block_out_channels": (16, 32, 32),
        "layers_per_block": 2,
        "norm_num_groups": 8,
        "attention_head_dim": 4,
        "cross_attention_dim": TEXT_WIDTH,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    }
    return UNet2DConditionModel(**(defaults | config)).eval()


def small_unet(**config: Any) -> UNet2DConditionModel:
    """Build a U-Net with two levels and four skip connections, captured in half a second.

    It attends to the text in the first and in the last block.
    """
    defaults: dict[str, Any] = {
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "mid_block_type": "UNetMidBlock2D",
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return unet(**(defaults | config))


def attentive_unet() -> UNet2DConditionModel:
    """Build the small U-Net with attention in the middle too, which diffusers' scales need."""
    return small_unet(mid_block_type="UNetMidBlock2DCrossAttn")


def unconditional_unet() -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=16,
        in_channels=3,
        out_channels=3,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()


def ddim() -> DDIMScheduler:
    """Return a scheduler with Stable Diffusion's configuration."""
    return DDIMScheduler(steps_offset=1, clip_sample=False)


def vae(levels: int = 2, **config: Any) -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(8,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=32,
        **config,
    ).eval()


def tokenizer() -> CLIPTokenizer:
    letters = [chr(c) for c in range(97, 123)]
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=16)


def text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=54,
        hidden_size=TEXT_WIDTH,
        intermediate_size=64,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def pipeline(**parts: Any) -> StableDiffusionPipeline:
    """Build a Stable Diffusion pipeline with random weights; ``parts`` replace its parts."""
    torch.manual_seed(0)
    defaults: dict[str, Any] = {
        "unet": small_unet,
        "vae": vae,
        "text_encoder": lambda: CLIPTextModel(text_config()).eval(),
        "tokenizer": tokenizer,
        "scheduler": ddim,
    }
    made = {k: parts.pop(k) if k in parts else make() for k, make in defaults.items()}
    made_pipeline = StableDiffusionPipeline(
        **made,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **parts,
    )
    made_pipeline.set_progress_bar_config(disable=True)
    return made_pipeline


def xl_unet() -> UNet2DConditionModel:
    return small_unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=TEXT_WIDTH + 6 * 8,
        cross_attention_dim=2 * TEXT_WIDTH,
        transformer_layers_per_block=(1, 2),
    )


def xl_pipeline() -> StableDiffusionXLPipeline:
    torch.manual_seed(0)
    made = StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(text_config()).eval(),
        text_encoder_2=CLIPTextModelWithProjection(text_config()).eval(),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=xl_unet(),
        scheduler=ddim(),
        add_watermarker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def controlnet(denoiser: UNet2DConditionModel) -> ControlNetModel:
    torch.manual_seed(1)
    made = ControlNetModel.from_unet(
        denoiser, conditioning_channels=3, conditioning_embedding_out_channels=(8, 16)
    ).eval()
    for parameter in made.parameters():  # zero convolutions would make it do nothing
        torch.nn.init.normal_(parameter, std=0.05)
    return made


def inputs(batch: int = 2, size: int = 16, seed: int = 0, channels: int = 4) -> dict[str, Any]:
    """Return a normal latent ``[B, C, S, S]`` and a text ``[B, 7, 32]``, seeded."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "sample": torch.randn(batch, channels, size, size, generator=generator),
        "encoder_hidden_states": torch.randn(batch, 7, TEXT_WIDTH, generator=generator),
    }


def class_pipeline(names: Sequence[str], blocks: int = 2) -> DiTPipeline:
    """Build a DiT pipeline with random weights and these class names."""
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        num_layers=blocks,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=1000,
    ).eval()
    labels = dict(enumerate(names))
    made = DiTPipeline(transformer, vae(), ddim(), labels)
    made.register_to_config(id2label=labels)  # it would not save them itself
    made.set_progress_bar_config(disable=True)
    return made
