"""Tests inputs with other layouts: the bits stay, and equal graphs are one capture."""

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from tests.engines import num_captures
from tests.loops import refreshes

CHANNELS = 8


class Image(nn.Module):
    """``forward(sample [B, 8, H, W], timestep [])``: ``read(sample)``, then convolutions."""

    def __init__(self, read: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.read, self.first_view, self.branching = read, False, False
        self.layers = nn.ModuleList(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(4))

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        x = self.read(viewed(sample) if self.first_view else sample)
        for layer in self.layers:
            x = x + torch.tanh(layer(x)) + timestep / 1000
            if self.branching and not x.is_contiguous():
                x = 2 * x
        return x


class OneChannel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(1, CHANNELS, 3, padding=1)
        self.image = Image(torch.sin)
        self.image.branching = True

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        x: Tensor = self.image(self.first(sample), timestep)
        return x.mean(1, keepdim=True)


def viewed(x: Tensor) -> Tensor:
    return x.contiguous().view(x.shape[0], -1).view(x.shape)


def reshaped(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], -1).sigmoid().reshape(x.shape)


def branching(x: Tensor) -> Tensor:
    return 2 * x if x.is_contiguous() else x


def windows(x: Tensor) -> Tensor:
    """Read each second element as a view."""
    return x.unflatten(-1, (4, 2)).reshape(*x.shape[:2], -1).reshape(x.shape) + x.stride(-1)


def image(read: Callable[[Tensor], Tensor]) -> Image:
    torch.manual_seed(0)
    return Image(read).eval()


def contiguous(x: Tensor) -> Tensor:
    return x.contiguous()


def channels_last(x: Tensor) -> Tensor:
    return x.to(memory_format=torch.channels_last)


def with_gaps(x: Tensor) -> Tensor:
    return torch.cat([x, x], 1)[:, :CHANNELS]


def with_inner_gaps(x: Tensor) -> Tensor:
    return torch.stack([x, x], -1)[..., 0]


def repeated(x: Tensor) -> Tensor:
    return x[:1].expand_as(x)


LAYOUTS = (contiguous, channels_last, with_gaps, with_inner_gaps, repeated, contiguous)


@pytest.mark.parametrize("read", [viewed, reshaped, branching, windows])
@torch.no_grad()
def test_each_layout_gives_the_originals_bits(read):
    model, plain = fxcache.optimize(image(read), fxcache.Uniform(1)), image(read)
    latent = torch.randn(2, CHANNELS, 8, 8)
    for step, layout in enumerate(LAYOUTS):
        timestep = torch.tensor(900.0 - step)
        assert torch.equal(model(layout(latent), timestep), plain(layout(latent), timestep))


def in_a_region(x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return torch.sin(x)


class Untraceable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (torch.sin(x) if float(x.sum()) > -1e9 else x).contiguous()


@pytest.mark.parametrize("read", [torch.sin, in_a_region, Untraceable()])
@pytest.mark.filterwarnings("ignore:torch.export cannot trace")
@torch.no_grad()
def test_layouts_share_a_capture_if_the_graph_is_the_same(read):
    """Solvers return other layouts than the first noise has: no step more is refreshed."""
    model, plain = fxcache.optimize(image(read), fxcache.Uniform(3)), image(read)
    latent = torch.randn(2, CHANNELS, 8, 8)
    with fxcache.session(model, num_steps=6):
        for step, layout in enumerate(LAYOUTS):
            found = model(layout(latent), timestep := torch.tensor(900.0 - step))
            if step % 3 == 0:
                assert torch.equal(found, plain(layout(latent), timestep))
    assert num_captures(model) == 1
    assert refreshes(model) == [[0, 3]]


@torch.no_grad()
def test_a_new_capture_ends_what_layouts_shared():
    model, plain = fxcache.optimize(image(torch.sin), fxcache.Uniform(1)), image(torch.sin)
    latent = torch.randn(2, CHANNELS, 8, 8)
    for layout in (contiguous, channels_last):
        model(layout(latent), torch.tensor(900.0))
    for changed in (model, plain):
        changed.first_view = True
    fxcache.clear(model)
    gc.collect()
    for layout in (channels_last, contiguous):
        timestep = torch.tensor(800.0)
        assert torch.equal(model(layout(latent), timestep), plain(layout(latent), timestep))
    assert num_captures(model) == 2


@torch.no_grad()
def test_the_layouts_of_weights_are_noticed():
    model: Any = fxcache.optimize(image(torch.sin), fxcache.Uniform(1))
    plain: Any = image(torch.sin)
    latent = torch.randn(2, CHANNELS, 8, 8)
    for number, format_ in enumerate((torch.contiguous_format, torch.channels_last) * 2):
        for changed in (model, plain):
            changed.branching = True
            changed.to(memory_format=format_)
        with fxcache.session(model, num_steps=1):
            found = model(latent, timestep := torch.tensor(900.0 - number))
        assert torch.equal(found, plain(latent, timestep))


@torch.no_grad()
def test_one_channel_may_have_two_layouts():
    """Both are contiguous, and convolutions of them are not alike."""
    model, plain = fxcache.optimize(OneChannel().eval(), fxcache.Uniform(1)), OneChannel().eval()
    latent, timestep = torch.randn(2, 1, 6, 6), torch.tensor(900.0)
    for layout in (contiguous, channels_last, contiguous):
        assert torch.equal(model(layout(latent), timestep), plain(layout(latent), timestep))


@torch.no_grad()
def test_sizes_that_vary_keep_their_layouts():
    config = fxcache.CaptureConfig(dynamic={"sample": (0, 2, 3)})
    model = fxcache.optimize(image(reshaped), fxcache.Uniform(1), capture=config)
    plain = image(reshaped)
    for size in (8, 6):
        for layout in LAYOUTS:
            latent = torch.randn(2, CHANNELS, size, size)
            timestep = torch.tensor(900.0)
            assert torch.equal(model(layout(latent), timestep), plain(layout(latent), timestep))
    assert num_captures(model) <= 4


@torch.no_grad()
def test_an_artifact_has_a_graph_for_each_layout_that_was_called(tmp_path):
    model, plain = fxcache.optimize(image(viewed), fxcache.Uniform(1)), image(viewed)
    latent, timestep = torch.randn(2, CHANNELS, 8, 8), torch.tensor(900.0)
    for layout in (contiguous, channels_last):
        model(layout(latent), timestep)
    loaded = fxcache.load(fxcache.export(model, tmp_path / "artifact"))
    for layout in (channels_last, contiguous):
        assert torch.equal(loaded(layout(latent), timestep), plain(layout(latent), timestep))
