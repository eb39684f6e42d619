"""Tests U-Nets over frames, whose cuts are found in the same way."""

from typing import Any

import pytest
import torch
from diffusers import UNet3DConditionModel, UNetMotionModel, UNetSpatioTemporalConditionModel

import fxcache
from tests.loops import refreshes

pytestmark = pytest.mark.usefixtures("shared_captures")

FRAMES = 3
COMMON: dict[str, Any] = {"sample_size": 8, "block_out_channels": (16, 32), "layers_per_block": 1}


def motion() -> tuple[torch.nn.Module, dict[str, Any]]:
    model = UNetMotionModel(
        **COMMON,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
        norm_num_groups=8,
        cross_attention_dim=16,
        num_attention_heads=2,
        motion_num_attention_heads=2,
    )
    text = torch.randn(FRAMES, 5, 16)
    return model, {"sample": torch.randn(1, 4, FRAMES, 8, 8), "encoder_hidden_states": text}


def three_d() -> tuple[torch.nn.Module, dict[str, Any]]:
    model = UNet3DConditionModel(
        **COMMON,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        norm_num_groups=8,
        cross_attention_dim=16,
        attention_head_dim=8,
    )
    text = torch.randn(1, 5, 16)
    return model, {"sample": torch.randn(1, 4, FRAMES, 8, 8), "encoder_hidden_states": text}


def spatio_temporal() -> tuple[torch.nn.Module, dict[str, Any]]:
    model = UNetSpatioTemporalConditionModel(
        **(COMMON | {"block_out_channels": (32, 64)}),
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=16,
        num_attention_heads=(2, 4),
        num_frames=FRAMES,
        projection_class_embeddings_input_dim=3 * 8,
        addition_time_embed_dim=8,
    )
    return model, {
        "sample": torch.randn(1, FRAMES, 8, 8, 8),
        "encoder_hidden_states": torch.randn(1, 1, 16),
        "added_time_ids": torch.randn(1, 3),
    }


@pytest.mark.sweep(1)
@pytest.mark.parametrize("make", [motion, three_d, spatio_temporal])
@torch.no_grad()
def test_full_and_reuse_are_exact(make):
    torch.manual_seed(0)
    model, inputs = make()
    model.eval()
    timesteps = torch.tensor([900.0, 600.0, 300.0])
    first = {"timestep": timesteps[0], **inputs}
    expected = [model(timestep=t, **inputs).sample for t in timesteps]
    assert [c.skip_index for c in fxcache.list_cuts(model, **first)] == [0, 1, 2, 3]

    fxcache.optimize(model, policy=fxcache.Explicit(steps=(0, 2)))
    refreshed, reused, last = (model(timestep=t, **inputs).sample for t in timesteps)
    assert refreshes(model) == [[0, 2]]
    assert torch.equal(refreshed, expected[0])
    assert torch.equal(last, expected[2])
    assert reused.shape == refreshed.shape
    assert not torch.equal(reused, expected[1])
    with fxcache.session(model):
        again = [model(**first).sample for _ in range(2)]
    assert torch.equal(*again)


@pytest.mark.sweep(1)
@pytest.mark.parametrize("make", [motion, three_d, spatio_temporal])
def test_inputs_follow_from_the_configuration(make):
    model, _ = make()
    assert len(fxcache.list_cuts(model.eval())) == 4
