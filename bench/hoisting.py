"""The weights that steps read with and without hoisting: ``python -m bench.hoisting --out FILE``.

Bytes are counted on meta tensors, in the dtype of the capture (float32), for one image.
"""

import argparse
import json
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

import fxcache
from bench.denoisers import RECIPES, classes
from bench.frontier import MODELS, on_meta
from fxcache.integrations.example_inputs import example_inputs

UNETS = ("Stable Diffusion 1.5, 512×512", "Stable Diffusion XL, 1024×1024")
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Stable Diffusion 3 medium, 1024×1024": (
        "SD3Transformer2DModel",
        {
            "num_layers": 24,
            "num_attention_heads": 24,
            "caption_projection_dim": 1536,
            "pos_embed_max_size": 192,
        },
    ),
    "FLUX.1-dev, 1024×1024": ("FluxTransformer2DModel", {"guidance_embeds": True}),
}
HOISTED: tuple[Literal["once", "table"] | None, ...] = (None, "once", "table")


def model_and_inputs(name: str) -> tuple[nn.Module, dict[str, Any]]:
    if name in UNETS:
        unet = on_meta(MODELS[name])
        return unet, example_inputs(unet)
    kind, config = TRANSFORMERS[name]
    recipe = RECIPES[kind]
    with torch.device("meta"):
        model: Any = classes()[recipe.kind](**{**recipe.default, **config}).eval()
        return model, recipe.inputs(model.config, True)


def weight_bytes(name: str) -> dict[str, Any]:
    """Return the bytes of weights that a refresh and a reuse step read, for each ``hoist``."""
    model, inputs = model_and_inputs(name)
    found: dict[str, Any] = {}
    for hoist in HOISTED:
        fxcache.optimize(model, hoist=hoist, capture=fxcache.CaptureConfig(example_inputs=inputs))
        (capture,) = fxcache.report(model).captures
        fxcache.restore(model)
        found[str(hoist).lower()] = capture.weight_bytes
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    results = {name: weight_bytes(name) for name in (*UNETS, *TRANSFORMERS)}
    arguments.out.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
