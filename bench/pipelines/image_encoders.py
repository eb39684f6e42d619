"""Small encoders of images, and what prepares images for them."""

from typing import Any

from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from bench.pipelines.parts import WIDTH, model

SIDE = 16


def clip_vision_config(**config: Any) -> CLIPVisionConfig:
    defaults: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "projection_dim": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": SIDE // 2,
    }
    return CLIPVisionConfig(**(defaults | config))


def clip_vision_with_projection(**config: Any) -> Any:
    return model(lambda: CLIPVisionModelWithProjection(clip_vision_config(**config)))


def clip_image_processor() -> Any:
    return CLIPImageProcessorPil(size=SIDE, crop_size=SIDE)
