"""A model, and the ways in which people change what its blocks compute for some calls."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.hooks import ModelHook as AccelerateHook
from accelerate.hooks import add_hook_to_module, remove_hook_from_module
from diffusers import WanTransformer3DModel
from diffusers.hooks import HookRegistry, ModelHook
from torch import Tensor, nn

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
