"""Tests hooks around some calls of a step: each state of hooks has its own captures."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from accelerate.hooks import ModelHook as AccelerateHook
from accelerate.hooks import add_hook_to_module, remove_hook_from_module
from diffusers import DiTTransformer2DModel, WanTransformer3DModel
from diffusers.guiders import (
    AutoGuidance,
    SkipLayerGuidance,
)
from diffusers.hooks import HookRegistry, LayerSkipConfig, ModelHook
from diffusers.hooks.layer_skip import _apply_layer_skip_hook
from torch import Tensor, nn

import fxcache
from fxcache.runtime.hooks import Hooks
from tests.engines import num_captures

pytestmark = pytest.mark.usefixtures("shared_captures")

STEPS = 6
Setting = Callable[[Any], Any]


class Scaled:
    """A processor: a block calls it, and it is not a module."""

    def __init__(self, scale: float = 1.0):
        self.scale = scale

    def __call__(self, x: Tensor) -> Tensor:
        return torch.tanh(x) * self.scale


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.processor = nn.Linear(8, 8), Scaled()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return x + self.processor(self.inner(x) + emb)


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.time, self.head = nn.Linear(1, 8), nn.Linear(8, 8)
        self.blocks: Any = nn.ModuleList(Block() for _ in range(4))

    def forward(self, x: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        emb = self.time(timestep.reshape(-1, 1) / 1000)[:, None] + text
        for block in self.blocks:
            x = block(x, emb=emb)
        return self.head(x)


class Doubling:
    """A hook with a switch, and a method that serves as a hook."""

    def __init__(self, enabled: bool = True):
        self.enabled = enabled

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return 2 * output if self.enabled else output

    def method(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return self(module, args, output)


class DiffusersDoubling(ModelHook):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def post_forward(self, module: nn.Module, output: Tensor) -> Tensor:
        return self.factor * output


class AccelerateDoubling(AccelerateHook):
    def post_forward(self, module: nn.Module, output: Tensor) -> Tensor:
        return 2 * output


def scaled(module: nn.Module, args: Any, output: Tensor, *, factor: float) -> Tensor:
    return factor * output


@contextmanager
def removed(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def post_hook(block: Block) -> Any:
    return removed(block.register_forward_hook(lambda _, args, output: 2 * output))


def object_as_hook(block: Block) -> Any:
    return removed(block.register_forward_hook(Doubling()))


def method_as_hook(block: Block) -> Any:
    return removed(block.register_forward_hook(Doubling().method))


def partial_as_hook(block: Block) -> Any:
    return removed(block.register_forward_hook(functools.partial(scaled, factor=2.0)))


def pre_hook(block: Block) -> Any:
    return removed(block.register_forward_pre_hook(lambda _, args: (2 * args[0],)))


def pre_hook_with_kwargs(block: Block) -> Any:
    def halve(_: nn.Module, args: Any, kwargs: Any) -> Any:
        return args, {"emb": kwargs["emb"] / 2}

    return removed(block.register_forward_pre_hook(halve, with_kwargs=True))


def post_hook_with_kwargs(block: Block) -> Any:
    def add(_: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor:
        return output + kwargs["emb"]

    return removed(block.register_forward_hook(add, with_kwargs=True))


@contextmanager
def own_forward(block: Block) -> Iterator[None]:
    """Replace ``forward`` as a guider does, which leaves the class's ``forward`` on the block."""
    original = block.forward
    block.forward = lambda x, emb: x  # type: ignore[method-assign]
    yield
    block.forward = original  # type: ignore[method-assign]


@contextmanager
def own_forward_deleted(block: Block) -> Iterator[None]:
    block.forward = lambda x, emb: 2 * x  # type: ignore[method-assign]
    yield
    del block.forward


@contextmanager
def diffusers_hook(block: Block) -> Iterator[None]:
    registry = HookRegistry.check_if_exists_or_initialize(block)
    registry.register_hook(DiffusersDoubling(2.0), "doubling")
    yield
    registry.remove_hook("doubling")


@contextmanager
def accelerate_hook(block: Block) -> Iterator[None]:
    add_hook_to_module(block, AccelerateDoubling())
    yield
    remove_hook_from_module(block)


@contextmanager
def processor(block: Block) -> Iterator[None]:
    original, block.processor = block.processor, Scaled(3.0)
    yield
    block.processor = original


@contextmanager
def setting_of_processor(block: Block) -> Iterator[None]:
    block.processor.scale = 3.0
    yield
    block.processor.scale = 1.0


WAYS = [
    *(post_hook, object_as_hook, method_as_hook, partial_as_hook),
    *(pre_hook, pre_hook_with_kwargs, post_hook_with_kwargs),
    *(own_forward, own_forward_deleted, diffusers_hook, accelerate_hook),
    *(processor, setting_of_processor),
]


def latents(seed: int = 0) -> Tensor:
    return torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def sampled(model: Any, way: Setting, steps: int = STEPS, block: int = 1) -> list[Tensor]:
    """Call the model twice at each step for one prompt. The second call has hooks."""
    x, text, found = latents(), latents(1)[:, :1], []
    for t in torch.linspace(900, 100, steps):
        plain = model(x, t, text)
        with way(model.blocks[block]):
            hooked = model(x, t, text)
        found += [plain, hooked]
        x = x - 0.1 * (2 * plain - hooked)
    return found


def runs(model: nn.Module) -> list[tuple[int, int]]:
    return [(r.steps, len(r.refreshes)) for r in fxcache.report(model).runs]


