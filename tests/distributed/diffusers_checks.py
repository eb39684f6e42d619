"""Checks of diffusers' context and tensor parallelism that two processes run."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest import mock

import pytest
import torch
from diffusers import ContextParallelConfig, FluxTransformer2DModel, WanTransformer3DModel
from diffusers.models import attention_dispatch
from torch import Tensor, nn

import fxcache
from tests.distributed.checks import exchanges, refreshes, split
from tests.distributed.processes import on_all
from tests.plain import denoised, dit

Loop = Callable[[nn.Module], Tensor]


def flux() -> nn.Module:
    torch.manual_seed(0)
    return FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        pooled_projection_dim=12,
        axes_dims_rope=(4, 6, 6),
    ).eval()


def flux_inputs(words: int = 6) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "hidden_states": torch.randn(1, 16, 16, generator=generator),
        "encoder_hidden_states": torch.randn(1, words, 24, generator=generator),
        "pooled_projections": torch.randn(1, 12, generator=generator),
        "img_ids": torch.zeros(16, 3),
        "txt_ids": torch.zeros(words, 3),
    }


def wan() -> nn.Module:
    torch.manual_seed(0)
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    ).eval()


def wan_inputs() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "hidden_states": torch.randn(1, 4, 2, 8, 8, generator=generator),
        "encoder_hidden_states": torch.randn(1, 6, 16, generator=generator),
    }


@torch.no_grad()
def latents(model: nn.Module, inputs: dict[str, Any], steps: int = 7) -> Tensor:
    latent = inputs["hidden_states"]
    for timestep in torch.linspace(0.9, 0.1, steps):
        given = inputs | {"hidden_states": latent, "timestep": timestep.expand(1)}
        latent = latent - 0.1 * model(**given, return_dict=False)[0]
    return latent


def shared(model: Any, config: Any) -> nn.Module:
    """Return the model with parallelism. diffusers asks for the number of accelerators."""
    with mock.patch("torch.accelerator.device_count", return_value=2):
        model.enable_parallelism(config=config)
    return model


def keeps_bits(make: Callable[[], nn.Module], loop: Loop) -> None:
    expected = loop(make())
    model = fxcache.optimize(make(), fxcache.Uniform(1))
    assert torch.equal(loop(model), expected)
    fxcache.optimize(model, fxcache.Uniform(3))
    first, second = on_all(loop(model).tolist())
    assert first == second
    assert refreshes(model) == [[0, 3, 6]]
    full, reuse = exchanges(model)
    assert reuse < full
    fxcache.optimize(model, fxcache.FirstBlock(0.2))  # each process sees its own tokens
    loop(model)
    first, second = on_all(refreshes(model))
    assert first == second


def ulysses(rank: int) -> None:
    del rank
    config = ContextParallelConfig(ulysses_degree=2)
    keeps_bits(lambda: shared(flux(), config), partial(latents, inputs=flux_inputs()))


def shared_afterwards(rank: int) -> None:
    """Share models that are optimised and have been called."""
    del rank
    config, loop = ContextParallelConfig(ulysses_degree=2), partial(latents, inputs=flux_inputs())
    expected = loop(shared(flux(), config))
    model = fxcache.optimize(flux(), fxcache.Uniform(1))
    loop(model)
    assert torch.equal(loop(shared(model, config)), expected)
    expected = denoised(split())
    plain = fxcache.optimize(dit(2), fxcache.Uniform(1))
    denoised(plain)
    assert torch.equal(denoised(split(plain)), expected)


def ulysses_of_wan(rank: int) -> None:
    del rank
    config = ContextParallelConfig(ulysses_degree=2)
    keeps_bits(lambda: shared(wan(), config), partial(latents, inputs=wan_inputs()))


def ring(rank: int) -> None:
    del rank
    config = ContextParallelConfig(ring_degree=2)
    with mock.patch.object(attention_dispatch, "_native_attention_forward_op", attention_and_lse):
        keeps_bits(lambda: shared(flux(), config), partial(latents, inputs=flux_inputs()))


def attention_and_lse(
    _ctx: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> Any:
    """Return attention as diffusers computes it, and the logarithms of its sums, on the CPU."""
    q, k, v = (x.permute(0, 2, 1, 3) for x in (query, key, value))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return (scores.softmax(-1) @ v).permute(0, 2, 1, 3), scores.logsumexp(-1).transpose(1, 2)


def any_size(rank: int) -> None:
    del rank
    config = ContextParallelConfig(ulysses_degree=2, ulysses_anything=True)
    model = fxcache.optimize(shared(flux(), config))
    with pytest.raises(fxcache.CaptureError, match="leave out ulysses_anything"):
        latents(model, flux_inputs(words=5))


def tensor_parallel(rank: int) -> None:
    del rank
    from diffusers import TensorParallelConfig
    from diffusers.hooks import tensor_parallel as hooks

    with ExitStack() as stack:
        devices = (*hooks._SUPPORTED_TP_DEVICES, "cpu")
        stack.enter_context(mock.patch.object(hooks, "_SUPPORTED_TP_DEVICES", devices))
        config = TensorParallelConfig(tp_degree=2)
        keeps_bits(lambda: shared(flux(), config), partial(latents, inputs=flux_inputs()))
