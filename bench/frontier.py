"""The savings of a reuse step for full-size models: ``python -m bench.frontier --out FILE``.

Models are on the meta device, without weights and arithmetic.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

import fxcache
from fxcache.integrations.example_inputs import example_inputs

MODELS: dict[str, dict[str, Any]] = {
    "Stable Diffusion 1.5, 512×512": {"sample_size": 64, "cross_attention_dim": 768},
    "Stable Diffusion 2.1, 768×768": {
        "sample_size": 96,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "Stable Diffusion XL, 1024×1024": {
        "sample_size": 128,
        "cross_attention_dim": 2048,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}


def on_meta(config: dict[str, Any]) -> UNet2DConditionModel:
    """Return a U-Net with this configuration on the meta device."""
    with torch.device("meta"):
        return UNet2DConditionModel(**config).eval()


def outermost_partially_evaluated(model: UNet2DConditionModel) -> dict[str, Any]:
    """Return the cut at index 0 with partial evaluation."""
    inputs = example_inputs(model)
    fxcache.optimize(
        model,
        cut=0,
        cache=fxcache.CacheConfig(partial_evaluation=True),
        capture=fxcache.CaptureConfig(example_inputs=inputs),
    )
    (capture,) = fxcache.report(model).captures
    fxcache.restore(model)
    return capture.cut


def all_cuts(config: dict[str, Any]) -> dict[str, Any]:
    """Return all cuts of a U-Net with this configuration."""
    model = on_meta(config)
    cuts = [cut.to_dict() for cut in fxcache.list_cuts(model)]
    return {"cuts": cuts, "outermost, partially evaluated": outermost_partially_evaluated(model)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    results = {name: all_cuts(config) for name, config in MODELS.items()}
    arguments.out.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
