"""Denoisers as people write them, whose parts are not the modules that a library would make."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention

CHANNELS, WIDTH, TOKENS, DEPTH = 4, 16, 12, 6


def seeded(generator: torch.Generator, *shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, generator=generator) * shape[-1] ** -0.5)


class Functional(nn.Module):
    """A transformer of functions over parameters: it has no submodules at all."""

    def __init__(self, depth: int = DEPTH) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.depth = depth
        self.enter, self.leave = (
            seeded(generator, WIDTH, CHANNELS),
            seeded(generator, CHANNELS, WIDTH),
        )
        for i in range(depth):
            self.register_parameter(f"time_{i}", seeded(generator, WIDTH, 1))
            self.register_parameter(f"qkv_{i}", seeded(generator, 3 * WIDTH, WIDTH))
            self.register_parameter(f"out_{i}", seeded(generator, WIDTH, WIDTH))
            self.register_parameter(f"up_{i}", seeded(generator, 4 * WIDTH, WIDTH))
            self.register_parameter(f"down_{i}", seeded(generator, WIDTH, 4 * WIDTH))

    def weight(self, kind: str, i: int) -> Tensor:
        return getattr(self, f"{kind}_{i}")

    def attend(self, x: Tensor, t: Tensor, i: int) -> Tensor:
        h = layer_norm(x, (WIDTH,)) + t @ self.weight("time", i).T
        q, k, v = (h @ self.weight("qkv", i).T).chunk(3, -1)
        return scaled_dot_product_attention(q, k, v) @ self.weight("out", i).T

    def feed(self, x: Tensor, i: int) -> Tensor:
        return gelu(layer_norm(x, (WIDTH,)) @ self.weight("up", i).T) @ self.weight("down", i).T

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = torch.log(t).reshape(-1, 1, 1)
        h = x @ self.enter.T
        for i in range(self.depth):
            h = h + self.attend(h, time, i)
            h = h + self.feed(h, i)
        return layer_norm(h, (WIDTH,)) @ self.leave.T


class PartsOneByOne(nn.Module):
    """A transformer whose blocks are dictionaries of parts that ``forward`` calls one by one."""

    def __init__(self, depth: int = DEPTH) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave = nn.Linear(CHANNELS, WIDTH), nn.Linear(WIDTH, CHANNELS)
        self.time = nn.Linear(1, WIDTH)
        self.blocks: Any = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": nn.LayerNorm(WIDTH),
                    "qkv": nn.Linear(WIDTH, 3 * WIDTH),
                    "norm2": nn.LayerNorm(WIDTH),
                    "up": nn.Linear(WIDTH, 4 * WIDTH),
                    "down": nn.Linear(4 * WIDTH, WIDTH),
                }
            )
            for _ in range(depth)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = self.time(torch.log(t).reshape(-1, 1))[:, None]
        h = self.enter(x)
        for block in self.blocks:
            n = block["norm"](h) + time
            h = h + scaled_dot_product_attention(*block["qkv"](n).chunk(3, -1))
            h = h + block["down"](gelu(block["up"](block["norm2"](h))))
        return self.leave(h)


class VideoAndAudio(nn.Module):
    """Two latents in one model, whose streams exchange values in every block."""

    def __init__(self, depth: int = DEPTH) -> None:
        super().__init__()
        torch.manual_seed(0)
        names = ("video", "audio")
        self.enter = nn.ModuleDict({name: nn.Linear(CHANNELS, WIDTH) for name in names})
        self.leave = nn.ModuleDict({name: nn.Linear(WIDTH, CHANNELS) for name in names})
        self.time = nn.Linear(1, WIDTH)

        def block() -> nn.ModuleDict:
            parts = {name: nn.Linear(WIDTH, WIDTH) for name in names}
            crossed = {f"{name}_to_other": nn.Linear(WIDTH, WIDTH) for name in names}
            return nn.ModuleDict(parts | crossed)

        self.blocks: Any = nn.ModuleList(block() for _ in range(depth))

    def forward(self, video: Tensor, audio: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        time = self.time(torch.log(t).reshape(-1, 1))[:, None]
        v, a = self.enter["video"](video), self.enter["audio"](audio)
        for block in self.blocks:
            heard, seen = a.mean(1, keepdim=True), v.mean(1, keepdim=True)
            v = v + torch.tanh(block["video"](v + time)) + block["audio_to_other"](heard)
            a = a + torch.tanh(block["audio"](a + time)) + block["video_to_other"](seen)
        return self.leave["video"](v), self.leave["audio"](a)


class Block(nn.Module):
    """A residual block of a U-Net."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv1d(width, width, 3, padding=1), nn.SiLU())
        self.time = nn.Linear(1, width)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        return h + self.inner(h + self.time(time)[:, :, None])


class UNet(nn.Module):
    """A U-Net of three levels over ``[B, 12, 4]``."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave = nn.Conv1d(CHANNELS, 8, 1), nn.Conv1d(8, CHANNELS, 1)
        self.down: Any = nn.ModuleList(Block(8) for _ in range(2))
        self.middle = Block(8)
        self.up: Any = nn.ModuleList(Block(8) for _ in range(2))
        self.join: Any = nn.ModuleList(nn.Conv1d(16, 8, 1) for _ in range(2))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = torch.log(t).reshape(-1, 1)
        h, skips = self.enter(x.mT), []
        for block in self.down:
            h = block(h, time)
            skips.append(h)
            h = h[..., ::2]
        h = self.middle(h, time)
        for block, join in zip(self.up, self.join, strict=True):
            h = torch.cat([h.repeat_interleave(2, -1), skips.pop()], 1)
            h = block(join(h), time)
        return self.leave(h).mT


class FixedPoint(nn.Module):
    """A denoiser whose deep part iterates ``z <- f(z, x)`` from zero (FPDM, arXiv:2401.08741)."""

    def __init__(self, iterations: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.iterations = iterations
        self.enter, self.leave = nn.Linear(CHANNELS, WIDTH), nn.Linear(WIDTH, CHANNELS)
        self.time, self.before = nn.Linear(1, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.inject, self.inner = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.after = nn.Linear(WIDTH, WIDTH)

    def step(self, z: Tensor, injected: Tensor) -> Tensor:
        return 0.7 * torch.tanh(self.inner(z) + injected)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = self.enter(x) + self.time(torch.log(t).reshape(-1, 1))[:, None]
        h = h + torch.tanh(self.before(h))
        injected, z = self.inject(h), torch.zeros_like(h)
        for _ in range(self.iterations):
            z = self.step(z, injected)
        h = h + z
        return self.leave(h + torch.tanh(self.after(h)))
