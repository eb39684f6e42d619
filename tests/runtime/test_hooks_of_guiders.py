"""Tests the guiders of diffusers, which hook layers for some calls of a step."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel
from diffusers.guiders import (
    AutoGuidance,
    SkipLayerGuidance,
)
from diffusers.hooks import HookRegistry, LayerSkipConfig
from diffusers.hooks.layer_skip import _apply_layer_skip_hook
from torch import Tensor, nn

import fxcache
from tests.engines import num_captures
from tests.runtime.hooked import STEPS, latents, wan

pytestmark = pytest.mark.usefixtures("shared_captures")


def skip(**options: Any) -> LayerSkipConfig:
    return LayerSkipConfig(indices=[1], fqn="blocks", **options)


GUIDERS: dict[str, Callable[[], Any]] = {
    "auto, block": lambda: AutoGuidance(3.0, auto_guidance_config=skip(dropout=1.0)),
    "auto, feed-forward": lambda: AutoGuidance(
        3.0, auto_guidance_config=skip(skip_attention=False, skip_ff=True)
    ),
    "skip layer": lambda: SkipLayerGuidance(
        3.0,
        skip_layer_guidance_start=0.0,
        skip_layer_guidance_stop=1.0,
        skip_layer_config=skip(),
    ),
    "skip layer, midway": lambda: SkipLayerGuidance(
        3.0,
        skip_layer_guidance_start=0.3,
        skip_layer_guidance_stop=0.7,
        skip_layer_config=skip(),
    ),
}


@torch.no_grad()
def guided(model: Any, guider: Any, steps: int = STEPS) -> Tensor:
    x = torch.randn(1, 4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    texts = torch.randn(2, 1, 7, 16, generator=torch.Generator().manual_seed(1)).unbind()
    for index, t in enumerate(torch.linspace(900, 100, steps)):
        guider.set_state(step=index, num_inference_steps=steps, timestep=t)
        batches = guider.prepare_inputs({"encoder_hidden_states": texts})
        for batch in batches:
            guider.prepare_models(model)
            batch.noise_pred = model(
                x, t.expand(1), batch.encoder_hidden_states, return_dict=False
            )[0]
            guider.cleanup_models(model)
        x = x - 0.1 * guider(batches)[0]
    return x


@pytest.mark.sweep(2)
@pytest.mark.filterwarnings("ignore::fxcache.FxcacheWarning")  # each call has a new timestep tensor
@pytest.mark.parametrize("name", GUIDERS)
def test_guiders_are_exact_with_two_captures(name):
    model, plain = fxcache.optimize(wan(), policy=fxcache.Uniform(1)), wan()
    for _ in range(2):  # a guider counts steps, and is made for each run
        got, expected = guided(model, GUIDERS[name]()), guided(plain, GUIDERS[name]())
        assert torch.equal(got, expected)
    assert num_captures(model) == 2


@torch.no_grad()
def test_skipped_attention_scores_are_exact():
    """The hook of perturbed attention guidance runs the attention in its own mode."""
    config = LayerSkipConfig([1], "transformer_blocks", False, True, False)
    x, labels = latents()[:, :4].reshape(1, 2, 4, 4), torch.tensor([3])

    def dit() -> DiTTransformer2DModel:
        torch.manual_seed(0)
        model = DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=2,
            out_channels=2,
            num_layers=3,
            sample_size=4,
            patch_size=2,
            num_embeds_ada_norm=10,
            norm_num_groups=1,
        ).eval()
        for weight in model.parameters():
            nn.init.normal_(weight, std=0.2)
        return model

    def sampled_with(model: Any) -> list[Tensor]:
        found = []
        for t in torch.linspace(900, 100, STEPS):
            found.append(model(x, t[None], class_labels=labels).sample)
            _apply_layer_skip_hook(model, config)
            found.append(model(x, t[None], class_labels=labels).sample)
            HookRegistry.check_if_exists_or_initialize(model).remove_hook("layer_skip_hook")
        return found

    model, plain = fxcache.optimize(dit(), policy=fxcache.Uniform(1)), dit()
    for got, expected in zip(sampled_with(model), sampled_with(plain), strict=True):
        assert torch.equal(got, expected)
    assert num_captures(model) == 2