@pytest.mark.parametrize("way", WAYS)
def test_plain_and_hooked_refreshes_are_exact(way):
    model, plain = Denoiser().eval(), Denoiser().eval()
    fxcache.optimize(model, policy=fxcache.Uniform(1))
    for _ in range(2):  # runs
        for got, expected in zip(sampled(model, way), sampled(plain, way), strict=True):
            assert torch.equal(got, expected)
    assert num_captures(model) == 2


@pytest.mark.parametrize("way", [post_hook, own_forward, diffusers_hook, processor])
def test_plain_and_hooked_calls_reuse_side_by_side(way):
    model = fxcache.optimize(Denoiser().eval(), policy=fxcache.Uniform(3))
    sampled(model, way)
    assert runs(model) == [(STEPS, 2), (STEPS, 2)]
    assert num_captures(model) == 2


@torch.no_grad()
def test_a_switch_inside_a_hook_is_noticed():
    model, plain = Denoiser().eval(), Denoiser().eval()
    fxcache.optimize(model, policy=fxcache.Uniform(1))
    hooks = [Doubling(), Doubling()]
    for m, hook in zip((model, plain), hooks, strict=True):
        m.blocks[2].register_forward_hook(hook)
    x, text = latents(), latents(1)[:, :1]
    for t in torch.linspace(900, 100, STEPS):
        for enabled in (True, False):
            for hook in hooks:
                hook.enabled = enabled
            assert torch.equal(model(x, t, text), plain(x, t, text))
    assert num_captures(model) == 2


@torch.no_grad()
def test_a_changed_closure_variable_is_noticed():
    factor = 1.0

    def scale(_: nn.Module, args: Any, output: Tensor) -> Tensor:
        return factor * output

    model, plain = Denoiser().eval(), Denoiser().eval()
    fxcache.optimize(model, policy=fxcache.Uniform(1))
    for m in (model, plain):
        m.blocks[0].register_forward_hook(scale)
    x, text = latents(), latents(1)[:, :1]
    for t in torch.linspace(900, 100, STEPS):
        for factor in (1.0, 0.5, 2.0):  # noqa: B007, read by the hook
            assert torch.equal(model(x, t, text), plain(x, t, text))
    assert num_captures(model) == 3


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxcache.FxcacheWarning")  # six trajectories of two calls
def test_hooks_on_one_block_after_another():
    """The number of modules with a hook stays the same."""
    model, plain = Denoiser().eval(), Denoiser().eval()
    fxcache.optimize(model, policy=fxcache.Uniform(1))
    x, text = latents(), latents(1)[:, :1]
    for way in (post_hook, diffusers_hook):
        for t in torch.linspace(900, 100, 2):
            for block in range(3):
                with way(model.blocks[block]), way(plain.blocks[block]):
                    assert torch.equal(model(x, t, text), plain(x, t, text))
    assert num_captures(model) == 6


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*starts a run:fxcache.FxcacheWarning")
def test_too_many_states_of_hooks_are_warned_of():
    model, plain = Denoiser().eval(), Denoiser().eval()
    fxcache.optimize(model, policy=fxcache.Uniform(1))
    x, text, t = latents(), latents(1)[:, :1], torch.tensor(500.0)

    def call(scale: float) -> None:
        for m in (model, plain):
            m.blocks[0].processor = Scaled(scale)
        assert torch.equal(model(x, t, text), plain(x, t, text))

    for scale in range(8):
        call(float(scale))
    with pytest.warns(fxcache.FxcacheWarning, match="hooks"):
        call(8.5)
    assert num_captures(model) == 8


# Guiders


def wan() -> WanTransformer3DModel:
    torch.manual_seed(0)
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=8,
        ffn_dim=32,
        num_layers=3,
    ).eval()
    nn.init.normal_(model.proj_out.weight)
    return model


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


# The key itself


def key_of(hooks: Hooks, model: Any, way: Setting, block: int = 1) -> int:
    with way(model.blocks[block]):
        return hooks.key(model)


@pytest.mark.parametrize("way", WAYS)
def test_equal_hooks_have_equal_keys(way):
    model, hooks = Denoiser(), Hooks()
    plain = hooks.key(model)
    first, second = key_of(hooks, model, way), key_of(hooks, model, way)
    assert first == second != plain
    assert key_of(hooks, model, way, block=2) not in (plain, first)
    assert hooks.key(model) == plain


def test_backward_hooks_count_too():
    model, hooks = Denoiser(), Hooks()
    keys = [hooks.key(model)]
    for register in ("register_full_backward_hook", "register_full_backward_pre_hook"):
        with removed(getattr(model.blocks[0], register)(lambda *_: None)):
            keys.append(hooks.key(model))
    assert len(set(keys)) == 3


def test_options_of_a_hook_count():
    def hook(*_: Any) -> None:
        """Accepts any arguments."""

    model, hooks = Denoiser(), Hooks()
    keys = []
    for options in ({}, {"with_kwargs": True}, {"always_call": True}):
        with removed(model.blocks[0].register_forward_hook(hook, **options)):
            keys.append(hooks.key(model))
    assert len(set(keys)) == 3


def test_hooks_of_the_model_itself_and_elsewhere_do_not_count():
    model, other, hooks = Denoiser(), Denoiser(), Hooks()
    plain = hooks.key(model)
    with removed(model.register_forward_hook(lambda *_: None)), post_hook(other.blocks[0]):
        assert hooks.key(model) == plain


def test_hooks_on_a_new_module_are_seen_once_the_tree_is_read_again():
    model, hooks = Denoiser(), Hooks()
    plain = hooks.key(model)
    model.blocks[0].inner = nn.Sequential(model.blocks[0].inner)
    with removed(model.blocks[0].inner.register_forward_hook(lambda *_: None)):
        hooks.forget()
        assert hooks.key(model) != plain
