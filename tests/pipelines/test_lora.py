"""Tests LoRA with diffusers and PEFT: loading, scaling, fusing and swapping between runs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from bench.pipelines.parts import denoiser, noise
from tests import tiny
from tests.pipelines.build import (
    Made,
    flux,
    follows,
    follows_each_call,
    keeps,
    optimised,
    paced,
    stable_diffusion,
)

pytest.importorskip("peft")

# Warnings of PEFT when diffusers loads and deletes adapters in its own way.
pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:Already found a .peft_config.:UserWarning",
        "ignore:Adapter two was active which is now deleted:UserWarning",
    ),
    pytest.mark.usefixtures("shared_captures"),
]
TARGETS = ("to_q", "to_v")


def weights(model: nn.Module, prefix: str, rank: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """Return a LoRA of the attention projections in TARGETS, with a visible effect."""
    made: dict[str, Tensor] = {}
    for number, (name, module) in enumerate(model.named_modules()):
        if isinstance(module, nn.Linear) and name.endswith(TARGETS):
            shapes = {"A": (rank, module.in_features), "B": (module.out_features, rank)}
            for part, shape in shapes.items():
                key = f"{prefix}.{name}.lora_{part}.weight"
                made[key] = 0.3 * noise(*shape, seed=100 * seed + number)
    return made


def load(pipe: Any, name: str = "one", **options: Any) -> None:
    seed = {"one": 1, "two": 2}[name]
    hotswap = options.get("hotswap", False)
    name = "one" if hotswap else name
    pipe.load_lora_weights(
        weights(tiny.small_unet(), "unet", seed=seed), adapter_name=name, **options
    )


def with_lora(*names: str, unet: Callable[[], Any] = tiny.small_unet) -> Any:
    def made() -> Made:
        model, draw, pipe = stable_diffusion(unet)
        for name in names:
            load(pipe, name)
        return model, draw, pipe

    return made


def test_loaded_before():
    model, draw, _ = with_lora("one")()
    keeps(draw, model)


CHANGES: dict[str, tuple[tuple[str, ...], Callable[[Any], object]]] = {
    "load": ((), load),
    "load a second": (("one",), lambda p: load(p, "two")),
    "weight": (("one",), lambda p: p.set_adapters("one", 0.3)),
    "weights": (("one", "two"), lambda p: p.set_adapters(["one", "two"], [0.3, 0.7])),
    "select": (("one", "two"), lambda p: p.set_adapters("one")),
    "disable": (("one",), lambda p: p.disable_lora()),
    "delete": (("one", "two"), lambda p: p.delete_adapters("two")),
    "unload": (("one",), lambda p: p.unload_lora_weights()),
    "fuse": (("one",), lambda p: p.fuse_lora(lora_scale=0.5)),
    "hot-swap": (("one",), lambda p: load(p, "two", hotswap=True)),
}


@pytest.mark.sweep(2)
@pytest.mark.parametrize("change", CHANGES)
def test_changed_between_runs(change):
    names, act = CHANGES[change]
    follows(with_lora(*names), act)


@pytest.mark.slow
def test_weights_of_blocks_changed_between_runs():
    made = with_lora("one", unet=tiny.attentive_unet)
    follows(made, lambda pipe: pipe.set_adapters("one", {"unet": {"down": 0.0}}))


@pytest.mark.slow
def test_fused_then_unfused_and_unloaded():
    model, draw, pipe = with_lora("one")()
    with optimised(model):
        first = draw()
        pipe.fuse_lora()
        draw()
        pipe.unfuse_lora()
        torch.testing.assert_close(draw(), first, rtol=1e-3, atol=1e-3)
        pipe.unload_lora_weights()
        without = draw()
    model, draw, _ = stable_diffusion()
    with optimised(model):
        torch.testing.assert_close(without, draw(), rtol=1e-3, atol=1e-3)


def test_scale_of_each_call():
    model, draw, _ = with_lora("one")()
    follows_each_call(draw, model, "cross_attention_kwargs", ({"scale": 0.25}, {"scale": 0.5}))


def load_flux(pipe: Any) -> None:
    lora = weights(denoiser("FluxTransformer2DModel"), "transformer", seed=1)
    pipe.load_lora_weights(lora, adapter_name="one")


def flux_with_lora() -> Made:
    model, draw, pipe = flux()
    load_flux(pipe)
    return model, draw, pipe


@pytest.mark.slow
def test_flux_loaded_between_runs():
    follows(flux, load_flux)


@pytest.mark.slow
def test_flux_weight_changed_between_runs():
    follows(flux_with_lora, lambda p: p.set_adapters("one", 0.3))


@pytest.mark.slow
def test_flux_scale_of_each_call():
    model, draw, _ = flux_with_lora()
    follows_each_call(draw, model, "joint_attention_kwargs", ({"scale": 0.3}, {"scale": 0.7}))


def test_weight_changed_in_the_middle_of_a_run_waits_for_the_next_refresh():
    model, draw, pipe = with_lora("one")()

    def halve(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step == 1:
            pipe.set_adapters("one", 0.5)
        return values

    plain = draw(callback_on_step_end=halve)
    pipe.set_adapters("one", 1.0)
    with optimised(model, interval=1):
        assert torch.equal(draw(callback_on_step_end=halve), plain)
        pipe.set_adapters("one", 1.0)
        paced(3, model)
        unchanged, changed = draw(), draw(callback_on_step_end=halve)
        assert not torch.equal(changed, unchanged)
        halved = draw()
    model, draw, pipe = with_lora("one")()
    pipe.set_adapters("one", 0.5)
    with optimised(model):
        assert torch.equal(draw(), halved)


def test_a_restored_model_keeps_its_lora():
    model, draw, _ = with_lora("one")()
    plain = draw()
    fxcache.optimize(model)
    draw()
    fxcache.restore(model)
    assert torch.equal(draw(), plain)
